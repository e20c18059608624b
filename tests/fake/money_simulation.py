"""Pools that spend, an operator that is killed, and a cloud that bills, with a clock that is made up.

The purse, the ledger, the prices and the pools are the real ones, over objects in memory. The cloud, and what
the operator does at machines, are made up, with the delays that the reserve is for. Every write of the
operator is a place where it may be killed, before it or just after it; it is away for a while then.

The bill is exact. What must never be is asserted after each step.
"""

from __future__ import annotations

import copy
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from tests.fake.cluster_fakes import FakeApi

from skyward.contract.names import (
    ANNOTATION_BUDGET_NODES,
    ANNOTATION_BUDGET_TOTAL,
    FINALIZER,
    LEASE_NAME,
    NODE,
    POOL,
    SPENDING_SUFFIX,
    SYSTEM_NAMESPACE,
)
from skyward.contract.node import ComputeNode
from skyward_operator.engine.clock import timestamp
from skyward_operator.kube.errors import Conflict, NotFound
from skyward_operator.kube.kinds import NAMESPACE
from skyward_operator.kube.store import Store
from skyward_operator.money.ledger import Ledger
from skyward_operator.money.prices import documents, is_on_the_market, moved
from skyward_operator.money.purse import AWAY_SECONDS, Purse, Unaffordable
from skyward_operator.money.spending import Spending
from skyward_operator.nodes.launch import offer_document
from skyward_operator.nodes.machines import whole_second_after
from skyward_operator.nodes.wind_down import holds_machine
from skyward_operator.placement.tried import Tried
from skyward_operator.pools.observation import Demand
from skyward_operator.pools.reconcile import Reconciler
from skyward_operator.providers.contract import Capabilities, Offer
from skyward_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from random import Random

    from skyward_operator.kube.api import Object

START: Final = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
ON_DEMAND: Final = {"small": Decimal(4), "large": Decimal(40)}
PLACE: Final = ("configmaps", SYSTEM_NAMESPACE, f"{LEASE_NAME}{SPENDING_SUFFIX}")
ROUND: Final = 20.0
"""Seconds between two looks at prices."""
WINDOW: Final = 240.0
"""Longer than the end of a machine takes at most."""
SEEN: Final = 8.0
"""Seconds within which the end of a machine is seen."""


class Killed(BaseException):
    """The operator is gone, in the middle of what it did."""


@dataclass(slots=True)
class Clock:
    """Time as the simulation says."""

    at: datetime = START

    def now(self) -> datetime:
        """The time."""
        return self.at

    def monotonic(self) -> float:
        """The same in seconds."""
        return (self.at - START).total_seconds()

    async def sleep(self, seconds: float) -> None:
        """Nobody sleeps here."""
        raise AssertionError(seconds)


@dataclass(slots=True)
class Machine:
    """One machine, as it is billed."""

    pool: str
    kind: str
    market: str
    began: datetime
    prices: list[tuple[datetime, Decimal]]
    drained: datetime | None = None
    """When its calls have ended."""
    ended: datetime | None = None
    seen: datetime | None = None
    """When the operator can see that it has."""

    def bill(self, now: datetime, unit: int, minimum: int) -> Decimal:
        """What it costs until now, exactly."""
        end = now if self.ended is None else min(now, self.ended)
        total, there = Decimal(0), _seconds(end - self.began)
        bounds = [*(since for since, _ in self.prices[1:]), end]
        start = self.began
        for (_, hourly), stop in zip(self.prices, bounds, strict=True):
            total += max(Decimal(0), _seconds(min(stop, end) - min(start, end))) * hourly
            start = stop
        paid = max(there, Decimal(minimum))
        units, begun = divmod(paid, unit)
        rounded = (units + (begun > 0)) * unit if unit > 1 else paid
        last = next(hourly for since, hourly in reversed(self.prices) if since <= end)
        return (total + (rounded - there) * last) / 3600


