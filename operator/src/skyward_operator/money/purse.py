"""The one place where money is set aside before a machine is ordered.

All buyers of the leader come through here, one at a time: two nodes cannot both take the last dollar. What is
set aside is the recorded intent in a node's status, so a restart knows it again.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from skyward.contract.names import NODE, POOL
from skyward.contract.node import ComputeNode
from skyward.contract.pool import ComputePool
from skyward.contract.reasons import NodeReason
from skyward_operator.kube.errors import ApiError, Forbidden, NotFound
from skyward_operator.kube.kinds import NAMESPACE
from skyward_operator.kube.store import uid_of, version_of
from skyward_operator.money.balance import account_of, balance
from skyward_operator.money.budget import (
    USEFUL_SECONDS,
    BadBudget,
    Refused,
    namespace_limits,
    pool_limits,
    refuse,
)
from skyward_operator.money.meter import Meter, Terms, dollars, meter_of
from skyward_operator.money.spending import Spending
from skyward_operator.nodes.observation import Refusal
from skyward_operator.nodes.wind_down import DRAIN_SLACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from skyward_operator.context import Context
    from skyward_operator.kube.store import Object
    from skyward_operator.money.balance import Balance
    from skyward_operator.money.budget import Limits
    from skyward_operator.money.ledger import Ledger
    from skyward_operator.providers.contract import Capabilities, Offer

logger = logging.getLogger(__name__)

END_SECONDS: Final = 60
"""Seconds that the end of a machine may take beyond its drain: until the budget is looked at, the provider
has answered, and the machine is proven gone."""
AWAY_SECONDS: Final = 60
"""Seconds that the operator may be away just then: killed, and started again."""
LIMITS_SECONDS: Final = 5.0
"""A namespace's budget is read again after this long."""


