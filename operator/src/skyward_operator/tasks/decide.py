"""What becomes of a task and of its calls: pure functions of what is known. Tables test them.

The rules, in one place:

- An exception of the user's code is retried `retry.onException` times. So is a worker process that died:
  that is the user's code until proven otherwise, and repeating it unasked would repeat an out-of-memory kill.
- A call that was on a lost node (or on an agent that was started again) is retried `retry.onInterruption`
  times. With 0 its end is Indeterminate: it may have run.
- What fails the same way each time (unknown entrypoint, unreadable payload, unpicklable result, a missing
  module) is never retried; neither is a call that ran out of its time.
- A call of a broadcast keeps its (index, size). After the loss of its node it waits for a new node of the
  same rank if the task has a queue timeout, and fails when that has passed; without one, another ready
  node takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import TaskPhase, TaskReason
from skyward.wire.envelopes import SLICE_ITEMS, ErrorInfo, FailureReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.tasks.scheduler import Occupancy
    from skyward_operator.tasks.work import Retry, Work

PAYLOAD_SECONDS: Final = 300.0
"""How long a task waits for its payload, or for the next bytes of it, before it fails."""

_RETRIED_WITH_EXCEPTIONS: Final = frozenset({FailureReason.USER_EXCEPTION, FailureReason.WORKER_DIED})
_SHORT_CALL_SECONDS: Final = 0.5
NO_NODES: Final[Mapping[str, str]] = MappingProxyType({})
_LATENCY_SECONDS: Final = 0.1
_LEAST_BUFFER, _MOST_BUFFER = 2, 32
_SLICE_SECONDS: Final = 0.075
_LEAST_SECONDS: Final = 0.004
"""Less work than this is not worth a slice of its own, whoever waits for the last one to end."""
_GROWTH: Final = 8


@dataclass(frozen=True, slots=True)
class PoolView:
    """What a task needs to know of its pool."""

    name: str
    deleting: bool = False
    suspended: bool = False
    python: str | None = None
    desired: int = 1
    minimum: int = 1
    ceiling: int = 1
    buffer: int = 0
    phase: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Admit:
    """The calls may be handed out."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet, and why."""

    reason: TaskReason
    message: str
    phase: TaskPhase = TaskPhase.QUEUED


@dataclass(frozen=True, slots=True)
class End:
    """The task ends without (further) calls."""

    phase: TaskPhase
    reason: TaskReason
    message: str


@dataclass(frozen=True, slots=True)
class Retried:
    """The call is tried again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The call has failed for good."""

    error: ErrorInfo


def admission(
    work: Work, pool: PoolView | None, payload_present: bool, nodes: Mapping[str, str] = NO_NODES
) -> Admit | Wait | End:
    """Whether a task's calls may be handed out now. `nodes`: the Python of each node that answers; what they
    have counts, whatever the image of the pool says by now."""
    if work.cancel or work.deleting:
        return End(TaskPhase.CANCELLED, TaskReason.CANCELLED, "cancelled before it ran")
    if work.suspend:
        return Wait(TaskReason.SUSPENDED, "spec.suspend is true", TaskPhase.SUSPENDED)
    if pool is None:
        return Wait(TaskReason.POOL_NOT_FOUND, f"there is no pool {work.pool} in {work.namespace}")
    if pool.deleting:
        return End(TaskPhase.CANCELLED, TaskReason.POOL_DELETED, f"pool {pool.name} is being deleted")
    if work.python and (end := _python_everywhere(work.python, pool, nodes)):
        return end
    if work.target_rank is not None and work.mode == "Rank" and work.target_rank >= pool.ceiling:
        return End(
            TaskPhase.FAILED,
            TaskReason.RANK_NOT_FOUND,
            f"rank {work.target_rank} does not exist: pool {pool.name} has at most {pool.ceiling} nodes",
        )
    if not payload_present:
        return Wait(TaskReason.AWAITING_PAYLOAD, "the payload has not been uploaded yet")
    return Admit()


