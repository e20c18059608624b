"""A day of elastic pools in a second: the real decisions, with calls, machines and a clock that are made up.

`Simulation` looks at its pool whenever the operator would: when something changed, and when the decision
asked for it. It keeps to the rules of the rest of the operator: a node that is retired takes no more calls, a
lost one brings its call back. What must never be is asserted while it runs.

`ideal` is the bill of somebody who knows the future and has the same machines.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from skyward.contract.names import POOL_FINALIZER
from skyward.contract.pool import ComputePool
from skyward.contract.reasons import NodePhase
from skyward_operator.pools.decide import LOOK_SECONDS, CreateNode, Decision, DeleteNode, decide
from skyward_operator.pools.observation import Demand, Memory, NodeView, Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOVING = (NodePhase.PENDING, NodePhase.BOOTSTRAPPING)
START = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE = "t"
METADATA: dict[str, Any] = {
    "name": "p",
    "namespace": "n",
    "uid": "u",
    "generation": 1,
    "finalizers": [POOL_FINALIZER],
}
SELDOM = 5.0
"""For looks each second, which are for calls that come within a Task: here all of them come with theirs."""
PATIENCE = 48 * 3600.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """`calls` calls of `seconds` each come at `at`, as one Task."""

    at: float
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Machines:
    """How machines behave: seconds from order to ready, and how often they fail on the way or are taken."""

    boot: float = 90.0
    spread: float = 0.3
    """Boots take up to that share longer or shorter."""
    failures: float = 0.0
    """Share of machines that never become ready."""
    lifetime: float = 0.0
    """Mean seconds until a machine is taken away; 0 means never."""


@dataclass(slots=True)
class Cloud:
    """How many machines there are to be had, for all pools."""

    free: float = float("inf")


@dataclass(slots=True, eq=False)
class Machine:
    """One node, and what runs on it."""

    name: str
    rank: int
    incarnation: int
    boot: float
    lasts: float
    """Seconds from ready until it is taken away."""
    fails: bool
    bought: float | None = None
    """Since when it is paid; None while the cloud has none."""
    ready: float | None = None
    lost: bool = False
    running: list[float] = field(default_factory=list)
    """The end of each call on it."""

    @property
    def phase(self) -> NodePhase:
        """As its object would say."""
        if self.lost:
            return NodePhase.FAILED
        if self.bought is None:
            return NodePhase.PENDING
        return NodePhase.BOOTSTRAPPING if self.ready is None else NodePhase.READY

    @property
    def moments(self) -> list[float]:
        """When something happens to it by itself."""
        if self.bought is None:
            return []
        if self.ready is None:
            return [self.bought + self.boot]
        return [*self.running, self.ready + self.lasts]


@dataclass(slots=True)
class Bill:
    """What came of it."""

    seconds: float = 0.0
    """Machine seconds that were paid."""
    bought: int = 0
    decisions: list[tuple[float, int]] = field(default_factory=list)
    """When another number of nodes was wanted, and which."""
    waits: list[float] = field(default_factory=list)
    """How long each call waited for its slot, without what was lost of it."""
    finished: int = 0
    lost: int = 0
    """Calls that were on a machine that was taken away."""

    @property
    def turns(self) -> int:
        """How often growing followed on shrinking."""
        levels = [level for _, level in self.decisions]
        steps = [after > before for before, after in itertools.pairwise(levels)]
        return sum(now and not before for before, now in itertools.pairwise(steps))


class Simulation:
    """One pool with its arrivals. `next` is when something happens, `step` has it happen."""

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        machines: Machines = Machines(),
        *,
        slots: int = 1,
        idle: int = 60,
        seed: int = 0,
        cloud: Cloud | None = None,
        **nodes: int,
    ) -> None:
        self.bill = Bill()
        self._cloud = cloud or Cloud()
        self.now = 0.0
        self._arrivals = deque(sorted(arrivals, key=lambda each: each.at))
        self._calls = sum(each.calls for each in self._arrivals)
        self._machines = machines
        self._random = random.Random(seed)
        self._slots = slots
        self._spec: dict[str, Any] = {
            "candidates": [{"name": "here", "provider": "local"}],
            "nodes": {"desired": 0, **nodes},
            "lifetime": {"idleSeconds": idle},
            "worker": {"concurrency": slots},
        }
        self._most = nodes["max"]
        self._live: dict[str, Machine] = {}
        self._queue: deque[tuple[float, float]] = deque()
        """When each call came, and how long it takes."""
        self._memory = Memory()
        self._status: dict[str, Any] = {}
        self._pool = ComputePool.read({"metadata": METADATA, "spec": self._spec})
        self._look: float = 0.0

    def close(self) -> Bill:
        """Every call has ended and every machine that nobody needs is gone."""
        assert self.bill.finished == self._calls
        assert len(self._live) == self._spec["nodes"]["desired"]
        for machine in list(self._live.values()):
            self._remove(machine)
        return self.bill

    def step(self, moment: float) -> None:
        """Everything that happens at this moment, and a look at the pool behind it."""
        self.now = moment
        while self._arrivals and self._arrivals[0].at <= moment:
            task = self._arrivals.popleft()
            self._queue.extend([(task.at, task.seconds)] * task.calls)
        for machine in list(self._live.values()):
            self._live_on(machine)
        self._hand_out()
        while (decision := self._decide()).actions:
            self._hand_out()
        again = float("inf") if decision.again is None else decision.again
        self._look = moment + (SELDOM if again == LOOK_SECONDS else again)

    def next(self) -> float | None:
        """When something happens; None once all is quiet."""
        busy = (
            self._arrivals
            or self._queue
            or any(each.phase in _MOVING or each.running for each in self._live.values())
        )
        if not busy and self._look == float("inf"):
            return None
        if self._cloud.free > 0 and any(each.bought is None for each in self._live.values()):
            return self.now
        moments = [self._look, *(each.at for each in itertools.islice(self._arrivals, 1))]
        for machine in self._live.values():
            moments += machine.moments
        return max(self.now, min(moments))

    def _live_on(self, machine: Machine) -> None:
        if machine.bought is None and self._cloud.free > 0:
            machine.bought = self.now
            self._cloud.free -= 1
            self.bill.bought += 1
        if machine.bought is None or self.now < machine.bought + machine.boot:
            return
        if machine.ready is None:
            machine.lost = machine.fails
            machine.ready = None if machine.fails else self.now
        self.bill.finished += sum(end <= self.now for end in machine.running)
        machine.running = [end for end in machine.running if end > self.now]
        if machine.ready is not None and machine.ready + machine.lasts <= self.now:
            machine.lost = True
            self.bill.lost += len(machine.running)
            self._queue.extendleft((self.now, end - self.now) for end in machine.running)
            machine.running = []

    def _hand_out(self) -> None:
        """To whoever is least loaded, as the scheduler does."""
        free = [
            (len(each.running), number, each)
            for number, each in enumerate(self._live.values())
            if each.phase == NodePhase.READY and len(each.running) < self._slots
        ]
        heapq.heapify(free)
        while self._queue and free:
            _, number, machine = heapq.heappop(free)
            came, seconds = self._queue.popleft()
            self.bill.waits.append(self.now - came)
            machine.running.append(self.now + seconds)
            if len(machine.running) < self._slots:
                heapq.heappush(free, (len(machine.running), number, machine))

    def _decide(self) -> Decision:
        now = START + timedelta(seconds=self.now)
        seen = self._observe()
        decision = decide(seen, now)
        if decision.wanted != self._status.get("desiredNodes"):
            self.bill.decisions.append((self.now, decision.wanted))
        self._memory = decision.memory
        self._write(decision)
        for action in decision.actions:
            match action:
                case DeleteNode():
                    self._release(action)
                case CreateNode():
                    self._order(action)
        held = [each for each in self._live.values() if not each.lost]
        assert len(held) <= self._most, "more than max"
        assert all(each.rank < self._most for each in held), "a rank that the pool does not have"
        assert not held or not self._calm or any(each.rank == 0 for each in held), "no head"
        return decision

    @property
    def _calm(self) -> bool:
        """Whether no machine is lost against anybody's will."""
        return self._machines.failures == self._machines.lifetime == 0

    def _write(self, decision: Decision) -> None:
        failures = decision.failures
        status = {
            "desiredNodes": decision.wanted,
            "failures": {"count": failures.count, "generation": 1, "reason": failures.reason},
        }
        if status != self._status:
            self._status = status
            self._pool = ComputePool.read({"metadata": METADATA, "spec": self._spec, "status": status})

    def _observe(self) -> Observation:
        running = sum(len(each.running) for each in self._live.values())
        busy = frozenset(each.name for each in self._live.values() if each.running)
        left = bool(self._queue or running)
        demand = Demand(len(self._queue), running, {}, busy, int(left))
        views = tuple(self._view(each) for each in self._live.values())
        return Observation(self._pool, views, demand, template=TEMPLATE, memory=self._memory)

    def _view(self, machine: Machine) -> NodeView:
        ready = None if machine.ready is None else START + timedelta(seconds=machine.ready)
        return NodeView(
            machine.name,
            machine.name,
            machine.rank,
            machine.incarnation,
            machine.phase,
            reason="ProvisionTimeout" if machine.lost else "",
            template=TEMPLATE,
            ready_time=ready,
        )

    def _order(self, action: CreateNode) -> None:
        how, name = self._machines, f"{action.rank}-{action.incarnation}"
        assert name not in self._live, "a name twice"
        boot = how.boot * self._random.uniform(1 - how.spread, 1 + how.spread)
        lasts = self._random.expovariate(1 / how.lifetime) if how.lifetime else float("inf")
        fails = self._random.random() < how.failures
        self._live[name] = Machine(name, action.rank, action.incarnation, boot, lasts, fails)

    def _release(self, action: DeleteNode) -> None:
        machine = self._live[action.name]
        if not machine.lost:
            assert action.if_idle, "released although its pool may have it"
            assert not machine.running, "released while it runs something"
            others = [each for each in self._live.values() if each is not machine and not each.lost]
            assert machine.rank > 0 or not others, "the head went before others"
        self._remove(machine)

    def _remove(self, machine: Machine) -> None:
        del self._live[machine.name]
        if machine.bought is not None:
            self.bill.seconds += self.now - machine.bought
            self._cloud.free += 1