def _seconds(span: timedelta) -> Decimal:
    return Decimal(span // timedelta(microseconds=1)) / 1_000_000


class MortalApi(FakeApi):
    """An API server whose client may die at each write."""

    def __init__(self, store: Store, dice: Random) -> None:
        super().__init__(store)
        self.dice = dice
        self.fuse: int | None = None
        """Writes until the operator is killed."""

    async def create(self, kind: Any, obj: Mapping[str, Any]) -> Object:
        """Create, perhaps as the last thing."""
        after = self._burn()
        made = await super().create(kind, obj)
        return self._survive(made, after)

    async def patch_status(self, *args: Any, **named: Any) -> Object | None:
        """Write, perhaps as the last thing."""
        after = self._burn()
        written = await super().patch_status(*args, **named)
        return self._survive(written, after)

    async def patch(self, *args: Any, **named: Any) -> Object:
        """Write, perhaps as the last thing."""
        after = self._burn()
        written = await super().patch(*args, **named)
        return self._survive(written, after)

    def _burn(self) -> bool:
        if self.fuse is None:
            return False
        self.fuse -= 1
        if self.fuse >= 0:
            return False
        if self.dice.random() < 0.5:
            raise Killed
        return True

    def _survive[T](self, written: T, after: bool) -> T:
        if after:
            raise Killed
        return written


@dataclass(slots=True)
class Idle:
    """Pools without calls."""

    def demand(self, namespace: str, pool: str) -> Demand:
        """None."""
        return Demand()

    def retire(self, namespace: str, pool: str, node: str) -> bool:
        """At any time."""
        return True

    def reinstate(self, namespace: str, pool: str, node: str) -> None:
        """Nothing to do."""


@dataclass
class Simulation:
    """A namespace with a budget, two pools with theirs, and what they buy."""

    seed: int
    folder: Path
    kills: int = 0
    bought: int = 0
    stops: int = 0
    clock: Clock = field(default_factory=Clock)
    absences: list[tuple[datetime, float]] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    down: datetime | None = None
    """Until when no operator is there."""

    def __post_init__(self) -> None:
        self.dice = dice = random.Random(self.seed)
        self.api = MortalApi(Store(), dice)
        self.how = Capabilities(
            idempotency_token=True,
            visibility_seconds=2.0,
            host_key=True,
            stop_ends_billing=True,
            billing_unit_seconds=dice.choice((1, 1, 60)),
            billing_minimum_seconds=dice.choice((0, 0, 60)),
        )
        self.spot = {kind: self._price(kind) for kind in ON_DEMAND}
        self.budgets = {
            "a": Decimal(f"{dice.uniform(0.3, 5):.2f}"),
            "b": Decimal(f"{dice.uniform(1, 14):.2f}"),
        }
        self.whole = Decimal(f"{dice.uniform(0.5, 14):.2f}")
        self.most = dice.choice((2, 3, 10))
        self.again = 0.0

    def _price(self, kind: str) -> Decimal:
        """A spot price: any below the on-demand price."""
        return (ON_DEMAND[kind] * Decimal(f"{self.dice.uniform(0.2, 1):.2f}")).quantize(Decimal("0.0001"))

    async def prepare(self) -> None:
        """Namespace and pools."""
        budget = {ANNOTATION_BUDGET_TOTAL: f"{self.whole}", ANNOTATION_BUDGET_NODES: f"{self.most}"}
        metadata = {"name": "default", "namespace": "", "annotations": budget}
        await FakeApi.create(self.api, NAMESPACE, {"metadata": metadata})
        for name, total in self.budgets.items():
            drain = self.dice.choice((0, 10, 60))
            spec = {
                "candidates": [{"name": "c", "provider": "sim"}],
                "nodes": {"desired": self.dice.randint(1, 4)},
                "budget": {"maxTotal": f"{total}", "drainSeconds": drain},
            }
            metadata = {"name": name, "namespace": "default"}
            await FakeApi.create(self.api, POOL, {"metadata": metadata, "spec": spec})
        self._start()

    async def play(self, seconds: float) -> None:
        """Let so much time pass, and then have everything given back."""
        end = START + timedelta(seconds=seconds)
        while self.clock.at < end:
            await self._step(kills=True)
        for name in self.budgets:
            await self.api.delete(POOL, "default", name)
        for _ in range(400):
            await self._step(kills=False)
            if not any(plural == NODE.plural for plural, _, _ in self.api.objects):
                return
        raise AssertionError("nodes are left")

    def spending(self) -> Spending:
        """What is written down."""
        found = self.api.objects.get(PLACE)
        return Spending.read(found["data"]["default"]) if found else Spending()

    def bill(self, pool: str | None = None) -> Decimal:
        """What the cloud wants now, of one pool or of all."""
        unit, minimum = self.how.billing_unit_seconds, self.how.billing_minimum_seconds
        return sum(
            (m.bill(self.clock.at, unit, minimum) for m in self.machines.values() if pool in (None, m.pool)),
            Decimal(0),
        )

    # one step of time

    async def _step(self, *, kills: bool) -> None:
        self.clock.at += timedelta(seconds=round(self.dice.uniform(0.3, 4), 3))
        self._move_prices()
        self._lose_machines()
        if self.down is not None and self.clock.at >= self.down:
            self._start()
        if self.down is None:
            if kills and self.dice.random() < 0.05:
                self.api.fuse = self.dice.randint(0, 4)
            try:
                await self._turn()
            except Killed:
                self.kills += 1
                self.down = self.clock.at + timedelta(seconds=self._away())
        self._check()

    def _away(self) -> float:
        """How long nobody is there now: within WINDOW seconds no longer than a budget allows for."""
        recent = [
            (at, length) for at, length in self.absences if (self.clock.at - at).total_seconds() < WINDOW
        ]
        allowed = AWAY_SECONDS - 5 - sum(length for _, length in recent)
        length = self.dice.uniform(0, max(0.0, allowed))
        self.absences = [*recent, (self.clock.at, length)]
        return length

    def _check(self) -> None:
        for name, total in self.budgets.items():
            assert self.bill(name) <= total, f"seed {self.seed}: pool {name}: {self.bill(name)} > {total}"
        assert self.bill() <= self.whole, f"seed {self.seed}: namespace: {self.bill()} > {self.whole}"
        there = sum(each.ended is None for each in self.machines.values())
        assert there <= self.most, f"seed {self.seed}: {there} machines at once"

    def _move_prices(self) -> None:
        for kind in ON_DEMAND:
            if self.dice.random() < 0.02:
                self.spot[kind] = price = self._price(kind)
                for each in self.machines.values():
                    if (each.kind, each.market) == (kind, "spot") and each.ended is None:
                        each.prices.append((self.clock.at, price))

    def _lose_machines(self) -> None:
        for each in self.machines.values():
            if each.ended is None and self.dice.random() < 0.003:
                self._end(each, self.clock.at)

    def _end(self, machine: Machine, at: datetime) -> None:
        machine.ended = at
        machine.seen = at + timedelta(seconds=self.dice.uniform(0, SEEN))

    # the operator

    def _start(self) -> None:
        self.down, self.api.fuse, self.priced = None, None, self.clock.at
        self.confirmed: dict[str, tuple[datetime, Decimal]] = {}
        store = Store()
        self.api.store = store
        for (plural, _, _), obj in self.api.objects.items():
            for kind in (POOL, NODE):
                if plural == kind.plural:
                    store.put(kind, copy.deepcopy(obj))
        self.context = cast(
            "Any",
            SimpleNamespace(
                settings=Settings(data_dir=self.folder),
                api=self.api,
                store=store,
                clock=self.clock,
                events=SimpleNamespace(emit=lambda *_: None),
                supervisor=SimpleNamespace(spawn=lambda _, work: work.close()),
            ),
        )
        self.ledger = Ledger(self.context)
        self.purse = Purse(self.context, self.ledger)
        self.pools = Reconciler(self.context, Idle(), self.purse, Tried(self.clock))

    async def _turn(self) -> None:
        for name in self.budgets:
            if ("computepools", "default", name) in self.api.objects:
                with suppress(Conflict, NotFound):
                    await self.pools(("default", name))
        for obj in list(self.context.store.list(NODE)):
            if self.dice.random() < 0.8:
                with suppress(Conflict, NotFound):
                    await self._tend(ComputeNode.read(obj))
        if (self.clock.at - self.priced).total_seconds() >= ROUND:
            await self._follow_prices()

    async def _tend(self, node: ComputeNode) -> None:
        """The next step of a node, as their part of the operator takes it."""
        machine = self.machines.get(node.metadata.uid or "")
        status = node.status
        if not node.metadata.finalizers:
            guarded = {"metadata": {"finalizers": [FINALIZER]}}
            await self.api.patch(NODE, "default", node.metadata.name, guarded)
        elif node.metadata.is_deleted:
            await self._wind_down(node, machine)
        elif status.launch is None or status.phase == "Pending":
            await self._buy(node)
        elif status.phase == "Launching":
            await self._order(node)
        elif machine is not None and machine.seen is not None and self.clock.at >= machine.seen:
            await self._write(node, phase="Failed", reason="MachineLost", **self._gone(node))

    async def _buy(self, node: ComputeNode) -> None:
        kind = self.dice.choice(("small", "large"))
        market = self.dice.choice(("spot", "on-demand"))
        price = self.spot[kind] if market == "spot" else ON_DEMAND[kind]
        offer = Offer("sim", "r", kind, market, price, ON_DEMAND[kind], candidate="c")
        try:
            async with self.purse.reserve(node, offer, self.how) as terms:
                document = offer_document(offer) | {
                    "billingUnitSeconds": terms.unit,
                    "billingMinimumSeconds": terms.minimum,
                    "reservedSeconds": terms.tail,
                }
                launch = {
                    "attempt": 1,
                    "candidate": "c",
                    "offer": document,
                    "token": "t",
                    "requestTime": timestamp(self.clock.at),
                    "outcome": "Pending",
                }
                await self._write(node, phase="Launching", reason="IntentRecorded", launch=launch)
        except Unaffordable as error:
            reason, message = str(error.refused.reason), error.refused.message
            await self._write(node, phase="Pending", reason=reason, message=message)

    async def _order(self, node: ComputeNode) -> None:
        """Order the machine, or find the one that was ordered by an operator that died then."""
        launch, uid = node.status.launch, node.metadata.uid or ""
        assert launch is not None
        assert launch.offer is not None
        assert launch.request_time is not None
        kind, market = launch.offer.instance_type or "", launch.offer.market or ""
        if uid not in self.machines:
            if self.dice.random() < 0.2:
                return  # the provider is asked later
            price = self.spot[kind] if market == "spot" else launch.offer.hourly_price
            assert price is not None
            began = self.clock.at
            self.machines[uid] = Machine(node.spec.pool_ref.name, kind, market, began, [(began, price)])
            self.bought += 1
            if self.dice.random() < 0.2:
                return  # the answer is lost
        machine = self.machines[uid]
        began = max(launch.request_time, machine.began)
        billing = {"startTime": timestamp(began), "hourlyPrice": f"{launch.offer.hourly_price:f}"}
        heard = {"readyTime": timestamp(self.clock.at), "heartbeatTime": timestamp(machine.began)}
        await self._write(
            node, phase="Ready", reason="AgentReady", providerId=uid, launch={"outcome": "Launched"},
            billing=billing, **heard,
        )  # fmt: skip

    async def _wind_down(self, node: ComputeNode, machine: Machine | None) -> None:
        if not holds_machine(node):
            await self.ledger.settle(node)
            await self.api.patch(NODE, "default", node.metadata.name, {"metadata": {"finalizers": []}})
            return
        if machine is None:
            await self._write(
                node, phase="Gone", reason="Terminated", **self._gone(node)
            )  # proven: never bought
            return
        if node.status.billing is None or node.status.billing.start_time is None:
            await self._order(node)  # found only to be ended
            return
        if machine.drained is None:
            budget = self.api.objects["computepools", "default", machine.pool]["spec"]["budget"]
            grace = self.dice.uniform(0, budget["drainSeconds"] + 5)
            machine.drained = self.clock.at + timedelta(seconds=grace)
        elif self.clock.at >= machine.drained and machine.ended is None:
            self._end(machine, self.clock.at + timedelta(seconds=self.dice.uniform(0, 20)))
        elif machine.seen is not None and self.clock.at >= machine.seen:
            await self._write(node, phase="Gone", reason="Terminated", **self._gone(node))

    def _gone(self, node: ComputeNode) -> dict[str, Any]:
        billing: dict[str, Any] = {"endTime": timestamp(whole_second_after(self.clock.at))}
        if is_on_the_market(node.status) and (changes := self._changes(node)) is not None:
            billing["prices"] = documents(changes)
        return {"billing": billing}

    def _changes(self, node: ComputeNode) -> list[tuple[datetime, Decimal]] | None:
        assert node.status.launch is not None
        assert node.status.launch.offer is not None
        kind = node.status.launch.offer.instance_type or ""
        return moved(node, self.spot[kind], self.confirmed.get(kind), self.clock.at)

    async def _follow_prices(self) -> None:
        asked = self.clock.at
        for obj in list(self.context.store.list(NODE)):
            node = ComputeNode.read(obj)
            if is_on_the_market(node.status) and (changes := self._changes(node)) is not None:
                await self._write(node, billing={"prices": documents(changes)})
        self.priced = asked
        self.confirmed = {kind: (asked, price) for kind, price in self.spot.items()}

    async def _write(self, node: ComputeNode, **status: Any) -> None:
        await self.api.patch_status(NODE, "default", node.metadata.name, status)
