"""The whole path on machines of paper: pools, nodes, tasks, money and the sweep, all in this process.

The parts are the real ones, and so are SSH and the protocol. A machine of the simulated cloud is an SSH
server here whose agent runs nothing: it says that a call began, and ends it when the test says so. That makes
kills cheap, and there is a witness for each: the cloud has its ledger, the agents what they began.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks.herd.agent import Agent
from benchmarks.herd.server import Herd
from benchmarks.herd.vms import HerdVms
from tests.fake.kube_server import FakeKube, collection
from tests.fake.nodes_plane import NODES, POOLS, PYTHON, Leader
from tests.fake.sim_cloud import STAFF, sim_cloud
from tests.fake.sim_nodes import KEYS

from skyward.contract.names import ANNOTATION_RENEWED, KINDS
from skyward.wire.envelopes import parse_attempt
from skyward.wire.frames import FrameKind
from skyward.wire.outcomes import iter_outcomes
from skyward.wire.package import pack_calls
from skyward_operator import pools, tasks
from skyward_operator.context import Context
from skyward_operator.engine.clock import SystemClock
from skyward_operator.engine.supervisor import Supervisor
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection
from skyward_operator.kube.events import Events
from skyward_operator.kube.resync import Resync
from skyward_operator.kube.store import Store, key_of, uid_of
from skyward_operator.metrics import Metrics
from skyward_operator.nodes.reconcile import build
from skyward_operator.providers.contract import TAG_NODE_UID, Setup
from skyward_operator.providers.registry import Registry
from skyward_operator.providers.sim.provider import SimProvider
from skyward_operator.settings import Settings
from skyward_operator.sweep.loop import Sweep
from skyward_operator.tasks.record import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from tests.fake.sim_cloud import Sim

    from skyward_operator.kube.lease import Leadership

type Object = dict[str, Any]

TASKS: Final = collection("tasks")
ENDS: Final = ("Succeeded", "Failed", "Cancelled")
SWEEP_SECONDS: Final = 0.5
LATE: Final = 15.0
"""Seconds by which a sweep, its second look and the end of a machine may be late on a busy computer."""
QUICK: Final = Pace(first=0.05, running=0.05, waiting=0.05)
_KINDS: Final = {collection(kind.plural): kind for kind in KINDS}


class Witness(Agent):
    """An agent that remembers what it began, elsewhere than on its machine."""

    def __init__(self, bundle: str, began: list[str]) -> None:
        super().__init__(bundle)
        self.began = began

    @property
    def runs(self) -> bool:
        """Whether a call is under way."""
        return bool(self._running)

    @property
    def keeps(self) -> bool:
        """Whether a result waits for its acknowledgement."""
        return bool(self._done)

    def _send(self, kind: FrameKind, header: dict[str, Any]) -> None:
        if kind is FrameKind.STARTED:
            self.began.append(header["attempt"])
        super()._send(kind, header)


class Crowd(Herd):
    """Agents that hold their calls until they are told to end them."""

    def __init__(self) -> None:
        super().__init__()
        self.held = True
        self.began: list[str] = []
        """Every attempt that began, as often as it did."""

    def agent(self, machine: str, bundle: str) -> Agent:
        """A new one, whose memory outlives it."""
        return Witness(bundle, self.began)

    def witnesses(self) -> list[Witness]:
        """Those of the machines that exist."""
        return [each for each in self.agents.values() if isinstance(each, Witness)]


@dataclass(slots=True)
class Life:
    """Since when an object was there, and until when."""

    since: float
    until: float | None = None


@dataclass
class World:
    """A cloud, an API server, and one operator at a time."""

    sim: Sim
    kube: FakeKube
    crowd: Crowd
    profile: str = "full"
    lives: dict[str, Life] = field(default_factory=dict)
    """Of each node, by UID."""
    kills: Counter[str] = field(default_factory=Counter)
    store: Store | None = None
    resync: Resync | None = None
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        self.kube.told.append(self._hear)

    # the operator

    async def start(self) -> None:
        """Start an operator."""
        await self._running.enter_async_context(self._operator())

    async def stop(self) -> None:
        """Have no operator."""
        await self._running.aclose()
        self._running = AsyncExitStack()

    async def kill_operator(self) -> None:
        """Kill the operator, wherever it is, and start the next one."""
        await self.stop()
        self.kills["operator"] += 1
        await self.start()

    @asynccontextmanager
    async def _operator(self) -> AsyncIterator[None]:
        folder = self.sim.folder / "operator"
        folder.mkdir(exist_ok=True)
        registry = Registry(folder, ["none"])
        account = {"endpoint": self.sim.service.endpoint, "key": KEYS[self.profile], "profile": self.profile}
        registry.add(SimProvider(Setup(folder, account)))
        store, clock = Store(), SystemClock()
        async with Connection(self.kube.credentials()) as connection, Supervisor() as supervisor:
            api = Api(connection, observe=store.put)
            settings = Settings(data_dir=folder, sweep_seconds=SWEEP_SECONDS, sweep_margin_seconds=0.0)
            context = Context(
                settings, api, store, Events(api, clock), clock, Metrics(), supervisor,
                cast("Leadership", Leader()),
            )  # fmt: skip
            self.resync = Resync(api, store)
            await self.resync.all()
            node_part = build(context, registry)
            task_part = tasks.build(context, node_part.fleet, pace=QUICK)
            node_part.fleet.listen(task_part.listener)
            pool_part = pools.build(context, task_part, node_part.purse, node_part.placement.tried)
            sweep = Sweep(context, node_part.accounts, node_part.book)
            loops = {
                "events": context.events.run,
                "tasks": task_part.run,
                "nodes": node_part.run,
                "pools": pool_part.run,
                "prices": node_part.prices.run,
                "sweep": sweep.run,
            }
            self.store = store
            running = [asyncio.create_task(loop(), name=name) for name, loop in loops.items()]
            try:
                yield
            finally:
                self.store = self.resync = None
                for task in running:
                    task.cancel()
                ends = await asyncio.gather(*running, return_exceptions=True)
                for end in ends:
                    if isinstance(end, Exception):
                        raise end

    def _hear(self, where: str, change: str, obj: Object) -> None:
        kind = _KINDS.get(where)
        if kind is None:
            return
        if where == NODES:
            life = self.lives.setdefault(uid_of(obj), Life(time.time()))
            life.until = time.time() if change == "DELETED" else None
        if self.store is None or self.kube.is_down:
            return
        if change == "DELETED":
            self.store.remove(kind, *key_of(obj), uid_of(obj))
        else:
            self.store.put(kind, obj | {"metadata": dict(obj["metadata"])})

    # what happens to the others

    async def kill_api_server(self, seconds: float = 0.3) -> None:
        """Have the API server answer nobody for a while."""
        self.kube.is_down = True
        self.kube.cut_watches()
        self.kills["API server"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.kube.is_down = False
        if self.resync is not None:
            await self.resync.all()

    async def cut(self) -> None:
        """Break every connection to a machine."""
        self.crowd.cut()
        self.kills["connection"] += 1

    async def lose_machine(self, place: int = 0) -> None:
        """Have a machine vanish, if there is one."""
        live = self.sim.service.cloud.state.live()
        if live and await self.tells_cloud(f"/instances/{live[place % len(live)].id}/vanish"):
            self.kills["machine"] += 1

    async def tells_cloud(self, path: str, **fields: Any) -> bool:
        """Whether the cloud's staff did something to a machine: it may be gone when they hear of it."""
        answer = await self.sim.ask("POST", f"/admin{path}", key=STAFF, json=fields)
        return answer.is_success

    # people

    def pool(self, name: str = "p", **spec: Any) -> None:
        """A pool, or another wish for it."""
        known = self.kube.objects.get(POOLS, {}).get(name)
        main = {"name": "main", "provider": "sim", "instanceTypes": ["c.small", "c.large"]}
        body = {
            "candidates": [main],
            "nodes": {"desired": 1},
            "image": {"python": PYTHON},
            "worker": {"concurrency": 1, "buffer": 0},
        }
        before = known or {"metadata": {"name": name, "namespace": "default", "generation": 0}, "spec": body}
        metadata = before["metadata"] | {"generation": before["metadata"]["generation"] + 1}
        self.kube.put(POOLS, before | {"metadata": metadata, "spec": before["spec"] | spec})

    def renew(self, name: str = "p") -> None:
        """The client of a pool is still there."""
        pool = self.kube.objects.get(POOLS, {}).get(name)
        if pool is not None:
            signs = (pool["metadata"].get("annotations") or {}) | {ANNOTATION_RENEWED: str(time.time())}
            self.kube.put(POOLS, pool | {"metadata": pool["metadata"] | {"annotations": signs}})

    def task(self, name: str, pool: str = "p") -> None:
        """A task of one call."""
        package = pack_calls([b"function"], [(0, name.encode())])
        calls = {"python": PYTHON, "count": 1, "package": b64encode(package).decode()}
        metadata = {"name": name, "namespace": "default", "generation": 1}
        self.kube.put(TASKS, {"metadata": metadata, "spec": {"poolRef": {"name": pool}, "calls": calls}})

    def delete(self, where: str, name: str) -> None:
        """Ask for the end of an object; one without finalizers is gone at once."""
        obj = self.kube.objects[where][name]
        if not obj["metadata"].get("finalizers"):
            self.kube.remove(where, name)
        elif "deletionTimestamp" not in obj["metadata"]:
            stamp = {"deletionTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            self.kube.put(where, obj | {"metadata": obj["metadata"] | stamp})

    # what there is to see

    def objects(self, where: str) -> dict[str, Object]:
        """Objects by name."""
        return self.kube.objects.get(where, {})

    def phases(self, where: str) -> list[str]:
        """Their phases."""
        return [(each.get("status") or {}).get("phase", "") for each in self.objects(where).values()]

    def states(self) -> list[Object]:
        """What the nodes say."""
        return [each.get("status") or {} for each in self.objects(NODES).values()]

    def steps(self) -> int:
        """What has happened so far."""
        return self.sim.service.cloud.ledger.written + len(self.kube.requests) + len(self.crowd.began)

    async def passes(self, steps: int, seconds: float) -> None:
        """Wait for so many steps of cloud, API server and agents, but no longer than so many seconds."""
        until, deadline = self.steps() + steps, time.monotonic() + seconds
        while self.steps() < until and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0)  # each turn of the loop is another place to be killed at

    async def until(self, claim: Callable[[], object], what: str, seconds: float = 40.0) -> None:
        """Wait until the claim is true, turn by turn of the loop."""
        try:
            async with asyncio.timeout(seconds):
                while not claim():  # noqa: ASYNC110
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:.0f} s: {what}: {self.told()}") from None

    def told(self) -> str:
        """Where everything stands."""
        nodes = [(each.get("phase"), each.get("reason"), each.get("message")) for each in self.states()]
        work = {
            name: ((each.get("status") or {}).get("phase"), (each.get("status") or {}).get("reason"))
            for name, each in self.objects(TASKS).items()
        }
        return f"pools {self.phases(POOLS)}, nodes {nodes}, tasks {work}"

    async def settle(self, seconds: float = 60.0) -> list[str]:
        """With a calm cloud and an operator that is left alone: all tasks end, and then everything goes.
        Returns what does not."""
        try:
            await self.until(lambda: self._work_is_over(), "every task ends", seconds)
            for name in list(self.objects(POOLS)):
                self.delete(POOLS, name)
            await self.until(
                lambda: not self.objects(POOLS) and not self.objects(NODES), "pools and nodes go", seconds
            )
            await self.until(lambda: not self.sim.audit().alive, "the sweep ends what is left", seconds)
            # Keys and groups of a machine without a node go with the round of the sweep after it.
            await self.until(lambda: not self.sim.audit().side, "keys and groups go", seconds)
        except AssertionError as stuck:
            return [str(stuck)]
        return []

    def _work_is_over(self) -> bool:
        return all(phase in ENDS for phase in self.phases(TASKS))

    # the oracle

    def judge(self) -> list[str]:
        """What must not be, once everything has settled."""
        audit = self.sim.audit(TAG_NODE_UID)
        found = [f"alive: {each}" for each in audit.alive]
        found += [f"two machines at once for node {each}" for each in audit.at_once]
        found += [f"left behind: {each}" for each in audit.side]
        found += self._unowned()
        for name, task in self.objects(TASKS).items():
            found += [f"task {name}: {text}" for text in judge_task(task, self._attempts(uid_of(task)))]
        return found

    def _attempts(self, uid: str) -> Counter[str]:
        return Counter(each for each in self.crowd.began if parse_attempt(each)[0] == uid)

    def _unowned(self) -> list[str]:
        """Machines that were paid for while nobody had them, for longer than the sweep takes."""
        found, gone = [], {event["id"]: event["time"] for event in self.sim.events("gone")}
        for instance in self.sim.service.cloud.state.instances.values():
            life = self.lives.get(instance.tags.get(TAG_NODE_UID, ""))
            end = gone.get(instance.id, time.time())
            if life is None:
                found.append(f"machine {instance.id} was bought for nobody")
            elif life.until is not None and end - max(life.until, instance.created) > SWEEP_SECONDS + LATE:
                found.append(f"machine {instance.id} was there {end - life.until:.1f} s longer than its node")
        return found