def _python_everywhere(client: str, pool: PoolView, nodes: Mapping[str, str]) -> End | None:
    """The end of a task that no node could read; without nodes, the image says what they will have."""
    if any(same_python(client, python) for python in nodes.values()):
        return None
    for name, python in nodes.items():
        return node_mismatch(client, name, python, pool.python)
    if pool.python and not same_python(client, pool.python):
        return python_mismatch(client, pool.python, f"pool {pool.name}")
    return None


def node_mismatch(client: str, node: str, python: str, wanted: str | None) -> End:
    """The end of a task at a node of another Python; `wanted` is what the pool's image says by now."""
    if wanted and same_python(client, wanted):
        return End(
            TaskPhase.FAILED,
            TaskReason.ENVIRONMENT_MISMATCH,
            f"the call was pickled by Python {client}, as the pool's image says, and node {node} still has "
            f"Python {python}, of an earlier image: kubectl delete skn {node} has it replaced",
        )
    return python_mismatch(client, python, f"node {node}")


def python_mismatch(client: str, node: str, where: str) -> End:
    """The end of a task whose pickles another Python minor version would have to read."""
    return End(
        TaskPhase.FAILED,
        TaskReason.ENVIRONMENT_MISMATCH,
        f"the call was pickled by Python {client} and {where} has Python {node}: "
        f"use Image(python={_minor(client)!r}) for the pool, or run the client with Python {_minor(node)}",
    )


def placed(said: float, duration: float, sent: float, now: float) -> float:
    """When a call began by the clock of this operator, where its node's clock says `said`.

    Clocks of machines may be hours apart; but no call begins before it was sent, or ends after its end was
    heard of.
    """
    return min(max(said, min(sent, now - duration)), now - duration)


def same_python(one: str, other: str) -> bool:
    """Whether two Python versions can exchange pickled functions."""
    return _minor(one) == _minor(other)


def judge(error: ErrorInfo, retry: Retry, earlier: int) -> Retried | Failed:
    """A call failed, after `earlier` failures that were retried."""
    if error.reason in _RETRIED_WITH_EXCEPTIONS and earlier < retry.on_exception:
        return Retried(min(retry.max_backoff_seconds, retry.backoff_seconds * 2.0 ** min(earlier, 30)))
    return Failed(error)


def interrupted(retry: Retry, earlier: int, node: str, cause: str) -> Retried | Failed:
    """A call's node or agent was lost, after `earlier` interruptions that were retried."""
    if earlier < retry.on_interruption:
        return Retried(0.0)
    if retry.on_interruption == 0:
        return Failed(
            system_error(
                TaskReason.INDETERMINATE,
                f"{node} was lost ({cause}) while the call ran: it may or may not have finished, "
                "and retry.onInterruption is 0",
            )
        )
    again = "once" if earlier == 1 else f"{earlier} times"
    return Failed(
        system_error(
            TaskReason.NODE_LOST,
            f"{node} was lost ({cause}) while the call ran; "
            f"it had been tried again {again}, as retry.onInterruption says",
        )
    )


def system_error(reason: TaskReason, message: str) -> ErrorInfo:
    """A failure that is not the called code's."""
    return ErrorInfo(type=str(reason), message=message, kind="System", reason=str(reason))


def broken(where: str, cause: str) -> ErrorInfo:
    """The failure of a call whose node or agent was lost between two items."""
    return system_error(
        TaskReason.NODE_LOST,
        f"{where} was lost ({cause}) while the call's items were on their way; "
        "it is not tried again, because some of them have been delivered",
    )


def ending(error: ErrorInfo, index: int, failed: int, total: int) -> End:
    """The end of a task with failed calls; `error` is the first failure."""
    known = error.reason if error.reason in set(TaskReason) else TaskReason.INTERNAL_ERROR
    text = f"{error.type}: {error.message}" if error.kind == "User" else error.message
    if total > 1:
        text = f"{failed} of {total} calls failed; the first one, call {index}: {text}"
    return End(TaskPhase.FAILED, TaskReason(known), text)


