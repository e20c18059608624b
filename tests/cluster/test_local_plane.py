"""The embedded control plane from outside: what a person and a program see of it.

The operator is left out, or replaced by a stand-in that says it is ready: what is tested here is who starts,
shares, stops and recovers the processes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest

from skyward.contract.names import API_VERSION
from skyward.local import ending, plane
from skyward.local.api import Api
from skyward.local.binaries import ensure_binaries
from skyward.local.errors import HomeNotWritable, NewerControlPlane, NodesCostMoney, StartFailed
from skyward.local.home import Home
from skyward.local.processes import Identity, find_by_argument
from skyward.local.status import State, read_status, write_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import ControlPlane

    from skyward.local.endpoint import Endpoint
    from skyward.local.progress import Step

NODES = "/apis/skyward.dev/v1alpha1/namespaces/default/computenodes"
JOIN = "from skyward.local import ensure; print(ensure(operator=None).server)"

# An operator that is ready at once and stops on SIGTERM.
OPERATOR = """
import json, pathlib, signal, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--data-dir") + 1])
(folder / "endpoints.json").write_text(json.dumps({"gateway": "http://g", "health": "http://h"}))
signal.pause()
"""


def stand_in(home: Home) -> list[str]:
    """The command of an operator that only says that it is ready."""
    kubeconfig = str(home.operator_kubeconfig)
    return [sys.executable, "-c", OPERATOR, "--kubeconfig", kubeconfig, "--data-dir", str(home.operator)]


@pytest.fixture
def home(local_home: Callable[[], Path]) -> Home:
    """An empty home; the environment points at it."""
    local_home()
    return Home.locate()


@pytest.fixture
def running(home: Home) -> Iterator[Endpoint]:
    """A control plane without an operator."""
    yield plane.ensure(operator=None)
    plane.stop(home)


def connect(endpoint: Endpoint) -> Api:
    return Api(endpoint.server, endpoint.ca_file, endpoint.token)


def serves(endpoint: Endpoint) -> bool:
    with connect(endpoint) as api:
        return api.is_ready()


def keep(endpoint: Endpoint, name: str) -> None:
    """Write something that must survive."""
    with connect(endpoint) as api:
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}
        api.apply(f"/api/v1/namespaces/default/configmaps/{name}", manifest)


def is_kept(endpoint: Endpoint, name: str) -> bool:
    with connect(endpoint) as api:
        return api.get(f"/api/v1/namespaces/default/configmaps/{name}") is not None


def a_node(endpoint: Endpoint, provider: str) -> None:
    """Create a ComputeNode as the operator would."""
    with connect(endpoint) as api:
        spec = {
            "poolRef": {"name": "p", "uid": "11111111-2222-3333-4444-555555555555"},
            "rank": 0,
            "incarnation": 1,
            "candidates": [{"name": "c", "provider": provider}],
            "image": {"python": "3.13"},
            "worker": {},
            "timeouts": {},
            "templateHash": "ab",
        }
        manifest = {
            "apiVersion": "skyward.dev/v1alpha1",
            "kind": "ComputeNode",
            "metadata": {"name": f"n-{provider}"},
            "spec": spec,
        }
        api.apply(f"{NODES}/n-{provider}", manifest)


def test_kinds_are_served_when_the_control_plane_is_up(control_plane: ControlPlane, namespace: str) -> None:
    with control_plane.api() as api:
        answer = api.get(f"/apis/skyward.dev/v1alpha1/namespaces/{namespace}/computepools")
    assert answer is not None
    assert answer["items"] == []


def test_data_are_kept_when_the_api_server_restarts(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.restart_api_server()
    with control_plane.api() as api:
        assert api.get(f"/api/v1/namespaces/{namespace}") is not None


@pytest.mark.parametrize("token", ["", "Bearer wrong"])
def test_callers_without_a_good_token_are_refused(control_plane: ControlPlane, token: str) -> None:
    address = urlsplit(control_plane.server)
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    for path in ("/readyz", "/version", "/api/v1/secrets"):
        connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": token} if token else {})
            response = connection.getresponse()
            response.read()
            assert response.status == http.HTTPStatus.UNAUTHORIZED


def test_operator_may_do_its_work_and_no_more(control_plane: ControlPlane, namespace: str) -> None:
    with Api(control_plane.server, control_plane.ca_file, control_plane.operator_token) as api:
        assert api.get("/apis/skyward.dev/v1alpha1/tasks") is not None
        with pytest.raises(Exception, match="403"):
            api.get("/api/v1/pods")


def test_nothing_listens_beyond_the_loopback_interface_nor_without_credentials(
    control_plane: ControlPlane,
) -> None:
    servers, ports = control_plane.servers, control_plane.servers.ports
    addresses: set[str] = set()
    for child in (servers.etcd, servers.api_server):
        assert child is not None
        for one in psutil.Process(child.pid).net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr:
                addresses.add(one.laddr[0])
    assert addresses == {"127.0.0.1"}
    for port in (ports.etcd, ports.etcd_peer):
        with pytest.raises(OSError):  # noqa: PT011 (the alert, or the end of the connection, as TLS has it)
            etcd_health(port, control_plane.ca_file)


def etcd_health(port: int, ca_file: Path) -> int:
    """Ask etcd how it is, as a user without a client certificate."""
    context = ssl.create_default_context(cafile=str(ca_file))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status


def test_kubectl_works_with_the_kubeconfig_that_is_printed(running: Endpoint, tmp_path: Path) -> None:
    kubectl = ensure_binaries().kubectl
    assert kubectl is not None
    printed = subprocess.run(
        [sys.executable, "-m", "skyward.cli.main", "local", "kubeconfig"],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "config").write_text(printed.stdout)
    command = [str(kubectl), "--kubeconfig", str(tmp_path / "config"), "get", "skp,skn,skt"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "No resources found in default namespace" in answer.stderr


def test_files_are_for_their_owner_only(home: Home, running: Endpoint) -> None:
    for path in home.root.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_progress_tells_each_step(home: Home) -> None:
    steps: list[Step] = []
    plane.ensure(steps.append, operator=stand_in)
    plane.stop(home, steps.append)
    said = [str(step) for step in steps]
    for words in ("etcd and kube-apiserver", "resource definitions", "operator", "stopping"):
        assert any(words in line for line in said), said


def test_several_processes_at_once_share_one(home: Home) -> None:
    clients = [
        subprocess.Popen([sys.executable, "-c", JOIN], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    servers = [client.communicate(timeout=90)[0].strip() for client in clients]
    assert [client.returncode for client in clients] == [0, 0, 0]
    assert len(set(servers)) == 1
    assert len(find_by_argument(f"--data-dir={home.etcd}")) == 1
    plane.stop(home)


def test_control_plane_survives_its_client_and_the_clients_interrupt(home: Home) -> None:
    code = JOIN + "; import signal; signal.pause()"
    client = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert client.stdout is not None
    assert client.stdout.readline().startswith("https://127.0.0.1")
    os.killpg(client.pid, signal.SIGINT)  # as Ctrl-C does: to the whole group of the terminal
    client.communicate(timeout=10)
    found = plane.find()
    assert found is not None
    assert serves(found)
    plane.stop(home)


def test_data_and_address_are_kept_over_down_and_up(home: Home, running: Endpoint) -> None:
    keep(running, "kept")
    ended = ending.down()
    assert ended.was_running
    assert not ended.left_machines
    assert plane.find() is None
    assert not find_by_argument(f"--data-dir={home.etcd}")
    again = plane.ensure(operator=None)
    assert (again.server, again.token) == (running.server, running.token)
    assert is_kept(again, "kept")


def test_taken_port_is_replaced_and_data_are_kept(home: Home, running: Endpoint) -> None:
    keep(running, "kept")
    known = read_status(home)
    assert known is not None
    plane.stop(home)
    with contextlib.ExitStack() as sockets:
        for port in known.ports:
            sockets.enter_context(socket.create_server(("127.0.0.1", port)))
        again = plane.ensure(operator=None)
    assert again.server != running.server
    assert again.server in home.kubeconfig.read_text()
    assert again.server in home.operator_kubeconfig.read_text()
    assert is_kept(again, "kept")


def test_stale_status_of_another_boot_is_not_believed(home: Home, running: Endpoint) -> None:
    known = read_status(home)
    assert known is not None
    plane.stop(home)
    stranger = Identity(os.getpid(), 1.0)  # the process id is in use, by somebody else
    write_status(home.status, replace(known, state=State.READY, supervisor=stranger))
    assert plane.find() is None
    assert serves(plane.ensure(operator=None))


def test_half_written_state_is_repaired(home: Home, running: Endpoint) -> None:
    keep(running, "kept")
    plane.stop(home)
    for damaged in ("status.json", "pki/tokens.csv", "pki/ca.crt", "kubeconfig"):
        (home.root / damaged).write_text('{"half')
    again = plane.ensure(operator=None)
    assert is_kept(again, "kept")


def test_older_control_plane_is_replaced_on_the_same_data(
    home: Home, running: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(running, "kept")
    before = read_status(home)
    monkeypatch.setattr("skyward.__version__", "99.1")
    again = plane.ensure(operator=None)
    after = read_status(home)
    assert before is not None
    assert after is not None
    assert after.supervisor != before.supervisor
    assert is_kept(again, "kept")


def test_a_kind_that_somebody_deleted_is_served_again(home: Home, running: Endpoint) -> None:
    before = read_status(home)
    with connect(running) as api:
        api.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tasks.skyward.dev")
        while api.get("/apis/skyward.dev/v1alpha1/tasks?limit=1") is not None:
            time.sleep(0.02)
        again = plane.ensure(operator=None)
        assert api.get("/apis/skyward.dev/v1alpha1/tasks?limit=1") is not None
    after = read_status(home)
    assert again == running
    assert before is not None
    assert after is not None
    assert after.supervisor == before.supervisor


def test_newer_control_plane_is_left_alone(
    home: Home, running: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward.__version__", "0.0.1")
    with pytest.raises(NewerControlPlane, match=r"pip install --upgrade skyward=="):
        plane.ensure(operator=None)
    assert serves(running)


def test_operator_that_does_not_start_is_shown_with_its_last_words(home: Home) -> None:
    def broken(_home: Home) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('the disk is on fire')"]

    with pytest.raises(StartFailed, match="the disk is on fire") as raised:
        plane.ensure(operator=broken)
    assert str(home.log("operator").parent) in str(raised.value)
    assert not find_by_argument(f"--data-dir={home.etcd}")


def test_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(HomeNotWritable, match=f"{tmp_path}/file/home/local/v1 cannot be used") as raised:
        plane.ensure(operator=None)
    assert "set SKYWARD_HOME to another folder" in str(raised.value)


def test_down_refuses_while_a_machine_may_cost_money(home: Home, running: Endpoint) -> None:
    a_node(running, "aws")
    with pytest.raises(NodesCostMoney, match=r"default/n-aws \(aws, Pending\)") as raised:
        ending.down()
    assert "--force" in str(raised.value)
    assert serves(running)
    ended = ending.down(force=True)
    assert [str(one) for one in ended.left_machines] == ["default/n-aws (aws, Pending)"]
    assert plane.find() is None


def test_down_waits_for_local_machines_and_names_those_that_stay(home: Home, running: Endpoint) -> None:
    a_node(running, "local")
    steps: list[Step] = []
    ended = ending.down(steps.append, timeout=0.5)
    assert list(ended.left_machines) == ["default/n-local (local, Pending)"]
    assert any("releasing local machines" in str(step) for step in steps)
    assert plane.find() is None


def test_down_ends_local_machines_before_it_stops(home: Home) -> None:
    endpoint = plane.ensure()
    spec = {"candidates": [{"name": "here", "provider": "local"}], "nodes": {"desired": 1}}
    manifest = {"apiVersion": API_VERSION, "kind": "ComputePool", "metadata": {"name": "p"}, "spec": spec}
    with connect(endpoint) as api:
        api.apply(f"/apis/{API_VERSION}/namespaces/default/computepools/p", manifest)
        deadline = time.monotonic() + 60
        while not find_by_argument(f"{home.operator}/", within=True):
            assert time.monotonic() < deadline, "no machine was made"
            time.sleep(0.05)
    ended = ending.down()
    assert ended == ending.Ended(
        was_running=True, deleted_pools=["default/p"], left_machines=[], left_processes=[]
    )


def test_status_command_says_what_runs(home: Home, running: Endpoint) -> None:
    command = [sys.executable, "-m", "skyward.cli.main", "local"]
    up = subprocess.run([*command, "status"], capture_output=True, text=True, check=False)
    assert up.returncode == 0
    for words in ("ready: https://127.0.0.1:", "etcd ", "kube-apiserver ", "running", str(home.root)):
        assert words in up.stdout
    logs = subprocess.run([*command, "logs", "supervisor"], capture_output=True, text=True, check=True)
    assert "ready on https://127.0.0.1:" in logs.stdout
    down = subprocess.run([*command, "down"], capture_output=True, text=True, check=True)
    assert "control plane stopped; its data are kept" in down.stdout
    gone = subprocess.run([*command, "status"], capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stdout.split()[:2]) == (3, ["not", "running"])
    none = subprocess.run([*command, "kubeconfig"], capture_output=True, text=True, check=False)
    assert none.returncode == 1
    assert "run `skyward local up`" in none.stderr


def test_status_file_is_readable_by_other_programs(home: Home, running: Endpoint) -> None:
    document = json.loads(home.status.read_text())
    assert document["state"] == "ready"
    assert document["server"] == running.server
