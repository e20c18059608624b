"""Two real operator processes: one acts; whoever lost the lease never acts again, however it lost it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.kube_server import eventually

from skyward.contract.names import TASK
from skyward_operator.engine.clock import SystemClock
from skyward_operator.kube import kubeconfig
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection
from skyward_operator.kube.intake import Intake
from skyward_operator.kube.resync import Resync
from skyward_operator.kube.store import Store
from skyward_operator.main import LOST_LEADERSHIP, STOPPED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.conftest import ControlPlane

PROGRAM = Path(__file__).with_name("leader_process.py")
LEASE_FLAGS = ["--lease-duration", "4", "--lease-deadline", "2.5", "--lease-retry", "0.3"]
TAKE_OVER_SECONDS = 20.0


class Rivals:
    """The processes, and what the API server saw them sign."""

    def __init__(self, control_plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.signatures: list[str] = []
        self._plane = control_plane
        self._namespace = namespace
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start an operator that signs with `name`."""
        home = self._folder / name
        home.mkdir()
        flags = [
            *("run", "--data-dir", str(home), "--identity", name, "--namespace", self._namespace),
            *("--lease-namespace", self._namespace, *LEASE_FLAGS),
            *("--kubeconfig", str(self._plane.operator_kubeconfig)),
        ]
        with (home / "log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, str(PROGRAM), name, self._namespace, *flags],
                stderr=log,
                stdout=log,
                env=os.environ | {"PYTHONPATH": ""},
            )

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of them."""
        self._processes[name].send_signal(number)

    def is_standby(self, name: str) -> bool:
        """Whether it waits for another to lose the lease."""
        return "leads" in (self._folder / name / "log").read_text()

    async def exit_code(self, name: str) -> int:
        """Wait for its end."""
        return await asyncio.to_thread(self._processes[name].wait, TAKE_OVER_SECONDS)

    def note(self, _: Any, new: dict[str, Any] | None) -> None:
        """A version of the signed Task was seen."""
        if message := ((new or {}).get("status") or {}).get("message"):
            self.signatures.append(str(message).split()[0])

    def signs(self, name: str, more_than: int = 0) -> Callable[[], bool]:
        """The claim that `name` has signed more often than that."""
        return lambda: self.signatures.count(name) > more_than

    def changes(self) -> list[str]:
        """Who signed, in order, without repetitions."""
        return [name for at, name in enumerate(self.signatures) if at == 0 or self.signatures[at - 1] != name]

    def end(self) -> None:
        """End those that are left."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@pytest.fixture
async def rivals(
    control_plane: ControlPlane, hung_up: None, namespace: str, tmp_path: Path
) -> AsyncIterator[Rivals]:
    subject = Rivals(control_plane, namespace, tmp_path)
    credentials = kubeconfig.load(control_plane.kubeconfig)
    async with Connection(credentials) as connection:
        api, store = Api(connection), Store()
        function = {"entrypoint": "math:factorial", "args": [5]}
        spec = {"poolRef": {"name": "none"}, "function": function}
        await api.create(TASK, {"metadata": {"namespace": namespace, "name": "signed"}, "spec": spec})
        store.subscribe(TASK, subject.note)
        resync = Resync(api, store, namespaces=[namespace])
        await resync.all()
        intake = Intake(credentials, store, resync, SystemClock(), namespaces=[namespace])
        watching = asyncio.create_task(intake.run())
        try:
            subject.start("one")
            await eventually(subject.signs("one"), TAKE_OVER_SECONDS)
            subject.start("two")
            await eventually(lambda: subject.is_standby("two"), TAKE_OVER_SECONDS)
            yield subject
        finally:
            subject.end()
            watching.cancel()
            await asyncio.wait({watching})


async def test_a_leader_that_was_frozen_never_acts_again(rivals: Rivals) -> None:
    rivals.send("one", signal.SIGSTOP)
    await eventually(rivals.signs("two", more_than=20), TAKE_OVER_SECONDS)
    rivals.send("one", signal.SIGCONT)

    assert await rivals.exit_code("one") == LOST_LEADERSHIP
    await eventually(rivals.signs("two", more_than=rivals.signatures.count("two") + 50), TAKE_OVER_SECONDS)
    assert rivals.changes() == ["one", "two"]


async def test_a_killed_leader_is_followed(rivals: Rivals) -> None:
    rivals.send("one", signal.SIGKILL)

    await eventually(rivals.signs("two"), TAKE_OVER_SECONDS)
    assert rivals.changes() == ["one", "two"]


async def test_a_leader_that_is_told_to_stop_hands_over_at_once(rivals: Rivals) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    rivals.send("one", signal.SIGTERM)

    assert await rivals.exit_code("one") == STOPPED
    assert loop.time() - started < 10
    await eventually(rivals.signs("two"), TAKE_OVER_SECONDS)
    assert rivals.changes() == ["one", "two"]
    rivals.send("two", signal.SIGTERM)
    assert await rivals.exit_code("two") == STOPPED


async def test_a_leader_without_an_api_server_stops_acting_and_one_of_two_comes_back(
    rivals: Rivals, control_plane: ControlPlane
) -> None:
    await asyncio.to_thread(control_plane.kill_api_server)
    try:
        assert await rivals.exit_code("one") == LOST_LEADERSHIP
    finally:
        await asyncio.to_thread(control_plane.start_api_server)

    await eventually(rivals.signs("two"), TAKE_OVER_SECONDS)
    assert rivals.changes() == ["one", "two"]
