"""The loop over pools: look, decide, act, say."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skyward.contract.names import NODE, POOL, TASK
from skyward.contract.node import ComputeNode
from skyward.contract.pool import ComputePool
from skyward.contract.reasons import ConditionType, NodePhase, PoolPhase, PoolReason
from skyward_operator.engine.controller import Controller
from skyward_operator.engine.queue import KeyedQueue
from skyward_operator.kube.errors import Conflict, NotFound
from skyward_operator.kube.store import key_of, uid_of, version_of
from skyward_operator.money.balance import EMPTY
from skyward_operator.placement.tried import Tried
from skyward_operator.pools.act import Actor, template_hash
from skyward_operator.pools.decide import LOOK_SECONDS, Decision, decide
from skyward_operator.pools.lease import Leases
from skyward_operator.pools.observation import Memory, Observation, view_of
from skyward_operator.pools.status import Offers, pool_status, scaling
from skyward_operator.pools.workload import demand_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.context import Context
    from skyward_operator.kube.store import Key, Object
    from skyward_operator.pools.workload import Calls, Money

logger = logging.getLogger(__name__)

WORKERS = 8
AFTER_NEWS_SECONDS = 1.0
"""The API server knows more of a pool than was heard of it here: that is on its way."""
TOGETHER_SECONDS = 0.1
PROGRESS_SECONDS = 1.0
"""How old the word on nodes that are being made may get: a pool may have hundreds of them."""
_MAKING = (NodePhase.PENDING, NodePhase.LAUNCHING, NodePhase.CONNECTING, NodePhase.BOOTSTRAPPING)
_FINAL = ("Succeeded", "Failed", "Cancelled")
_SAID_BY_SCALING = (PoolReason.SCALING_UP, PoolReason.SCALING_DOWN)
"""Reasons of a phase that an event with the decision and its cause has told already."""
_WARNINGS = (
    (ConditionType.UNSUPPORTED, PoolReason.FIELDS_IGNORED),
    (ConditionType.DEAD_MAN_SWITCH, PoolReason.POWER_OFF_BILLED),
)
"""What a person should read of a pool that is otherwise well."""


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools' part of the operator."""

    context: Context
    controller: Controller[Key]

    async def run(self) -> None:
        """Reconcile pools until cancelled."""
        store = self.context.store
        await store.synced.wait()
        for pool in store.list(POOL):
            self.controller.queue.add(key_of(pool))
        await self.controller.run()


class Reconciler:
    """One look at one pool."""

    def __init__(self, context: Context, calls: Calls, money: Money | None, tried: Tried) -> None:
        self._context = context
        self._tried = tried
        self._calls = calls
        self._money = money
        self._actor = Actor(context.api, calls)
        self._leases = Leases(context.api, context.store, context.clock)
        self._memories: dict[str, Memory] = {}
        self._read: dict[str, dict[str, tuple[int, ComputeNode]]] = {}
        """By uid of a pool: its nodes as they were read last, each with its version."""

    async def __call__(self, key: Key) -> float | None:
        """Take the next steps; returns after how many seconds to look again."""
        obj = self._context.store.get(POOL, *key)
        if obj is None:
            return None
        pool = ComputePool.read(obj)
        try:
            if (version := await self._leases.expired(pool)) is not None:
                await self._end(obj, pool, version)
                return None
        except (Conflict, NotFound):
            return AFTER_NEWS_SECONDS
        seen = await self._observe(pool)
        now = self._context.clock.now()
        decision = decide(seen, now)
        try:
            # What failed is written down before it is released: its object is the only other witness.
            await self._say(obj, seen, decision)
            self._memories[seen.pool.metadata.uid or ""] = decision.memory
            done = await self._actor.perform(seen.pool, decision.actions)
        except NotFound:
            return None
        soon = (
            decision.again if done else LOOK_SECONDS,
            self._leases.again(pool),
            self._tried.again(pool.metadata.uid or ""),
        )
        return min((each for each in soon if each is not None), default=None)

    def forget(self, obj: Object) -> None:
        """The pool is gone."""
        uid = obj["metadata"].get("uid", "")
        self._leases.forget(uid)
        self._memories.pop(uid, None)
        self._read.pop(uid, None)
        self._tried.forget(uid)

    async def _end(self, obj: Object, pool: ComputePool, version: str) -> None:
        """Delete a pool whose client is gone. Raises Conflict if it was heard of a moment ago."""
        metadata, lease = pool.metadata, pool.spec.lease
        seconds = lease.duration_seconds if lease else 0
        await self._context.api.delete(
            POOL, metadata.namespace, metadata.name, uid=metadata.uid, resource_version=version
        )
        text = (
            f"the program that made the pool has given no sign of life for {seconds} s: the pool is deleted"
        )
        self._context.events.emit(obj, "Warning", PoolReason.LEASE_EXPIRED, text)
        logger.warning("pool %s/%s: %s", metadata.namespace, metadata.name, text)

    async def _say(self, obj: Object, seen: Observation, decision: Decision) -> None:
        metadata, before = seen.pool.metadata, obj.get("status") or {}
        offers = Offers(self._tried.shown(seen.pool), self._tried.next_try(metadata.uid or ""))
        status = pool_status(seen, decision, self._context.clock.now(), offers)
        await self._context.api.patch_status(
            POOL, metadata.namespace or "", metadata.name, status, current=before
        )
        changed = status["phase"] != before.get("phase") or status["reason"] != before.get("reason")
        if changed and status["reason"] not in _SAID_BY_SCALING:
            bad = (
                status["phase"] in (PoolPhase.STALLED, PoolPhase.DEGRADED)
                or status["reason"] == PoolReason.NODES_OUTDATED
            )
            self._context.events.emit(
                obj, "Warning" if bad else "Normal", status["reason"], status["message"]
            )
        percent = seen.balance.percent
        if percent > int((before.get("cost") or {}).get("budgetPercent") or 0) and seen.balance.stop is None:
            reason = PoolReason.BUDGET_EXCEEDED if percent >= 100 else PoolReason.BUDGET_WARNING
            self._context.events.emit(obj, "Warning", reason, seen.balance.told)
        if scaled := scaling(seen, decision):
            self._context.events.emit(obj, "Normal", scaled["reason"], scaled["message"])
        for type_, reason in _WARNINGS:
            words = _words(status, type_, reason)
            if words and words != _words(before, type_, reason):
                self._context.events.emit(obj, "Warning", reason, words)
        longest = seen.pool.spec.lifetime.max_lifetime_seconds
        for name in decision.aged:
            text = f"node {name} has lived for {longest} s: it is drained and released"
            self._context.events.emit(obj, "Normal", PoolReason.LIFETIME_REACHED, text)

    async def _observe(self, pool: ComputePool) -> Observation:
        metadata, store = pool.metadata, self._context.store
        namespace, name = metadata.namespace or "", metadata.name
        nodes = self._nodes(metadata.uid or "", store.by_pool(NODE, namespace, name))
        live_tasks = 0
        if metadata.is_deleted:
            live_tasks = sum(map(_is_live, store.by_pool(TASK, namespace, name)))
        return Observation(
            pool,
            tuple(view_of(node, pool) for node in nodes if node.spec.pool_ref.uid == metadata.uid),
            demand_of(self._calls.demand(namespace, name)),
            live_tasks,
            template_hash(pool),
            self._memories.get(metadata.uid or "", Memory()),
            await self._money.balance(pool) if self._money is not None else EMPTY,
        )

    def _nodes(self, pool_uid: str, objects: Sequence[Object]) -> list[ComputeNode]:
        """The pool's nodes, of which only those that changed are read anew: one of hundreds, mostly."""
        before, now = self._read.get(pool_uid, {}), dict[str, tuple[int, ComputeNode]]()
        for obj in objects:
            uid, version = uid_of(obj), version_of(obj)
            known = before.get(uid)
            read = known if known is not None and known[0] == version else (version, ComputeNode.read(obj))
            now[uid] = read
        self._read[pool_uid] = now
        return [node for _, node in now.values()]


