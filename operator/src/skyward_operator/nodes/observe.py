"""Gathers what a decision about a node needs, and asks a provider only where it matters."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import asyncssh

from skyward.contract.names import FINALIZER, NODE, POOL
from skyward.contract.pool_options import Health
from skyward.contract.reasons import NodePhase
from skyward_operator.kube.store import key_of
from skyward_operator.money.purse import DRAIN_SECONDS
from skyward_operator.nodes.accounts import PROVIDER_SECONDS, NoAccount, trouble
from skyward_operator.nodes.checkup import checkup
from skyward_operator.nodes.health import Member, cut_off, is_silent, spared
from skyward_operator.nodes.interruption import is_leaving
from skyward_operator.nodes.observation import Absent, Observation, Stage
from skyward_operator.nodes.ssh import fingerprint
from skyward_operator.nodes.wind_down import LAUNCHED, PENDING, UNKNOWN
from skyward_operator.providers.errors import ProviderError, Transient

if TYPE_CHECKING:
    from datetime import datetime

    from skyward.contract.node import ComputeNode
    from skyward_operator.kube.store import Object, Store
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.nodes.census import Census
    from skyward_operator.nodes.fleet import Fleet
    from skyward_operator.nodes.observation import Refusal, SessionView
    from skyward_operator.placement.ordering import OfferKey
    from skyward_operator.placement.placement import Placement
    from skyward_operator.providers.contract import Machine

logger = logging.getLogger(__name__)

DEFAULT = Health()


@dataclass(slots=True)
class Memory:
    """What this process did for a node and need not survive it."""

    unasked: str | None = None
    """The token of an intent that no order was sent for, or none that did anything."""
    asked: datetime | None = None
    """When this process last sent an order."""
    doubtful: str | None = None
    """The token of an order that was refused after one whose answer was lost: only looking helps."""
    rejected: dict[OfferKey, Refusal] = field(default_factory=dict)
    """Offers that were refused to this node as wrong: they stay wrong."""
    notice: datetime | None = None
    """When the provider's API says that it takes the machine back."""


