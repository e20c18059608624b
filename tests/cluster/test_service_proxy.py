"""A kubeconfig is enough: everything at the gateway works through the API server's service proxy."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, Person
from tests.cluster.installation import SERVICE, installation, lease

from skyward.contract.names import ANNOTATION_GATEWAY, ANNOTATION_GATEWAY_SERVICE, SYSTEM_NAMESPACE
from skyward.contract.rbac import EDITOR, GATEWAY, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.installation import Installation
    from tests.conftest import ControlPlane

pytestmark = pytest.mark.timeout(5 * MINUTES)

PROGRAM = """
import hashlib, json, os, sys, time
from pathlib import Path
import skyward as sky

@sky.function
def digest(data):
    print("line from the worker", flush=True)
    return hashlib.sha256(data).hexdigest()

@sky.function
def noise(size):
    return os.urandom(size)

@sky.function
def square(number):
    return number * number

found = {}
with sky.Compute(provider=sky.Local(), nodes=1, name="proxied") as pool:
    session = pool._entered()[0]
    found["base"] = session.gateway._routes.find().base
    data = os.urandom(20_000_000)
    found["upload"] = (digest(data) >> pool) == hashlib.sha256(data).hexdigest()
    found["download"] = len(noise(20_000_000) >> pool)
    found["map"] = sorted(pool.map(square, range(50), stream=True))
    with sky.Executor(pool) as executor:
        found["task"] = executor.task
        found["executor"] = list(executor.map(lambda x: x + 1, range(500)))
        found["large"] = len(executor.submit(os.urandom, 5_000_000).result())
    future = digest(b"kept" * 100_000) > pool
    future.result()
    Path("found.json").write_text(json.dumps(found))
    print("everything is there", flush=True)
    time.sleep(300 if len(sys.argv) > 1 else 0)
"""

LATER = """
import subprocess, sys
import skyward as sky
tasks = subprocess.run(["skyward", "tasks"], capture_output=True, text=True).stdout
name = next(line.split()[0] for line in tasks.splitlines() if line.startswith("noise"))
first = sky.task(name).result()
assert first == sky.task(name).result() and len(first) == 20_000_000
chatty = next(line.split()[0] for line in tasks.splitlines() if line.startswith("digest"))
print(subprocess.run(["skyward", "logs", chatty], capture_output=True, text=True).stdout)
"""

UPLOADS = """
import os
import skyward as sky

@sky.function
def size(data):
    return len(data)

with sky.Compute(provider=sky.Local(), nodes=1) as pool:
    size(os.urandom(1_000_000)) >> pool
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: sockets of machines are in it."""
    made = Path(tempfile.mkdtemp(prefix="sky-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def installed(control_plane: ControlPlane, namespace: str, folder: Path) -> Iterator[Installation]:
    with installation(control_plane, namespace, folder) as made:
        yield made


def person(installed: Installation, kubeconfig: Path) -> Person:
    """Somebody whose environment has this kubeconfig, and no way to the cluster but that."""
    home = installed.folder / "home"
    work = installed.folder / "work"
    work.mkdir(exist_ok=True)
    return Person(home, work, settings={"KUBECONFIG": str(kubeconfig)})


def test_everything_goes_through_the_api_server(installed: Installation, control_plane: ControlPlane) -> None:
    said = lease(control_plane)
    assert said[ANNOTATION_GATEWAY_SERVICE] == SERVICE
    assert said[ANNOTATION_GATEWAY] == "http://skyward-gateway.skyward-system.svc:8080"
    somebody = person(installed, installed.user())
    with somebody.starts(PROGRAM) as program:
        shown = program.end()
    found = json.loads((somebody.folder / "found.json").read_text())
    proxy = "/api/v1/namespaces/skyward-system/services/skyward-gateway:8080/proxy"
    assert found["base"] == f"{control_plane.server}{proxy}"
    assert found["upload"]
    assert found["download"] == 20_000_000
    assert found["map"] == [number**2 for number in range(50)]
    assert found["executor"] == list(range(1, 501))
    assert found["large"] == 5_000_000
    assert "[node 0] line from the worker" in shown


def test_another_process_reads_results_and_output_through_the_proxy(installed: Installation) -> None:
    kubeconfig = installed.user()
    somebody = person(installed, kubeconfig)
    with somebody.starts(PROGRAM, "stay") as program:
        program.until("everything is there")
        another = Person(installed.folder / "other", somebody.folder, settings=somebody.settings)
        assert "line from the worker" in another.script(LATER)
        program.process.send_signal(signal.SIGINT)
        program.process.wait(60)


def test_a_user_without_the_role_is_told_which_one_to_ask_for(installed: Installation) -> None:
    finder = Role("skyward-finder", "Finds the gateway, and may not reach it.", GATEWAY.rules[:1])
    kubeconfig = installed.member((EDITOR, installed.namespace), (finder, SYSTEM_NAMESPACE))
    shown = person(installed, kubeconfig).fails(UPLOADS)
    assert "does not pass requests on to the operator's gateway" in shown
    assert 'services "skyward-gateway:8080" is forbidden' in shown
    assert "--clusterrole=skyward-gateway" in shown
