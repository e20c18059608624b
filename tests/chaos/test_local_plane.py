"""Each process of the embedded control plane is killed; data and clients survive."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from skyward.local import plane
from skyward.local.api import Api
from skyward.local.home import Home
from skyward.local.processes import Identity, find_by_argument
from skyward.local.status import ComponentState, read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from skyward.local.endpoint import Endpoint

# An operator that says it is ready, and stops on SIGTERM.
OPERATOR = """
import json, pathlib, signal, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--data-dir") + 1])
(folder / "endpoints.json").write_text(json.dumps({"gateway": "http://g", "health": "http://h"}))
signal.pause()
"""
CONFIG = "/api/v1/namespaces/default/configmaps/kept"


def stand_in(home: Home) -> list[str]:
    kubeconfig = str(home.operator_kubeconfig)
    return [sys.executable, "-c", OPERATOR, "--kubeconfig", kubeconfig, "--data-dir", str(home.operator)]


@pytest.fixture
def home(local_home: Callable[[], Path]) -> Home:
    local_home()
    return Home.locate()


@pytest.fixture
def running(home: Home) -> Iterator[Endpoint]:
    """A control plane with a stand-in for the operator, and something in it that must survive."""
    endpoint = plane.ensure(operator=stand_in)
    with connect(endpoint) as api:
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}}
        api.apply(CONFIG, manifest)
    yield endpoint
    plane.stop(home)


def connect(endpoint: Endpoint) -> Api:
    return Api(endpoint.server, endpoint.ca_file, endpoint.token)


def eventually(holds: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def identity(home: Home, name: str) -> Identity:
    known = read_status(home)
    component = known.component(name) if known else None
    assert component is not None
    assert component.identity is not None
    return component.identity


def is_replaced(home: Home, name: str, before: Identity) -> bool:
    known = read_status(home)
    component = known.component(name) if known else None
    if component is None or component.state is not ComponentState.RUNNING:
        return False
    return component.identity not in (None, before)


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver", "operator"])
def test_killed_component_is_started_again_at_the_same_address(
    home: Home, running: Endpoint, name: str
) -> None:
    before = identity(home, name)
    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: is_replaced(home, name, before))
    again = plane.ensure(operator=stand_in)
    assert again.server == running.server
    with connect(again) as api:
        assert api.get(CONFIG) is not None
    known = read_status(home)
    component = known.component(name) if known else None
    assert component is not None
    assert component.restarts >= 1
    assert "killed by signal 9" in component.last_exit
    assert f"{name} ended: killed by signal 9" in home.log("supervisor").read_text()


@pytest.fixture
def clash_of_old(home: Home) -> None:
    """What an earlier etcd said before it moved to other ports."""
    home.prepare()
    home.log("etcd").write_text("listen tcp 127.0.0.1:2379: bind: address already in use\n")


def test_port_that_was_taken_long_ago_moves_nothing_when_etcd_is_killed(
    clash_of_old: None, home: Home, running: Endpoint
) -> None:
    before, others = identity(home, "etcd"), identity(home, "kube-apiserver")
    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: is_replaced(home, "etcd", before))
    assert plane.ensure(operator=stand_in).server == running.server
    assert identity(home, "kube-apiserver") == others
    assert "moving to other ports" not in home.log("supervisor").read_text()


def test_component_that_is_killed_again_and_again_comes_back(home: Home, running: Endpoint) -> None:
    for _ in range(3):
        before = identity(home, "operator")
        os.kill(before.pid, signal.SIGKILL)
        eventually(lambda before=before: is_replaced(home, "operator", before))  # type: ignore[misc]
    assert identity(home, "operator").process() is not None


def test_killed_supervisor_is_replaced_and_leaves_no_second_server(home: Home, running: Endpoint) -> None:
    known = read_status(home)
    assert known is not None
    old = identity(home, "etcd")
    os.kill(known.supervisor.pid, signal.SIGKILL)
    eventually(lambda: known.supervisor.process() is None)
    again = plane.ensure(operator=stand_in)
    with connect(again) as api:
        assert api.get(CONFIG) is not None
    assert old.process() is None
    assert len(find_by_argument(f"--data-dir={home.etcd}")) == 1
    assert len(find_by_argument(str(home.operator_kubeconfig))) == 1


def test_everything_killed_at_once_comes_back_with_its_data(home: Home, running: Endpoint) -> None:
    known = read_status(home)
    assert known is not None
    pids = [known.supervisor.pid] + [one.identity.pid for one in known.components if one.identity]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: known.supervisor.process() is None)
    again = plane.ensure(operator=stand_in)
    with connect(again) as api:
        assert api.get(CONFIG) is not None


def test_supervisor_stopped_while_it_starts_leaves_nothing(home: Home) -> None:
    def stop_it(_step: object) -> None:
        known = read_status(home)
        if known is not None and known.step.startswith("starting etcd"):
            os.kill(known.supervisor.pid, signal.SIGTERM)

    with pytest.raises(Exception, match="supervisor"):
        plane.ensure(stop_it, operator=stand_in)
    assert not find_by_argument(f"--data-dir={home.etcd}")
    assert not find_by_argument(f"--cert-dir={home.pki}")
