"""The operator's half of a node under faults: real dispatch, real SSH through a cutting proxy, a real agent.

Only the API server is in memory, and the operator's clock of retries is fast: that makes a case cheap enough
to have a thousand of them. The oracle is outside of all of it: a file to which each call appends a line when
it begins and when it ends, and the agent's journal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil
from tests.chaos.cut_proxy import CutProxy
from tests.fake.cluster_fakes import FakeApi, fake_context, node_object, pool_object
from tests.fake.machines import lab

from skyward.contract.image import Image
from skyward.contract.names import NODE, POOL, TASK
from skyward.contract.pool import Worker
from skyward.wire import codec
from skyward.wire.bundle import bundle
from skyward.wire.digest import digest
from skyward.wire.frames import Decoder, FrameKind
from skyward.wire.outcomes import digest_outcomes, iter_outcomes
from skyward.wire.package import pack_calls
from skyward_operator.nodes.deadman import Switch
from skyward_operator.nodes.fleet import Fleet
from skyward_operator.nodes.image import plan
from skyward_operator.nodes.log import NodeLog
from skyward_operator.nodes.observation import Stage
from skyward_operator.nodes.received import INCOMING
from skyward_operator.nodes.session import Session, Subject
from skyward_operator.providers.contract import Address
from skyward_operator.tasks import Tasks, build
from skyward_operator.tasks.record import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from tests.fake.machines import Lab

    from skyward.wire.outcomes import Outcome
    from skyward_operator.context import Context
    from skyward_operator.providers.contract import Machine

PYTHON: Final = "{}.{}".format(*sys.version_info[:2])
SLOTS: Final = 2
PATIENCE: Final = 60.0
NODE_NAME: Final = "node-0"
INLINE: Final = 64 * 1024


def work(ledger: str, argument: bytes, result: int, seconds: float) -> tuple[int, bytes]:
    """What each call does. It leaves a line at its beginning and one at its end, each with one write."""
    import os
    import random
    import time

    import skyward as sky

    call = sky.current()
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        words = f"{call.task} {call.index} {call.attempt} {os.getpid()}\n"
        os.write(descriptor, f"begin {words}".encode())
        print(f"call {call.index} attempt {call.attempt}")
        time.sleep(seconds)
        os.write(descriptor, f"end {words}".encode())
    finally:
        os.close(descriptor)
    return len(argument), random.Random(call.index).randbytes(result)


def stumble(ledger: str, argument: bytes, result: int, seconds: float) -> int:
    """What calls do of which every fiftieth raises at its first attempt. It leaves a line, as `work` does."""
    import os
    import time

    import skyward as sky

    call = sky.current()
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"begin {call.task} {call.index} {call.attempt} {os.getpid()}\n".encode())
    finally:
        os.close(descriptor)
    time.sleep(seconds)
    if call.attempt == 1 and call.index % 50 == 7:
        raise ValueError("not at first")
    return call.index


@dataclass(frozen=True, slots=True)
class Call:
    """The sizes of one call, in bytes, and how long it takes."""

    argument: int
    result: int
    seconds: float


@dataclass(slots=True)
class Ledger:
    """The lines that calls left."""

    path: Path
    offset: int = 0

    def runs(self, task: str) -> dict[int, Counter[int]]:
        """For each index of a task, how often each attempt at it began."""
        found: dict[int, Counter[int]] = defaultdict(Counter)
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            what, name, index, attempt, _ = line.split()
            if what == "begin" and name == f"default/{task}":
                found[int(index)][int(attempt)] += 1
        return found

    def clear(self) -> None:
        """The round is over."""
        self.path.unlink(missing_ok=True)


class Operator:
    """One life of the operator's half. Leaving it is a crash: no goodbye to anybody."""

    def __init__(self, scene: Scene, epoch: int) -> None:
        self.scene = scene
        self.epoch = epoch
        self.fleet = Fleet()
        self.tasks: Tasks
        self.context: Context
        self.session: Session
        self._stack = AsyncExitStack()

    async def start(self, *, resume: bool) -> None:
        """Take over what the API server, the disk and the agent have."""
        scene = self.scene
        self.context, api = await self._stack.enter_async_context(fake_context(scene.folder, scene.api))
        if scene.api is None:
            scene.api = api
            await api.create(POOL, pool_object(image={"python": PYTHON}, worker={"concurrency": SLOTS}))
            await api.create(NODE, node_object(NODE_NAME, 0))
        self.tasks = build(self.context, self.fleet, pace=scene.pace)
        self.fleet.listen(self.tasks.listener)
        self._background(self.tasks.run())
        self.session = Session(
            Subject(
                namespace="default",
                name=NODE_NAME,
                pool="pool",
                rank=0,
                address=Address("127.0.0.1", scene.proxy.port, scene.user),
                client_key=scene.place.key,
                worker=Worker(concurrency=SLOTS),
                operator=f"operator-{self.epoch}",
                epoch=self.epoch,
                switch=Switch(lambda: 0, None),
            ),
            plan(Image.read({"python": PYTHON}), Worker(concurrency=SLOTS), bundle()),
            self.fleet,
            NodeLog(scene.folder, "default", NODE_NAME, self.context.clock),
            self.context.clock,
            lambda: None,
            incoming=scene.folder / INCOMING / "default" / NODE_NAME,
            host_key=scene.host_key,
            resume=resume,
        )
        self.session.admit()
        self._background(self.session.run())
        await asyncio.wait_for(self.tasks.caught_up.wait(), PATIENCE)

    async def crash(self) -> None:
        """End everything at once. Its timers go on, as nothing in this process can die for good; they find
        that nothing may be started any more."""
        asyncio.get_running_loop().set_exception_handler(_but_not_too_late)
        await self._stack.aclose()

    def _background(self, job: Any) -> None:
        self._stack.push_async_callback(_stop, asyncio.create_task(job))


