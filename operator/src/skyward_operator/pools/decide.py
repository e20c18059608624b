"""What to do about a pool next. Pure: no API server, no clock.

- Missing nodes are made, with a name that follows from pool, rank and incarnation.
- Of too many, some are released: `places` says which, `scale` how many there should be.
- A node that failed is released and another one takes its rank, after a pause that grows. A third failure
  in a row, or one that would be the same again (no such package), stalls the pool until its spec changes:
  nobody should pay for machines that cannot work. A lack of capacity never does, and a pool that is stalled
  by a price or a quota looks from time to time whether it has moved.
- A pool whose budget, or whose namespace's, is used up releases all nodes until it is raised; one that cannot
  have even one machine within its budget says so, and asks for no more.
- A node that has lived for the pool's longest lifetime is released, whatever it runs, and replaced if wanted.
- A pool that is deleted waits for its tasks to be told and for its machines to be gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import NodePhase, NodeReason, PoolReason
from skyward_operator.pools.aging import next_past_lifetime, past_lifetime
from skyward_operator.pools.observation import Failures, Memory, NodeView, Observation
from skyward_operator.pools.places import held_ranks, missing, superfluous
from skyward_operator.pools.scale import Wanted, ceiling_of, next_change, wanted_nodes

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
        NodeReason.QUOTA_EXCEEDED,
    }
)
"""Failures that the same spec would meet again."""

PASSING: Final = frozenset(
    {NodeReason.INSUFFICIENT_CAPACITY, NodeReason.RATE_LIMITED, NodeReason.PROVIDER_UNAVAILABLE}
)
"""Failures that are nobody's fault and pass: however often they come, the pool goes on trying."""

MOVING: Final = frozenset({NodeReason.PRICE_CAP_EXCEEDED, NodeReason.QUOTA_EXCEEDED})
"""Failures that stall a pool, for somebody has to act, or the market has to: it looks from time to time with
one node whether that has happened."""

CURABLE: Final = frozenset({NodeReason.CREDENTIALS_NOT_FOUND, NodeReason.INVALID_CREDENTIALS})
"""Deterministic failures that go away without a change of the pool: those are tried again, slowly."""

TAKEN: Final = frozenset({NodeReason.INTERRUPTED, NodeReason.PREEMPTED})
"""Failures that say nothing of the spec: the market took the machine. They are met with pauses only."""
UNAFFORDABLE: Final = frozenset(
    {NodeReason.BUDGET_EXCEEDED, NodeReason.PRICE_UNKNOWN, NodeReason.BUDGET_UNREADABLE}
)
"""Refusals that last until somebody changes a budget."""

MOST_FAILURES: Final = 3
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0
CURE_SECONDS: Final = 60.0
QUICK_SECONDS: Final = 600.0
"""A node that is not well so soon after it was ready never worked: the next one may be no better."""
ILL_LOOK_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 1.0
"""How often the calls of a pool that scales with them are counted, while it has any."""


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
    if_idle: bool = False
    """Only if it has no calls at that moment: whoever hands them out is asked, and hands it no more."""


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
    why: str = ""
    """Why so many nodes are wanted."""
    broke: tuple[PoolReason, str] | None = None
    """Why there is no money for a node, and what is needed; None while there is, or a node runs."""
    aged: tuple[str, ...] = ()
    """Nodes that are released because they have lived for the longest that the pool allows."""


def decide(seen: Observation, now: datetime) -> Decision:
    """The next steps for a pool."""
    memory = _remember_incarnations(seen)
    if seen.pool.metadata.is_deleted:
        return _release_all(seen, memory)
    failures, memory = _count_failures(seen, memory, now)
    if seen.balance.stop is not None and not seen.pool.spec.suspend:
        return _stop_spending(seen, failures, memory)
    broke = _broke(seen)
    stalled, looks_again = _is_stalled(failures), failures.reason in MOVING
    wanted = _scale(seen, now)
    busy_at = _remember_busy(seen, now)
    memory = replace(memory, wanted=wanted.nodes, needs=wanted.needs, busy_at=busy_at)
    paused = memory.retry_at is not None and now < memory.retry_at
    aged = past_lifetime(seen, now)
    actions: list[Action] = [
        DeleteNode(node.name, node.uid, if_idle)
        for node, if_idle in superfluous(seen, wanted.nodes, memory.busy_at)
        if node not in aged
    ]
    actions += [DeleteNode(node.name, node.uid) for node in aged]
    ranks = [] if paused or broke else missing(seen, wanted.nodes)
    if stalled:
        ranks = ranks[:1] if looks_again and not any(node.making for node in seen.nodes) else []
    if ranks and not seen.guarded:
        actions.append(AddFinalizer())
    for rank in ranks:
        incarnation = memory.incarnations.get(rank, -1) + 1
        actions.append(CreateNode(rank, incarnation))
    again = _again(seen, memory, stalled and not looks_again, now)
    names = tuple(node.name for node in aged)
    why = wanted.why
    return Decision(tuple(actions), wanted.nodes, failures, memory, stalled, again, why, broke, names)