class Observer:
    """Observations of nodes."""

    def __init__(
        self, accounts: Accounts, census: Census, fleet: Fleet, store: Store, placement: Placement
    ) -> None:
        self._accounts = accounts
        self._census = census
        self._fleet = fleet
        self._store = store
        self._placement = placement
        self.memory: dict[str, Memory] = {}

    def remember(self, node: ComputeNode) -> Memory:
        """What this process did for a node."""
        return self.memory_of(node.metadata.uid or "")

    def memory_of(self, uid: str) -> Memory:
        """What this process knows of the node with this uid."""
        return self.memory.setdefault(uid, Memory())

    async def observe(self, node: ComputeNode, now: datetime) -> Observation:
        """Everything that the next decision about this node may look at."""
        key = node.metadata.namespace or "", node.metadata.name
        session = self._fleet.session(key)
        view = session.view if session is not None else None
        grace = self._grace(node) if node.metadata.is_deleted else None
        seen = Observation(session=view, notice=self.remember(node).notice, grace=grace)
        if is_leaving(node):
            seen = replace(seen, busy=self._fleet.listener.busy(*key))
        if view is not None and node.status.phase in (NodePhase.READY, NodePhase.DRAINING):
            seen = self._with_health(seen, view, node, now)
        if wants_offers(node):
            return replace(seen, offers=await self._placement.offers(node, self.remember(node).rejected))
        if wants_machine(node, view):
            return await self._with_machine(seen, node)
        if node.status.phase == NodePhase.LAUNCHING and node.status.launch is not None:
            token = node.status.launch.token
            idempotent = await self._idempotent(node)
            return replace(
                seen,
                idempotent=idempotent and (token is None or token != self.remember(node).doubtful),
                unasked=token is not None and token == self.remember(node).unasked,
            )
        return seen

    def _with_health(
        self, seen: Observation, view: SessionView, node: ComputeNode, now: datetime
    ) -> Observation:
        """How a node is checked and how long it may be silent, and if it is bad whether it is replaced."""
        namespace, name = node.metadata.namespace or "", node.spec.pool_ref.name
        pool = self._store.get(POOL, namespace, name)
        said = (pool or {}).get("spec", {}).get("health") or {}
        health = Health.model_validate(said) if said else DEFAULT
        patience = float(health.unhealthy_after_seconds)
        seen = replace(seen, patience=patience, checks=checkup(health))
        if not view.ill and view.lost is None:
            return seen
        members = [self._member(obj) for obj in self._store.by_pool(NODE, namespace, name)]
        why = spared(members, health.max_unhealthy_percent, patience, now)
        judges_alone = health.max_unhealthy_percent == 100  # its nodes are replaced whatever others say
        if not why and not judges_alone and is_silent(view, patience, now):
            why = cut_off((each.view for each in self._fleet.sessions().values()), patience, now)
        return replace(seen, spared=why)

    def _member(self, obj: Object) -> Member:
        status = obj.get("status") or {}
        session = self._fleet.session(key_of(obj))
        view = session.view if session is not None else None
        return Member(status.get("phase") or "", status.get("reason") or "", view)

    async def _idempotent(self, node: ComputeNode) -> bool:
        try:
            return (await self._accounts.of_node(node)).capabilities.idempotency_token
        except NoAccount:
            return False

    async def _with_machine(self, seen: Observation, node: ComputeNode) -> Observation:
        """The machine as its provider sees it, or why the provider cannot say now."""
        if node.status.provider_id is None:
            return seen
        try:
            provider = await self._accounts.of_node(node)
            async with asyncio.timeout(PROVIDER_SECONDS):
                machine = await self._census.describe(
                    provider, node.status.provider_id, to_connect=node.status.address is None
                )
                return replace(seen, machine=checked(machine))
        except (NoAccount, ProviderError, TimeoutError) as error:
            label = f"{node.metadata.namespace}/{node.metadata.name}"
            text = "node %s: its provider cannot say how it is: %s"
            logger.warning(text, label, error, extra={"object": label})
            return replace(seen, trouble=trouble(error))

    def _grace(self, node: ComputeNode) -> float | None:
        """How long running calls may go on when the node is to go because a budget is used up."""
        pool = self._store.get(POOL, node.metadata.namespace or "", node.spec.pool_ref.name) or {}
        if not ((pool.get("status") or {}).get("cost") or {}).get("stopped"):
            return None
        budget = pool["spec"].get("budget") or {}
        stops = budget.get("onExceeded") == "Stop"
        return 0.0 if stops else float(budget.get("drainSeconds", DRAIN_SECONDS))


def checked(machine: Machine | Absent | None) -> Machine | Absent | None:
    """The machine, if its host key is one. Another text must not become "none known": that would trust the
    first key that is shown. Raises Transient."""
    if machine is not None and not isinstance(machine, Absent) and machine.host_key is not None:
        try:
            fingerprint(machine.host_key)
        except asyncssh.KeyImportError:
            raise Transient(f"the host key that its provider shows for {machine.id} is no SSH key") from None
    return machine


def wants_offers(node: ComputeNode) -> bool:
    """Whether the next decision is what to buy."""
    if node.metadata.is_deleted or FINALIZER not in node.metadata.finalizers:
        return False
    status = node.status
    if status.phase in (None, "", NodePhase.PENDING):
        return True
    outcome = status.launch.outcome if status.launch else None
    return status.phase == NodePhase.LAUNCHING and outcome not in (None, PENDING, UNKNOWN, LAUNCHED)


def wants_machine(node: ComputeNode, session: SessionView | None) -> bool:
    """Whether the next decision depends on what the provider says about the machine."""
    if node.metadata.is_deleted and node.status.phase != NodePhase.DRAINING:
        return False
    match node.status.phase:
        case NodePhase.CONNECTING | NodePhase.BOOTSTRAPPING | NodePhase.READY | NodePhase.DRAINING:
            troubled = session is not None and session.stage is Stage.CONNECTING and bool(session.trouble)
            return node.status.address is None or troubled
        case _:
            return False
