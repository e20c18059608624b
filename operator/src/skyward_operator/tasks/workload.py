"""What a pool has to do, in calls, and which of its nodes have some: for scaling. It changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.room import Room


@dataclass(frozen=True, slots=True)
class Workload:
    """The calls of one pool. Those of a task that is limited to some at a time count up to that limit."""

    queued: int = 0
    """Calls that wait for a slot, of any node."""
    running: int = 0
    """Such calls on nodes."""
    bound: Mapping[int, int] = field(default_factory=dict)
    """By rank, the calls that only its node may run, waiting or there."""
    busy: frozenset[str] = frozenset()
    """Nodes that have calls, or results that are not durable here, or of which that is not known yet."""
    tasks: int = 0
    """Tasks that have not ended."""


def workload(room: Room) -> Workload:
    """Count the calls of a pool. Looks at every attempt under way, and at no call that waits."""
    queued = running = 0
    bound: Counter[int] = Counter()
    for live in room.tasks.values():
        waits, runs = _waiting(live), live.flights.calls
        if live.work.rank is None:
            queued, running = queued + waits, running + runs
        elif waits + runs:
            bound[live.work.rank] += waits + runs
    busy = room.awaited.union(*map(_nodes, room.tasks.values()))
    return Workload(queued, running, bound, frozenset(busy), len(room.tasks))


def _waiting(live: LiveTask) -> int:
    """Calls of a task that would run now if there were slots."""
    if live.work.suspend or live.ending is not None:
        return 0
    waits, limit = live.waiting_calls(), live.work.parallelism
    return waits if limit is None else max(0, min(waits, limit - live.flights.calls))


def _nodes(live: LiveTask) -> set[str]:
    return {attempt.node for attempt in live.flights} | {node for node, _ in live.unacknowledged}