def _release_all(seen: Observation, memory: Memory) -> Decision:
    actions: list[Action] = [DeleteNode(node.name, node.uid) for node in seen.nodes if not node.deleting]
    if not seen.nodes and not seen.live_tasks:
        actions.append(ForgetPool())
    return Decision(tuple(actions), 0, seen.failures, memory)


def _stop_spending(seen: Observation, failures: Failures, memory: Memory) -> Decision:
    """A budget is used up: all nodes go, with as much notice as it says, and no other is made."""
    actions: list[Action] = [DeleteNode(node.name, node.uid) for node in seen.nodes if not node.deleting]
    text = seen.balance.stop.message if seen.balance.stop else ""
    broke = PoolReason.BUDGET_EXCEEDED, text
    memory = replace(memory, wanted=0)
    return Decision(tuple(actions), 0, failures, memory, again=seen.balance.again, why=text, broke=broke)


def _broke(seen: Observation) -> tuple[PoolReason, str] | None:
    """Why not even one node can be paid for."""
    held = [node for node in seen.nodes if node.holds_rank]
    refused = [node for node in held if node.phase == NodePhase.PENDING and node.reason in UNAFFORDABLE]
    if not refused or len(refused) < len(held):
        return None
    return PoolReason(refused[0].reason), refused[0].message


def _scale(seen: Observation, now: datetime) -> Wanted:
    held = held_ranks(seen) if seen.bound else frozenset()
    return wanted_nodes(seen.pool.spec, seen.demand, seen.current, seen.memory.needs, now, held)


def _remember_busy(seen: Observation, now: datetime) -> dict[str, datetime]:
    before = seen.memory.busy_at
    return {
        node.name: now if node.name in seen.busy else before[node.name]
        for node in seen.nodes
        if node.name in seen.busy or node.name in before
    }


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
    elif any(_works(node, memory.failed_at, failures.reason, now) for node in seen.nodes):
        failures = Failures(generation=failures.generation)
        memory = replace(memory, failed_at=None, retry_at=None)
    new = [
        node
        for node in seen.nodes
        if _never_worked(node, now) and node.uid not in memory.counted and not node.deleting
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


def _works(node: NodeView, failed_at: datetime, reason: str, now: datetime) -> bool:
    """Whether this node shows that what failed then works now; what a health check says shows later."""
    if not node.ready or node.ready_time is None or node.ready_time <= failed_at:
        return False
    return reason != NodeReason.UNHEALTHY or (now - node.ready_time).total_seconds() > QUICK_SECONDS


def _never_worked(node: NodeView, now: datetime) -> bool:
    """Whether a node failed before it took calls, or soon after that its health check."""
    if node.failed:
        return node.ready_time is None
    if not node.leaving or node.reason != NodeReason.UNHEALTHY or node.ready_time is None:
        return False
    return (now - node.ready_time).total_seconds() < QUICK_SECONDS


def _pause(count: int, reason: str) -> float:
    if reason in CURABLE:
        return CURE_SECONDS
    if reason in MOVING:
        return LONGEST_PAUSE_SECONDS
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 3.0 ** (max(count, 1) - 1))


def _is_stalled(failures: Failures) -> bool:
    if failures.count == 0 or failures.reason in CURABLE | TAKEN | PASSING:
        return False
    return failures.count >= MOST_FAILURES or failures.reason in DETERMINISTIC


def _again(seen: Observation, memory: Memory, stalled: bool, now: datetime) -> float | None:
    waits = [] if seen.balance.again is None else [seen.balance.again]
    if memory.retry_at is not None and not stalled and now < memory.retry_at:
        waits.append((memory.retry_at - now).total_seconds())
    if seen.failures.reason == NodeReason.UNHEALTHY:
        waits.append(ILL_LOOK_SECONDS)  # until a node has been well for long enough
    spec, demand = seen.pool.spec, seen.demand
    if (aging := next_past_lifetime(seen, now)) is not None:
        waits.append(aging)
    if demand is None:
        waits.append(LOOK_SECONDS)
    elif spec.nodes.max is not None and not spec.suspend:
        if demand.tasks:
            waits.append(LOOK_SECONDS)
        if (change := next_change(spec, memory.needs, now)) is not None:
            waits.append(change)
    elif any(rank < ceiling_of(spec) and rank not in held_ranks(seen) for rank in demand.bound):
        waits.append(LOOK_SECONDS)  # until a node that is in the way of that rank is idle
    return min(waits) if waits else None