@dataclass(frozen=True, slots=True)
class Slicing:
    """How a map is handed out: slices that may wait on a node per slot, the most calls that one of them has,
    and the fewest, as long as that many are left."""

    buffer: int = 0
    size: int = 1
    least: int = 1


def slices(mean_seconds: float | None, largest: int, configured: int, *, several: bool) -> Slicing:
    """How a map is handed out whose calls took so long.

    A slice is as much work as hides the latency of the link and its own cost, and no more: others have their
    turn after it. What a call takes is learnt from those that ended, so slices grow step by step: `largest`
    is the size of the largest that did. `several`: whether a slice may have more calls than one.
    """
    if mean_seconds is None or not several:
        return Slicing(buffer_depth(mean_seconds, configured))
    wanted = max(1, min(int(_SLICE_SECONDS / max(mean_seconds, 1e-9)), SLICE_ITEMS))
    size = min(wanted, _GROWTH * largest)
    least = min(size, max(1, int(_LEAST_SECONDS / max(mean_seconds, 1e-9))))
    # as many as of full size: small ones, of the beginning, would only hold up the larger ones to come
    return Slicing(buffer_depth(mean_seconds * wanted, configured), size, least)


def buffer_depth(mean_seconds: float | None, configured: int) -> int:
    """How many slices per slot of a map may wait on a node, where one takes so long.

    Short ones hide the latency of the link behind each other. Long ones are not sent ahead: they would
    wait behind one node while another is idle.
    """
    if mean_seconds is None or mean_seconds > _SHORT_CALL_SECONDS:
        return configured
    wanted = round(_LATENCY_SECONDS / max(mean_seconds, 0.001))
    return max(configured, _LEAST_BUFFER, min(wanted, _MOST_BUFFER))


def quorum(pool: PoolView) -> int:
    """How many nodes a broadcast waits for: what makes the pool usable."""
    return max(1, pool.minimum)


def waiting(work: Work, pool: PoolView, occupancy: Occupancy, awaited: int) -> Wait:
    """What an admitted task without running calls is waiting for. `awaited`: nodes not heard of since a
    restart."""
    if awaited:
        return Wait(
            TaskReason.AWAITING_NODES,
            f"the operator was started again and asks {awaited} nodes what they hold",
            TaskPhase.RECOVERING,
        )
    if pool.suspended:
        return Wait(TaskReason.POOL_SUSPENDED, f"pool {pool.name} is suspended")
    wanted = max(pool.desired, pool.minimum)
    if pool.phase == "Stalled":
        return Wait(TaskReason.POOL_STALLED, f"pool {pool.name} is stalled: {pool.message or pool.reason}")
    needed = quorum(pool) if work.broadcast else 1
    if occupancy.nodes < needed:
        counts = f"{occupancy.nodes} of {wanted} nodes ready"
        why = pool.message or pool.reason or "nodes are being made"
        text = why if why.startswith(counts) else f"{counts}; {why}"
        return Wait(TaskReason.AWAITING_NODES, f"pool {pool.name}: {text}")
    if work.rank is not None:
        return Wait(TaskReason.QUEUED, f"waiting for a free slot on rank {work.rank}")
    if work.broadcast:
        return Wait(TaskReason.QUEUED, f"waiting for a free slot on all {occupancy.nodes} nodes at once")
    # Not how many are busy, which changes with each call: the status of all that wait would change with it.
    slots = "1 slot" if occupancy.slots == 1 else f"{occupancy.slots} slots"
    if occupancy.kept:
        kept = f"of which a broadcast that came before keeps {occupancy.kept} until each node has a free one"
        return Wait(TaskReason.QUEUED, f"waiting for a free slot: the pool has {slots}, {kept}")
    return Wait(TaskReason.QUEUED, f"waiting for a free slot: the pool has {slots}")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