class Unaffordable(Exception):
    """No budget allows this machine now; `refused` says which, with figures."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


class Purse:
    """The budgets of all pools and namespaces."""

    def __init__(self, context: Context, ledger: Ledger) -> None:
        self._context = context
        self._ledger = ledger
        self._limits: dict[str, tuple[float, Limits | BadBudget | None]] = {}
        self._how: dict[str, Capabilities] = {}
        """By provider, how its machines are sold, as of the last purchase."""
        self._refreshing: set[str] = set()
        self._meters: dict[str, tuple[int, Meter | None]] = {}
        """By uid of a node: its meter as it was read last, with its version."""
        self._pools: dict[str, tuple[int, ComputePool]] = {}
        """By uid, pools as they were read last, each with its version."""
        self._intended: dict[str, Meter] = {}
        """By uid of a node, what is set aside for it by a write that is under way, or whose outcome is not
        known."""

    @asynccontextmanager
    async def reserve(self, node: ComputeNode, offer: Offer, how: Capabilities) -> AsyncIterator[Terms]:
        """Set aside what this offer may cost. Inside, the node's intent is made durable with the terms that
        are given; after it, no other buyer sees that money. Raises Unaffordable."""
        namespace, uid = node.metadata.namespace or "", node.metadata.uid or ""
        self._how[offer.provider] = how
        terms = self._terms(node, offer, how)
        limits, spending = await self._namespace(namespace), await self._ledger.of(namespace)
        # From here to where it is set aside nobody else has a turn: two cannot both see the last dollar.
        if (refused := self._judge(node, terms, limits, spending)) is not None:
            raise Unaffordable(refused)
        self._intended[uid] = Meter(
            node.metadata.name, uid, node.spec.pool_ref.uid, terms, self._context.clock.now()
        )
        yield terms
        # It stands in the node's status. After an error it may: even a conflict may be with ourselves, where
        # the answer to a first attempt was lost.
        del self._intended[uid]

    def admit(self, node: ComputeNode, offer: Offer) -> Refusal | None:
        """Why a budget refuses this offer, as far as is known without asking anybody. Another buyer may be
        faster and what is known may be old: only `reserve` decides."""
        namespace, now = node.metadata.namespace or "", self._context.clock.monotonic()
        known = self._limits.get(namespace)
        if known is None or now - known[0] >= LIMITS_SECONDS:
            self._refresh(namespace)
        spending = self._ledger.known(namespace)
        how = self._how.get(offer.provider)
        if known is None or spending is None or how is None:
            return None
        refused = self._judge(node, self._terms(node, offer, how), known[1], spending)
        return None if refused is None else Refusal(refused.reason, refused.message, permanent=False)

    async def balance(self, pool: ComputePool) -> Balance:
        """A pool's money now. Raises ApiError."""
        namespace = pool.metadata.namespace or ""
        spending, meters = await self._ledger.of(namespace), self.meters(namespace)
        limits: Limits | BadBudget | None = None
        if any(each.reserve(each.ordered) for each in meters) or _is_stopped(pool):
            limits = await self._namespace(namespace)
        known = None if isinstance(limits, BadBudget) else limits
        return balance(pool, meters, spending, known, self._context.clock.now())

    def look(self, pool: ComputePool) -> Balance:
        """The same from what is known already."""
        namespace = pool.metadata.namespace or ""
        limits = self._limits.get(namespace, (0.0, None))[1]
        known = None if isinstance(limits, BadBudget) else limits
        spending = self._ledger.known(namespace) or Spending()
        return balance(pool, self.meters(namespace), spending, known, self._context.clock.now())

    @property
    def places(self) -> frozenset[str]:
        """Namespaces where something was spent."""
        return self._ledger.places

    def total(self, namespace: str) -> Decimal:
        """What all machines of a namespace have cost, those that are gone and those that run."""
        spending, now = self._ledger.known(namespace) or Spending(), self._context.clock.now()
        running = (each for each in self.meters(namespace) if each.uid not in spending.settled)
        return sum((each.cost(now) for each in running), spending.total)

    def meters(self, namespace: str) -> list[Meter]:
        """The machines of a namespace."""
        found, objects = list[Meter](), self._context.store.list(NODE)
        for obj in objects:
            if obj["metadata"].get("namespace") == namespace:
                meter, uid = self._meter(obj), uid_of(obj)
                if meter is not None:
                    found.append(meter)
                elif uid in self._intended:
                    found.append(self._intended[uid])
        return found

    def forget(self, uid: str) -> None:
        """An object is gone."""
        self._pools.pop(uid, None)
        self._meters.pop(uid, None)
        self._intended.pop(uid, None)

    def _meter(self, obj: Object) -> Meter | None:
        uid, version = uid_of(obj), version_of(obj)
        known = self._meters.get(uid)
        if known is None or known[0] != version:
            known = self._meters[uid] = version, meter_of(ComputeNode.read(obj))
        return known[1]

    def _judge(
        self, node: ComputeNode, terms: Terms, limits: Limits | BadBudget | None, spending: Spending
    ) -> Refused | None:
        namespace, uid = node.metadata.namespace or "", node.spec.pool_ref.uid
        if isinstance(limits, BadBudget):
            return Refused(NodeReason.BUDGET_UNREADABLE, str(limits))
        pool = self._pool(node)
        budgets = [each for each in (pool_limits(pool) if pool else None, limits) if each is not None]
        if not budgets:
            return None
        now = self._context.clock.now()
        meters = [each for each in self.meters(namespace) if each.uid != node.metadata.uid]
        if pool is not None and _is_stopped(pool):
            stop = balance(pool, meters, spending, limits, now).stop
            if stop is not None:
                return Refused(NodeReason.BUDGET_EXCEEDED, stop.message)
        price = price_of(terms)
        for each in budgets:
            account = account_of(each, meters, uid, spending, now)
            if (refused := refuse(each, account, terms, price)) is not None:
                return refused
        return None

    def _terms(self, node: ComputeNode, offer: Offer, how: Capabilities) -> Terms:
        pool = self._pool(node)
        drain = pool.spec.budget.drain_seconds if pool and pool.spec.budget else DRAIN_SECONDS
        tail = drain + DRAIN_SLACK + how.visibility_seconds + END_SECONDS + AWAY_SECONDS
        return Terms(
            offer.hourly_price,
            offer.on_demand_price,
            how.billing_unit_seconds,
            how.billing_minimum_seconds,
            int(tail),
        )

    def _pool(self, node: ComputeNode) -> ComputePool | None:
        obj = self._context.store.get(POOL, node.metadata.namespace or "", node.spec.pool_ref.name)
        if obj is None or uid_of(obj) != node.spec.pool_ref.uid:
            return None
        known = self._pools.get(uid_of(obj))
        if known is None or known[0] != version_of(obj):
            known = self._pools[uid_of(obj)] = version_of(obj), ComputePool.read(obj)
        return known[1]

    def _refresh(self, namespace: str) -> None:
        """Read a namespace's budget again, beside everything else."""
        if namespace in self._refreshing:
            return

        async def read() -> None:
            try:
                await self._namespace(namespace)
                await self._ledger.of(namespace)
            except ApiError as error:
                logger.warning("the budget of namespace %s cannot be read now: %s", namespace, error)
            finally:
                self._refreshing.discard(namespace)

        self._refreshing.add(namespace)
        self._context.supervisor.spawn(f"budget of {namespace}", read())

    async def _namespace(self, namespace: str) -> Limits | BadBudget | None:
        """The budget of a namespace, as it was a few seconds ago. Raises ApiError."""
        now = self._context.clock.monotonic()
        known = self._limits.get(namespace)
        if known is None or now - known[0] >= LIMITS_SECONDS:
            known = self._limits[namespace] = now, await self._read(namespace)
        return known[1]

    async def _read(self, namespace: str) -> Limits | BadBudget | None:
        try:
            found = await self._context.api.get(NAMESPACE, None, namespace)
        except NotFound:
            return None
        except Forbidden as error:
            return BadBudget(f"the budget of namespace {namespace} is unknown, so nothing is bought: {error}")
        annotations: Mapping[str, str] = found["metadata"].get("annotations") or {}
        try:
            return namespace_limits(namespace, annotations, self._context.clock.now())
        except BadBudget as bad:
            return bad


DRAIN_SECONDS: Final = 30
"""Where a pool has no budget of its own that says how long a drain may take."""


def price_of(terms: Terms) -> Decimal:
    """The most that a machine costs that is ended as soon as it is of some use."""
    return dollars(terms.billed(Decimal(USEFUL_SECONDS + terms.tail)) * terms.ceiling)


def _is_stopped(pool: ComputePool) -> bool:
    return pool.status.cost is not None and pool.status.cost.stopped is not None
