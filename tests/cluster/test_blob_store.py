"""An operator that has lost its disk: what ended before is in the bucket, and a program does not notice."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, Person
from tests.cluster.installation import Installation
from tests.fake.s3_server import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import ControlPlane

pytestmark = pytest.mark.timeout(8 * MINUTES)

PROGRAM = """
import hashlib, os, sys, time
from pathlib import Path
import skyward as sky

@sky.function
def echo(data):
    return data

@sky.function
def behind(gate, data):
    while not os.path.exists(gate):
        time.sleep(0.05)
    return hashlib.sha256(data).hexdigest()

def until(path):
    while not os.path.exists(path):
        time.sleep(0.05)

with sky.Compute(provider=sky.Local(), nodes=1, name="kept") as pool:
    data = os.urandom(9_000_000)
    assert echo(data) >> pool == data
    first, second = os.path.abspath("gate-1"), os.path.abspath("gate-2")
    running = behind(first, data) > pool
    queued = behind(second, data) > pool
    print("ready", flush=True)
    until("go-on")
    Path(first).touch(), Path(second).touch()
    right = hashlib.sha256(data).hexdigest()
    assert [running.result(120), queued.result(120)] == [right, right]
    assert echo(data) >> pool == data
    print("whole")
"""

LATER = """
import subprocess, sys
import skyward as sky
tasks = subprocess.run(["skyward", "tasks"], capture_output=True, text=True).stdout
name = next(line.split()[0] for line in tasks.splitlines() if line.startswith("echo"))
print(len(sky.task(name).result()))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: sockets of machines are in it."""
    made = Path(tempfile.mkdtemp(prefix="sky-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def bucket(folder: Path) -> Iterator[S3Server]:
    with s3_server(folder / "s3") as server:
        yield server


def test_a_program_goes_on_with_an_operator_that_has_lost_its_disk(
    control_plane: ControlPlane,
    namespace: str,
    folder: Path,
    bucket: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    flags = ("--blob-store", "s3://blobs/skyward", "--s3-endpoint", bucket.endpoint)
    operator = Installation(control_plane, namespace, folder, flags)
    operator.start()
    (folder / "work").mkdir()
    somebody = Person(folder / "home", folder / "work", settings={"KUBECONFIG": str(operator.user())})
    try:
        with somebody.starts(PROGRAM) as program:
            program.until("ready")
            operator.kill()
            for name in ("blobs", "attempts", "output"):
                place = folder / "operator" / name
                shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            operator.start()
            assert somebody.script(LATER).strip() == "9000000"
            (somebody.folder / "go-on").touch()
            assert "whole" in program.end()
    finally:
        operator.stop()
    assert {key.rpartition("/")[2] for key in bucket.objects()} <= {"payload", "results"}