def play(*simulations: Simulation) -> list[Bill]:
    """Pools side by side until all is quiet."""
    while moments := [
        (at, place) for place, each in enumerate(simulations) if (at := each.next()) is not None
    ]:
        moment, place = min(moments)
        assert moment < PATIENCE, "it does not come to rest"
        simulations[place].step(moment)
    return [each.close() for each in simulations]


def ideal(arrivals: Sequence[Arrival], boot: float, slots: int, most: int) -> Bill:
    """The least machine seconds for those calls, each of which starts as soon as `most` nodes let it.

    Nodes are ready at the very moment, since their boot began before. The node of each level is kept through
    a pause or given back and bought again, whichever costs less.
    """
    busy: list[tuple[float, int]] = []
    ends: list[float] = []
    for task in sorted(arrivals, key=lambda each: each.at):
        for _ in range(task.calls):
            begin = task.at if len(ends) < most * slots else max(task.at, heapq.heappop(ends))
            heapq.heappush(ends, begin + task.seconds)
            busy += [(begin, 1), (begin + task.seconds, -1)]
    paid, bought, running, last = 0.0, 0, 0, {level: float("-inf") for level in range(most)}
    began: dict[int, float] = {}
    for moment, change in sorted(busy):
        before, running = -(-running // slots), running + change
        after = -(-running // slots)
        for level in range(before, after):
            paid += min(boot, moment - last[level])
            bought += moment - last[level] > boot
            began[level] = moment
        for level in range(after, before):
            paid += moment - began[level]
            last[level] = moment
    return Bill(paid, bought)