def _but_not_too_late(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if "comes too late" not in str(context.get("exception")):
        loop.default_exception_handler(context)


async def _stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@dataclass
class Scene:
    """One machine, the proxy before it, and operators that come and go."""

    folder: Path
    place: Lab
    proxy: CutProxy
    user: str
    host_key: str
    ledger: Ledger
    pace: Pace
    api: FakeApi | None = None
    operator: Operator | None = None
    _epoch: int = 0

    async def start_operator(self) -> None:
        """Start an operator: the first one, or the next after a crash."""
        self._epoch += 1
        self.operator = Operator(self, self._epoch)
        await self.operator.start(resume=self._epoch > 1)

    async def restart_operator(self) -> None:
        """Kill the operator and start another one."""
        assert self.operator is not None
        await self.operator.crash()
        await self.start_operator()

    def kill(self, module: str) -> bool:
        """Kill one process of the machine that runs this module; False when there is none now."""
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if module in words and str(self.place.root) in process.environ().get("HOME", ""):
                    process.send_signal(signal.SIGKILL)
                    return True
            except psutil.Error:
                continue
        return False

    async def submit(
        self, name: str, calls: Sequence[Call], body_of: Callable[..., Any] = work, **spec: Any
    ) -> None:
        """Create a task of these calls, and send its payload where it is large."""
        assert self.api is not None
        assert self.operator is not None
        function = codec.dumps_function(body_of)
        arguments = [
            codec.dumps(((str(self.ledger.path), os.urandom(call.argument), call.result, call.seconds), {}))
            for call in calls
        ]
        package = pack_calls([function], [(0, each) for each in arguments])
        body: dict[str, Any] = {"python": PYTHON, "count": len(calls)}
        large = len(package) > INLINE
        if large:
            body["blob"] = {"digest": digest(package), "sizeBytes": len(package)}
        else:
            body["package"] = b64encode(package).decode()
        task = await self.api.create(
            TASK,
            {
                "metadata": {"namespace": "default", "name": name},
                "spec": {"poolRef": {"name": "pool"}, "calls": body} | spec,
            },
        )
        if large:
            backend = self.operator.tasks.gateway_backend
            path = backend.blobs.payload("default", task["metadata"]["uid"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(package)
            backend.payload_arrived(task["metadata"]["uid"])

    async def ends(self, name: str) -> dict[str, Any]:
        """The final status of a task."""
        api = self.api
        assert api is not None

        def look() -> bool:
            return api.status(name).get("phase") in ("Succeeded", "Failed", "Cancelled")

        await eventually(look, lambda: f"task {name} ends; {self.state()}: {api.status(name)}")
        return api.status(name)

    def outcomes(self, name: str) -> list[Outcome]:
        """All outcomes of an ended task."""
        assert self.api is not None
        assert self.operator is not None
        task = self.api.task(name)
        result = task["status"]["result"]
        if "package" in result:
            return list(iter_outcomes(b64decode(result["package"])))
        path = self.operator.tasks.gateway_backend.blobs.results("default", task["metadata"]["uid"])
        with path.open("rb") as file:
            assert digest_outcomes(file) == result["blob"]["digest"], (
                "the outcomes are others than the status says"
            )
            file.seek(0)
            return list(iter_outcomes(file))

    async def settles(self) -> None:
        """Wait until the agent has been told that every result is safe."""
        await eventually(lambda: not self.held(), lambda: f"the journal is empty: {self.held()}")

    def held(self) -> set[str]:
        """What the agent's journal holds that was not acknowledged."""
        held: set[str] = set()
        for path in self.place.root.rglob("spool/journal"):
            for frame in Decoder().feed(path.read_bytes()):
                if frame.kind is FrameKind.RESULT:
                    held.add(frame.header["attempt"])
                elif frame.kind is FrameKind.ACK:
                    held.difference_update(frame.header["attempts"])
        return held

    async def forget(self, name: str) -> None:
        """Delete an ended task with its files."""
        assert self.api is not None
        await self.api.delete(TASK, "default", name)
        self.ledger.clear()

    def state(self) -> str:
        """Where the session stands, for messages."""
        view = self.operator.session.view if self.operator is not None else None
        assert view is None or view.stage is not Stage.ENDED, view
        return f"{view.stage}, {view.trouble!r}" if view is not None else "no operator"


async def eventually(look: Callable[[], object], what: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Wait until `look` finds something; says what was awaited when it does not."""
    try:
        async with asyncio.timeout(seconds):
            while not look():  # noqa: ASYNC110 - other processes change it
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:.0f} s: {what()}") from None


@asynccontextmanager
async def scene(folder: Path, pace: Pace | None = None) -> AsyncIterator[Scene]:
    """A machine that is a node already, and an operator linked with it."""
    async with lab() as place:
        machine: Machine = await place.machine()
        assert machine.address is not None
        assert machine.host_key is not None
        async with CutProxy((machine.address.host, machine.address.port)) as proxy:
            ledger = Ledger(folder / "ledger")
            user, pace = machine.address.user, pace or Pace(0.1, 0.1, 0.1)
            made = Scene(folder, place, proxy, user, machine.host_key, ledger, pace)
            await made.start_operator()
            try:
                await eventually(
                    lambda: made.operator is not None and made.operator.session.view.stage is Stage.LINKED,
                    lambda: f"the node is ready; {made.state()}",
                )
                yield made
            finally:
                assert made.operator is not None
                await made.operator.crash()
