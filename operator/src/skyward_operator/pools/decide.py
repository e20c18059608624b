"""What to do about a pool next. Pure: no API server, no clock.

- Missing ranks get a node, with a name that follows from pool, rank and incarnation.
- Of too many, the highest rank goes first; rank 0, where others find each other, goes last of all.
- A node that failed is released and another one takes its rank, after a pause that grows. A third failure
  in a row, or one that would be the same again (no such package), stalls the pool until its spec changes:
  nobody should pay for machines that cannot work.
- A pool that is deleted waits for its tasks to be told and for its machines to be gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import NodeReason
from skyward_operator.pools.observation import Failures, Memory, NodeView, Observation
from skyward_operator.pools.scale import wanted_nodes

if TYPE_CHECKING:
    from datetime import datetime

DETERMINISTIC: Final = frozenset(
    {
        NodeReason.IMAGE_REJECTED,
        NodeReason.PACKAGE_NOT_FOUND,
        NodeReason.PYTHON_NOT_FOUND,
        NodeReason.CREDENTIALS_NOT_FOUND,
        NodeReason.INVALID_CREDENTIALS,
        NodeReason.PROVIDER_UNKNOWN,
        NodeReason.REQUEST_REJECTED,
        NodeReason.NO_MATCHING_OFFER,
        NodeReason.PRICE_CAP_EXCEEDED,
    }
)
"""Failures that the same spec would meet again."""

CURABLE: Final = frozenset({NodeReason.CREDENTIALS_NOT_FOUND, NodeReason.INVALID_CREDENTIALS})
"""Deterministic failures that go away without a change of the pool: those are tried again, slowly."""

MOST_FAILURES: Final = 3
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0
CURE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Before the first node: the pool cannot go before its nodes."""


@dataclass(frozen=True, slots=True)
class CreateNode:
    """Have one more machine."""

    rank: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Release a machine."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ForgetPool:
    """Nothing is left: drop the key pair and let the object go."""


type Action = AddFinalizer | CreateNode | DeleteNode | ForgetPool


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and what to remember and to say of it."""

    actions: tuple[Action, ...]
    wanted: int
    failures: Failures
    memory: Memory
    stalled: bool = False
    again: float | None = None
    """Seconds after which to look again, although nothing may have changed."""


def decide(seen: Observation, now: datetime) -> Decision:
    """The next steps for a pool."""
    memory = _remember_incarnations(seen)
    if seen.pool.metadata.is_deleted:
        return _release_all(seen, memory)
    failures, memory = _count_failures(seen, memory, now)
    stalled = _is_stalled(failures)
    current = seen.pool.status.desired_nodes or 0
    wanted, above_since = wanted_nodes(seen.pool.spec, seen.demand, current, memory.above_since, now)
    memory = replace(memory, above_since=above_since)
    paused = memory.retry_at is not None and now < memory.retry_at
    actions: list[Action] = [DeleteNode(node.name, node.uid) for node in _superfluous(seen, wanted)]
    missing = [] if stalled or paused else _missing(seen, wanted)
    if missing and not seen.guarded:
        actions.append(AddFinalizer())
    for rank in missing:
        incarnation = memory.incarnations.get(rank, -1) + 1
        actions.append(CreateNode(rank, incarnation))
    return Decision(
        tuple(actions), wanted, failures, memory, stalled, _again(seen, memory, stalled, failures, now)
    )


def _release_all(seen: Observation, memory: Memory) -> Decision:
    actions: list[Action] = [DeleteNode(node.name, node.uid) for node in seen.nodes if not node.deleting]
    if not seen.nodes and not seen.live_tasks:
        actions.append(ForgetPool())
    return Decision(tuple(actions), 0, seen.failures, memory)


def _superfluous(seen: Observation, wanted: int) -> list[NodeView]:
    """Nodes to release now: failed ones, those beyond what is wanted, doubles, and those that are being made
    from a spec that has changed since."""
    going = [node for node in seen.nodes if node.failed]
    outdated = [node for node in seen.nodes if node.making and node.template != seen.template]
    going += outdated
    holders: dict[int, NodeView] = {}
    for node in sorted(seen.nodes, key=lambda n: (not n.ready, n.incarnation)):
        if not node.holds_rank or node in outdated:
            continue
        if node.rank in holders or (node.rank >= wanted and node.rank > 0):
            going.append(node)
        else:
            holders[node.rank] = node
    head = holders.get(0)
    others = any(node.rank > 0 for node in seen.nodes)
    if wanted == 0 and head is not None and not others:
        going.append(head)
    going.sort(key=lambda node: -node.rank)
    return [node for node in going if not node.deleting]


def _missing(seen: Observation, wanted: int) -> list[int]:
    held = {node.rank for node in seen.nodes if node.holds_rank and not _outdated(seen, node)}
    return [rank for rank in range(wanted) if rank not in held]


def _outdated(seen: Observation, node: NodeView) -> bool:
    return node.making and node.template != seen.template


def _remember_incarnations(seen: Observation) -> Memory:
    incarnations = dict(seen.memory.incarnations)
    for node in seen.nodes:
        incarnations[node.rank] = max(node.incarnation, incarnations.get(node.rank, -1))
    present = frozenset(node.uid for node in seen.nodes)
    return replace(seen.memory, incarnations=incarnations, counted=seen.memory.counted & present)


def _count_failures(seen: Observation, memory: Memory, now: datetime) -> tuple[Failures, Memory]:
    """Nodes that never worked count; several in one pause count once, since they failed together."""
    failures = seen.failures
    if failures.count == 0:
        # Another generation, or all is well: no pause is left over.
        memory = replace(memory, failed_at=None, retry_at=None)
    elif memory.failed_at is None:
        memory = replace(memory, failed_at=now)
    elif any(node.ready and node.ready_time and node.ready_time > memory.failed_at for node in seen.nodes):
        failures = Failures(generation=failures.generation)
        memory = replace(memory, failed_at=None, retry_at=None)
    new = [
        node
        for node in seen.nodes
        if node.failed and node.ready_time is None and node.uid not in memory.counted and not node.deleting
    ]
    memory = replace(memory, counted=memory.counted | {node.uid for node in new})
    new = [node for node in new if node.template == seen.template]
    if not new:
        return failures, memory
    worst = next((node for node in new if node.reason in DETERMINISTIC), new[0])
    together = memory.retry_at is not None and now < memory.retry_at
    count = failures.count if together else failures.count + 1
    pause = _pause(count, worst.reason)
    failures = Failures(count, failures.generation, worst.reason, worst.message, worst.log)
    return failures, replace(memory, failed_at=now, retry_at=now + timedelta(seconds=pause))


def _pause(count: int, reason: str) -> float:
    if reason in CURABLE:
        return CURE_SECONDS
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 3.0 ** (max(count, 1) - 1))


def _is_stalled(failures: Failures) -> bool:
    if failures.count == 0 or failures.reason in CURABLE:
        return False
    return failures.count >= MOST_FAILURES or failures.reason in DETERMINISTIC


def _again(
    seen: Observation, memory: Memory, stalled: bool, failures: Failures, now: datetime
) -> float | None:
    waits = []
    if memory.retry_at is not None and not stalled and now < memory.retry_at:
        waits.append((memory.retry_at - now).total_seconds())
    spec = seen.pool.spec
    if spec.nodes.max is not None and not spec.suspend:
        waits.append(1.0 if memory.above_since is None else min(5.0, max(1.0, spec.lifetime.idle_seconds)))
    return min(waits) if waits else None
