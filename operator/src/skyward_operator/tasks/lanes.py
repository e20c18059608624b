"""The waiting calls of jobs, in the order in which they have their turns. Pure, like the scheduler."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward_operator.tasks.ranges import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(slots=True, eq=False)
class Job:
    """What the scheduler knows of one task. `pending` are the calls still to hand out, in order, those of one
    span with the same history; of a broadcast it is one token, for the start of all its calls. `in_flight`
    are slices on nodes already. `size` calls make a slice at most and `least` at least, where there are so
    many; but no more than `fits` says of some calls from an index on. `sizes` are those for nodes of which it
    is known how fast they are."""

    uid: str
    pending: Iterable[Span]
    priority: int = 0
    rank: int | None = None
    gang: bool = False
    parallelism: int | None = None
    buffer: int = 0
    in_flight: int = 0
    size: int = 1
    least: int = 1
    fits: Callable[[int, int], int] | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def size_on(self, node: str) -> int:
        """How many calls make a slice at most on this node."""
        return min(self.size, self.sizes.get(node, self.size))


class Lane:
    """One job's waiting calls in one queue. It takes its turn, then goes to the end of the queue."""

    __slots__ = ("_fresh", "_retries", "closed", "job", "queued", "stamp", "waiting")

    def __init__(self, job: Job, pending: Iterable[Span]) -> None:
        self.job = job
        self.stamp = 0
        self.queued = False
        self.closed = False
        self._fresh: deque[Span] = deque(pending)
        self._retries: deque[Span] = deque()
        self.waiting = sum(span.count for span in self._fresh)
        """How many calls."""

    def __bool__(self) -> bool:
        return self.waiting > 0

    def put_back(self, span: Span) -> None:
        """Some calls wait again, before the others."""
        self._retries.append(span)
        self.waiting += span.count

    def take(self, slots: int, node: str) -> Span:
        """The next slice, for one of so many slots."""
        spans = self._retries or self._fresh
        span, job = spans.popleft(), self.job
        count = min(span.count, job.size_on(node), max(job.least, self.waiting // (2 * slots)))
        if count > 1 and job.fits is not None:
            count = max(1, job.fits(span.first, count))
        if count < span.count:
            spans.appendleft(Span(span.first + count, span.count - count))
        self.waiting -= count
        return Span(span.first, count)


class Queue:
    """Lanes by priority, each priority in order of arrival."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: dict[int, deque[Lane]] = {}

    def push(self, lane: Lane, stamp: int, *, front: bool = False) -> None:
        """A lane waits for its turn; the stamp says since when, to compare it with those of other queues."""
        level = self._levels.setdefault(lane.job.priority, deque())
        lane.stamp, lane.queued = stamp, True
        (level.appendleft if front else level.append)(lane)

    def head(self) -> Lane | None:
        """The lane whose turn it is, if any has calls."""
        for priority in sorted(self._levels, reverse=True):
            level = self._levels[priority]
            while level:
                if not level[0].closed and level[0]:
                    return level[0]
                level.popleft().queued = False
            del self._levels[priority]
        return None

    def pop(self, lane: Lane) -> None:
        """Take out a lane that is the head."""
        self._levels[lane.job.priority].popleft().queued = False