def build(context: Context, calls: Calls, money: Money | None = None, tried: Tried | None = None) -> Pools:
    """The pools of one operator. `calls` counts the calls of a pool, `money` what it costs, `tried` what its
    nodes asked for."""
    queue = KeyedQueue["Key"]()
    reconciler = Reconciler(context, calls, money, tried or Tried(context.clock))

    def pool_changed(old: Object | None, new: Object | None) -> None:
        if new is not None:
            queue.add(key_of(new))
        elif old is not None:
            reconciler.forget(old)

    def node_changed(old: Object | None, new: Object | None) -> None:
        if (obj := new or old) is None or _is_heartbeat(old, new):
            return
        if old is not None and new is not None and _is_being_made(new):
            queue.add_after(_pool_key(obj), PROGRESS_SECONDS)
        else:
            queue.add(_pool_key(obj))

    def task_changed(old: Object | None, new: Object | None) -> None:
        # Tasks matter to pools that grow with them, that lack their rank, or that wait for their end. Only
        # their coming and going is looked at, and together: there may be thousands in a second.
        obj = new or old
        pool = context.store.get(POOL, *_pool_key(obj)) if obj is not None else None
        if obj is None or pool is None or (old and new and _is_live(old) == _is_live(new)):
            return
        scales = pool["spec"].get("nodes", {}).get("max") or _is_bound(obj)
        if "deletionTimestamp" in pool["metadata"] or scales:
            queue.add_after(_pool_key(obj), TOGETHER_SECONDS)

    context.store.subscribe(POOL, pool_changed)
    context.store.subscribe(NODE, node_changed)
    context.store.subscribe(TASK, task_changed)
    return Pools(context, Controller("pools", queue, reconciler, workers=WORKERS, metrics=context.metrics))


def _pool_key(member: Object) -> Key:
    return member["metadata"]["namespace"], member["spec"]["poolRef"]["name"]


def _is_heartbeat(old: Object | None, new: Object | None) -> bool:
    """Whether a node only said that it is still there: no pool has to look for that."""
    return old is not None and new is not None and _without_heartbeat(old) == _without_heartbeat(new)


def _without_heartbeat(node: Object) -> tuple[dict[str, Any], ...]:
    metadata = {name: value for name, value in node["metadata"].items() if name != "resourceVersion"}
    status = {name: value for name, value in (node.get("status") or {}).items() if name != "heartbeatTime"}
    return metadata, node["spec"], status


def _is_being_made(node: Object) -> bool:
    """Whether a node is on its way up: then its pool has something to say, and nothing to decide."""
    phase = (node.get("status") or {}).get("phase") or NodePhase.PENDING
    return phase in _MAKING and "deletionTimestamp" not in node["metadata"]


def _is_bound(task: Object) -> bool:
    """Whether a task's calls may run on one rank only."""
    return (task["spec"].get("target") or {}).get("mode") == "Rank"


def _words(status: Mapping[str, Any], type_: ConditionType, reason: PoolReason) -> str:
    """What a status says under a condition with that reason; empty if it does not."""
    for each in status.get("conditions") or ():
        if (each["type"], each.get("reason")) == (type_, reason):
            return str(each.get("message") or "")
    return ""


def _is_live(task: Object) -> bool:
    """Whether this operator still has to end a task."""
    if task["spec"].get("managedBy") not in (None, "", "skyward.dev/operator"):
        return False
    return (task.get("status") or {}).get("phase") not in _FINAL
