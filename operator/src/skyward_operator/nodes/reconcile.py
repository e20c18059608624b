"""The loop over nodes: look, decide, act, one bounded step at a time."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward.contract.names import NODE, POOL
from skyward.contract.node import ComputeNode
from skyward.contract.reasons import NodeReason
from skyward_operator.engine.controller import Controller
from skyward_operator.engine.queue import KeyedQueue
from skyward_operator.kube.errors import NotFound
from skyward_operator.kube.store import key_of, uid_of
from skyward_operator.money.ledger import Ledger
from skyward_operator.money.metrics import CostMetrics
from skyward_operator.money.prices import Prices
from skyward_operator.money.purse import Purse, Unaffordable
from skyward_operator.nodes.accounts import Accounts, NoAccount, trouble
from skyward_operator.nodes.act import Actor
from skyward_operator.nodes.book import Book
from skyward_operator.nodes.census import Census
from skyward_operator.nodes.credentials import Credentials
from skyward_operator.nodes.decide import decide
from skyward_operator.nodes.fleet import Fleet, Key
from skyward_operator.nodes.identity import Identities
from skyward_operator.nodes.machines import Machines
from skyward_operator.nodes.notices import Notices
from skyward_operator.nodes.observe import Observer
from skyward_operator.nodes.received import INCOMING
from skyward_operator.nodes.side import SideResources
from skyward_operator.nodes.wind_down import LAUNCHED, PENDING, UNKNOWN
from skyward_operator.placement.placement import Placement
from skyward_operator.providers.errors import ProviderError, RateLimited
from skyward_operator.providers.registry import Registry

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.kube.store import Object

logger = logging.getLogger(__name__)

PROVIDER_AGAIN = 5.0
PAUSE_SLACK = 0.1
BROKE_AGAIN = 1.0
"""Somebody else took the money a moment ago: the next look says so on the node."""
WORKERS = 16


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes' part of the operator."""

    context: Context
    fleet: Fleet
    controller: Controller[Key]
    actor: Actor
    observer: Observer
    registry: Registry
    accounts: Accounts
    book: Book
    notices: Notices
    purse: Purse
    prices: Prices
    placement: Placement

    async def run(self) -> None:
        """Reconcile nodes until cancelled. Sessions end with it; agents and machines stay."""
        store = self.context.store
        await store.synced.wait()
        self.actor.epoch = self.context.leadership.term
        for obj in store.list(NODE):
            self.controller.queue.add(key_of(obj))
            self.placement.history.node_changed(None, obj)
        keep = self.context.supervisor.keep
        aside = (
            keep("interruption notices", self.notices.run),
            keep("SSH keys", self.actor.identities.guard),
        )
        try:
            await self.controller.run()
        finally:
            for task in aside:
                task.cancel()
            for key in list(self.fleet.sessions()):
                await self.actor.close(key)
            await self.registry.aclose()


@dataclass(frozen=True, slots=True)
class Reconciler:
    """One step for one node."""

    context: Context
    fleet: Fleet
    actor: Actor
    observer: Observer

    async def __call__(self, key: Key) -> float | None:
        """Take the next step; returns after how many seconds to look again."""
        obj = self.context.store.get(NODE, *key)
        if obj is None:
            await self._vanished(key)
            return None
        node = ComputeNode.read(obj)
        try:
            seen = await self.observer.observe(node, self.context.clock.now())
            return await self.actor.perform(node, obj, decide(node, seen, self.context.clock.now()))
        except NotFound:
            return None
        except Unaffordable:
            return BROKE_AGAIN
        except (ProviderError, NoAccount, TimeoutError) as error:
            label = "/".join(key)
            logger.warning("node %s: %s: %s", label, type(error).__name__, error, extra={"object": label})
            with suppress(NotFound):
                await self.actor.complain(node, obj, trouble(error))
            pause = error.retry_after if isinstance(error, RateLimited) else None
            return PROVIDER_AGAIN if pause is None else pause + PAUSE_SLACK

    async def _vanished(self, key: Key) -> None:
        """The object is gone; its finalizer saw to it that the machine is, too."""
        if self.fleet.session(key) is not None:
            await self.actor.close(key)
            self.fleet.lost(key, NodeReason.NODE_DELETED)


def build(context: Context, registry: Registry | None = None) -> Nodes:
    """Put the nodes' part together; tests bring providers of their own."""
    registry = registry or Registry(context.settings.data_dir, context.settings.providers)
    # What an earlier process had half fetched is fetched anew: the agents have it.
    shutil.rmtree(context.settings.data_dir / INCOMING, ignore_errors=True)
    fleet, queue = Fleet(), KeyedQueue[Key]()
    accounts = Accounts(Credentials(context.api, context.clock), registry)
    identities = Identities(context.api, context.store, context.events, context.clock)
    census = Census(context.leadership, context.clock)
    ledger = Ledger(context)
    purse = Purse(context, ledger)
    prices = Prices(context, accounts)
    context.metrics.registry.register(CostMetrics(context.store, purse))
    placement = Placement(context, accounts, queue.add, purse)
    observer = Observer(accounts, census, fleet, context.store, placement)
    book = Book(context.api, context.settings, context.clock)
    machines = Machines(context, accounts, book, identities, observer, purse, ledger, prices, placement)
    side = SideResources(accounts)
    actor = Actor(context, fleet, machines, side, identities, queue.add, took_away=placement.took_away)
    reconciler = Reconciler(context, fleet, actor, observer)
    controller = Controller("nodes", queue, reconciler, workers=WORKERS, metrics=context.metrics)

    def on_change(old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is not None:
            queue.add(key_of(obj))
        if new is None and old is not None:
            uid = str(old["metadata"].get("uid", ""))
            observer.memory.pop(uid, None)
            purse.forget(uid)
            placement.forget(uid, str(old["spec"]["poolRef"]["uid"]))
        if old is not None and holds_money(old) and not (new is not None and holds_money(new)):
            placement.machine_ended(key_of(old)[0])

    def on_pool_change(old: Object | None, new: Object | None) -> None:
        """How nodes are checked, and what they may cost, is their pool's to say at any time."""
        if new is None and old is not None:
            purse.forget(uid_of(old))
        elif (
            old is not None
            and new is not None
            and any(old["spec"].get(part) != new["spec"].get(part) for part in ("health", "budget"))
        ):
            for obj in context.store.by_pool(NODE, *key_of(new)):
                queue.add(key_of(obj))

    context.store.subscribe(NODE, on_change)
    context.store.subscribe(NODE, placement.history.node_changed)
    context.store.subscribe(POOL, on_pool_change)
    notices = Notices(context, accounts, observer, queue.add)
    return Nodes(
        context,
        fleet,
        controller,
        actor,
        observer,
        registry,
        accounts,
        book,
        notices,
        purse,
        prices,
        placement,
    )


def holds_money(node: Object) -> bool:
    """Whether a node has a machine that is paid for, or may have one."""
    status = node.get("status") or {}
    outcome, ended = (status.get("launch") or {}).get("outcome"), (status.get("billing") or {}).get("endTime")
    return outcome in (PENDING, UNKNOWN, LAUNCHED) and ended is None
