"""A person's program under way on the real control plane, and the parts of it that can be killed.

Everything is found as it would be by somebody at a terminal: by the status file, by the process table, by
the API. Nothing here reaches into a process.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from tests.cluster.front_door import Person, kubectl_binary

from skyward.contract.names import LABEL_POOL, NODE, POOL, TASK
from skyward.local.api import Api
from skyward.local.home import Home
from skyward.local.status import ComponentState, Status, read_status
from skyward.local.tokens import read_tokens
from skyward_operator.providers.local.processes import MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from skyward.contract.names import Kind
    from skyward.local.processes import Identity

PROGRAM = Path(__file__).with_name("map_program.py")
PATIENCE = 60.0
ATTEMPTS = 4
"""A call runs once, and up to three times more when its node is lost."""

type Object = dict[str, Any]


def eventually[T](look: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Wait until `look` finds something, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
    return found


@dataclass(frozen=True, slots=True)
class Plane:
    """One person's control plane, with all that it started."""

    person: Person

    @property
    def home(self) -> Home:
        """Its folder."""
        return Home(self.person.home / "local" / "v1")

    @property
    def status(self) -> Status:
        """What the supervisor says."""
        known = read_status(self.home)
        assert known is not None
        return known

    def up(self) -> None:
        """Start it, or mend what is broken."""
        known = read_status(self.home)
        if known is not None and known.is_alive and known.all_running:
            return
        done = self.person.run("skyward", "local", "up")
        assert done.returncode == 0, done.stdout + done.stderr

    def kubectl(self, *arguments: str) -> None:
        """Run kubectl; it must succeed."""
        environment = self.person.environment | {"KUBECONFIG": str(self.home.kubeconfig)}
        command = [str(kubectl_binary()), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def process(self, component: str) -> Identity:
        """The process of a component, or of the supervisor itself."""
        if component == "supervisor":
            return self.status.supervisor
        known = self.status.component(component)
        assert known is not None
        assert known.identity is not None, f"{component} does not run"
        return known.identity

    def kill(self, component: str) -> Identity:
        """Kill one process of the control plane, once it serves."""
        if component != "supervisor":
            eventually(lambda: self._serves(component), f"{component} serves")
        victim = self.process(component)
        os.kill(victim.pid, signal.SIGKILL)
        eventually(lambda: victim.process() is None, f"{component} is dead")
        return victim

    def comes_back(self, component: str, before: Identity) -> float:
        """Wait until another process serves in its place; how long that took."""
        began = time.monotonic()
        eventually(lambda: self._serves(component, before), f"{component} serves again")
        return time.monotonic() - began

    def objects(self, kind: Kind, selector: str = "") -> list[Object]:
        """Objects in the default namespace; a control plane that is being mended is waited for."""
        path = f"/apis/{kind.api_version}/namespaces/default/{kind.plural}?limit=500&labelSelector={selector}"
        tokens = read_tokens(self.home.pki)
        assert tokens is not None
        with Api(self.status.server, self.home.pki / "ca.crt", tokens.admin) as api:
            found = api.get(path)
        assert found is not None
        items: list[Object] = found["items"]
        return items

    def machines(self) -> dict[str, list[psutil.Process]]:
        """The processes inside of each local machine, by machine."""
        ids = {path.name for path in (self.home.operator / "vms").glob("local-*")}
        ids |= {path.name for path in (self.home.operator / "vms" / ".tokens").glob("local-*")}
        found: dict[str, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            try:
                machine = process.environ().get(MARK, "")
                alive = process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if alive and machine in ids:
                found.setdefault(machine, []).append(process)
        return found

    def inside(self, module: str) -> list[psutil.Process]:
        """The processes inside of machines that run this module."""
        everyone = [process for processes in self.machines().values() for process in processes]
        return [process for process in everyone if module in _command(process)]

    def left(self) -> list[str]:
        """Pools, nodes and machines that exist."""
        objects = [*self.objects(POOL), *self.objects(NODE)]
        return [f"{each['kind']} {each['metadata']['name']}" for each in objects] + list(self.machines())

    def _serves(self, component: str, before: Identity | None = None) -> bool:
        known = self.status.component(component)
        if known is None or known.identity is None or known.state is not ComponentState.RUNNING:
            return False
        return known.identity != before and known.identity.process() is not None


@contextmanager
def own_plane() -> Iterator[Plane]:
    """A new person's control plane with an operator; no machine of it may be left at its end."""
    folder = Path(tempfile.mkdtemp(prefix="sky-"))
    person = Person(folder / "home", folder / "work")
    person.folder.mkdir()
    try:
        subject = Plane(person)
        subject.up()
        yield subject
        down = person.run("skyward", "local", "down", "--force")
        assert down.returncode == 0, down.stdout + down.stderr
        assert not subject.machines()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Program:
    """The map, as its user started it."""

    plane: Plane
    calls: int = 30
    seconds: float = 0.1
    padding: int = 0
    way: str = "whole"
    script: Path = PROGRAM
    pool: str = field(default_factory=lambda: f"chaos-{secrets.token_hex(3)}")
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.ledger = self.plane.person.folder / f"{self.pool}.ledger"
        self._out = self.ledger.with_suffix(".out")

    def start(self) -> Program:
        """Start it in a process of its own."""
        person = self.plane.person
        numbers = [str(number) for number in (self.calls, self.seconds, self.padding)]
        words = [sys.executable, str(self.script), str(self.ledger), self.pool, *numbers, self.way]
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                words, cwd=person.folder, env=person.environment, stdout=out, stderr=out
            )
        return self

    def reaches(self, lines: int) -> Program:
        """Wait until that many calls have begun."""
        eventually(lambda: self._over() or len(self.lines()) >= lines, f"{lines} calls begin")
        assert len(self.lines()) >= lines, self.output()
        return self

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program."""
        assert self._process is not None
        self._process.send_signal(number)

    def says(self, words: str) -> None:
        """Wait until it has shown these words."""
        eventually(lambda: words in self.output() or self._over(), f"the program says {words!r}")
        assert words in self.output(), self.output()

    def end(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; its exit status."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program does not end:\n{self.output()}") from None

    def clean_up(self) -> None:
        """Leave nothing of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if any(pool["metadata"]["name"] == self.pool for pool in self.plane.objects(POOL)):
            self.plane.person.run("skyward", "down", self.pool)

    def output(self) -> str:
        """What it has shown so far."""
        return self._out.read_text() if self._out.exists() else ""

    def lines(self) -> list[tuple[int, float]]:
        """Index and time of each call that began."""
        text = self.ledger.read_text() if self.ledger.exists() else ""
        words = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [(int(index), float(when)) for index, when, _ in words]

    def runs(self) -> Counter[int]:
        """How often each index began."""
        return Counter(index for index, _ in self.lines())

    def gap(self) -> float:
        """The longest time in which no call began."""
        times = sorted(when for _, when in self.lines())
        return max(after - before for before, after in pairwise(times))

    def task(self) -> Object:
        """The Task of the map."""
        tasks = [task for task in self.plane.objects(TASK) if task["spec"]["poolRef"]["name"] == self.pool]
        (found,) = [task for task in tasks if task["spec"]["target"]["mode"] == "Any"]
        return found

    def nodes(self) -> list[Object]:
        """The pool's nodes."""
        return self.plane.objects(NODE, f"{LABEL_POOL}={self.pool}")

    def comes_right(self, repeated: int = 0) -> None:
        """It ends well: every result is there and right, and no call ran more often than it may.

        `repeated` is how many runs there may be beyond one for each call.
        """
        assert self.end() == 0, self.output()
        last = self.output().splitlines()[-1]
        assert last.startswith("{"), self.output()
        answer = json.loads(last)
        assert answer["squares"] == [index**2 for index in range(self.calls)]
        assert answer["ranks"] == [0, 1]
        runs = self.runs()
        assert sorted(runs) == list(range(self.calls))
        assert max(runs.values()) <= ATTEMPTS
        assert runs.total() - self.calls <= repeated, runs
        assert "nothing left running" in self.output()

    def phases(self) -> list[str]:
        """Where the pool's nodes are."""
        return [(node.get("status") or {}).get("phase", "") for node in self.nodes()]

    def is_ready(self) -> bool:
        """Whether the pool's nodes take calls."""
        return self.phases() == ["Ready", "Ready"]

    def has_interruptions(self, cause: str) -> set[str]:
        """The Task records attempts that ended so, each beside the one that followed; on which nodes."""
        attempts = self.task()["status"]["attempts"]
        assert 1 <= attempts["interrupted"] == len(attempts["recent"]) == attempts["total"] - self.calls
        assert {each["cause"] for each in attempts["recent"]} == {cause}
        return {each["node"] for each in attempts["recent"]}

    def _over(self) -> bool:
        return self._process is not None and self._process.poll() is not None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def programs[**P](make: Callable[P, Program]) -> Iterator[Callable[P, Program]]:
    """What starts programs; they end with the block, and so do their pools."""
    begun: list[Program] = []

    def start(*arguments: P.args, **named: P.kwargs) -> Program:
        begun.append(make(*arguments, **named))
        return begun[-1].start()

    yield start
    for program in begun:
        program.clean_up()