def judge_task(task: Mapping[str, Any], began: Counter[str]) -> list[str]:
    """What is wrong with a task of one call, of which these attempts began so often."""
    status = task.get("status") or {}
    phase, total = status.get("phase"), (status.get("attempts") or {}).get("total", 0)
    found = [f"{each} began {times} times" for each, times in began.items() if times > 1]
    if phase not in ENDS:
        found.append(f"is {phase} in the end")
    if phase == "Succeeded":
        package = (status.get("result") or {}).get("package")
        outcomes = list(iter_outcomes(b64decode(package))) if package else []
        if [(each.index, each.ok) for each in outcomes] != [(0, True)]:
            found.append("its result is lost")
        if not began:
            found.append("it succeeded and never began")
    if len(began) > total:
        found.append(f"{len(began)} attempts began, and {total} are told")
    return found


@asynccontextmanager
async def paper_world(
    profile: str = "full", scenario: Mapping[str, Any] | None = None
) -> AsyncIterator[World]:
    """A world without an operator yet; whatever runs in it ends with it."""
    crowd = Crowd()
    async with sim_cloud(vms=HerdVms(crowd), scenario=scenario) as sim, FakeKube() as kube:
        world = World(sim, kube, crowd, profile)
        try:
            yield world
        finally:
            await world.stop()
            for instance in sim.service.cloud.state.live():
                await asyncio.to_thread(sim.service.cloud.vms.power_off, instance.id)
