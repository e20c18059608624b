"""The live tasks: what is known of each one that has not ended, in memory only.

Everything here can be built again from the API server, the files of outcomes and what the agents hold.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import TaskPhase, TaskReason
from skyward_operator.tasks.flights import Flights
from skyward_operator.tasks.open import OpenCalls
from skyward_operator.tasks.ranges import IndexSet, Span

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from skyward.wire.envelopes import ErrorInfo
    from skyward_operator.tasks.decide import End
    from skyward_operator.tasks.results import ResultFile
    from skyward_operator.tasks.work import Work

_RECENT: Final = 32
_MANY: Final = 4096


@dataclass(frozen=True, slots=True)
class Past:
    """What has become of earlier attempts at a call. Calls that were never tried before have none."""

    number: int = 0
    """The last attempt's."""
    exceptions: int = 0
    interruptions: int = 0


FRESH: Final = Past()


@dataclass(slots=True, eq=False)
class Receipt:
    """A result that its agent keeps until all that came with it is durable here."""

    node: str
    name: str
    waits: int = 1
    """What is not durable yet."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One attempt that ended without ending its call, or with its failure; of a slice, at `count` calls."""

    index: int
    attempt: int
    node: str
    rank: int
    started: float
    ended: float
    cause: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a broadcast's frozen set."""

    node: str
    rank: int
    address: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The first failure of a task."""

    index: int
    error: ErrorInfo
    node: str


@dataclass(slots=True, eq=False)
class LiveTask:
    """A task that has not ended."""

    work: Work
    results: ResultFile
    total: int = 0
    """Outcomes in the end; 0 for a broadcast that has not started."""
    members: tuple[Member, ...] = ()
    succeeded: IndexSet = field(default_factory=IndexSet)
    failed: IndexSet = field(default_factory=IndexSet)
    flights: Flights = field(default_factory=Flights)
    delayed: set[int] = field(default_factory=set)
    """Calls that wait for their next attempt outside the scheduler."""
    past: dict[int, Past] = field(default_factory=dict)
    """Of calls that have been tried before and have not ended. Those of one span that waits have the same."""
    cost: Decimal = Decimal(0)
    """What its calls have cost that are over, in US dollars."""
    attempts: int = 0
    interrupted: int = 0
    """Attempts whose node or agent was lost."""
    recent: deque[Trace] = field(default_factory=lambda: deque(maxlen=_RECENT))
    first_failure: Failure | None = None
    outcome: bytes | None = None
    """The packed outcome of a task with one small outcome."""
    values: dict[int, Any] = field(default_factory=dict)
    started: float | None = None
    nodes: set[str] = field(default_factory=set)
    """Where attempts were sent."""
    queued: float = 0.0
    """Since when it has waited; monotonic."""
    payload_heard: float = 0.0
    """When bytes of the payload came last, or this operator began to wait for them; monotonic."""
    submitted: bool = False
    waiting: tuple[TaskPhase, TaskReason, str] = (TaskPhase.QUEUED, TaskReason.QUEUED, "")
    ending: End | None = None
    """Set once no further call is handed out, because of this."""
    gone: bool = False
    """The object does not exist any more."""
    completing: bool = False
    unacknowledged: dict[tuple[str, str], Receipt] = field(default_factory=dict)
    """By node and attempt, the results that are not durable yet, in order."""
    ended: float | None = None
    """When the last call ended, by the clock of its node."""
    seconds: float = 0.0
    """Sum of the durations of calls that ended while this process watched."""
    timed: int = 0
    """How many those are."""
    largest: int = 1
    """Calls in the largest slice that has ended."""
    paces: dict[str, float] = field(default_factory=dict)
    """Seconds that a call took last, by node; of tasks that spread."""
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    open: OpenCalls | None = None
    """Of an open task: the calls that its client sent."""

    def __post_init__(self) -> None:
        if self.work.open:
            self.open = OpenCalls()
        elif not self.work.broadcast:
            self.total = self.work.count

    @property
    def ended_calls(self) -> int:
        """Calls with an outcome."""
        return len(self.succeeded) + len(self.failed)

    @property
    def is_complete(self) -> bool:
        """No call is left to run, and none is on a node."""
        if self.flights:
            return False
        if self.open is not None and self.ending is None:
            return self.open.closed and not self.open.untaken and self.total <= self.ended_calls
        return self.ending is not None or 0 < self.total <= self.ended_calls

    @property
    def mean_seconds(self) -> float | None:
        """Mean duration of a call, as far as it is known."""
        return self.seconds / self.timed if self.timed else None

    def took(self, seconds: float, calls: int) -> None:
        """So many calls have ended after so long in all. Those of long ago count less and less."""
        self.seconds += seconds
        self.timed += calls
        if self.timed > _MANY:
            self.seconds, self.timed = self.seconds / 2, self.timed // 2

    def has_ended(self, index: int) -> bool:
        """Whether the call has its outcome."""
        return index in self.succeeded or index in self.failed

    @property
    def spreads(self) -> bool:
        """Whether these are calls of which any node may run any."""
        work = self.work
        return work.count > 1 and not (work.broadcast or work.open) and work.rank is None

    @property
    def in_slices(self) -> bool:
        """Whether one slot may be sent several calls at once. Not where an interruption is an end: what had
        not begun would end with what had."""
        pickled = self.work.package is not None or self.work.blob is not None
        return pickled and self.spreads and self.work.retry.on_interruption > 0

    def any_ended(self, first: int, last: int) -> bool:
        """Whether any of these calls has its outcome."""
        return self.succeeded.overlaps(first, last) or self.failed.overlaps(first, last)

    def without_end(self, first: int, last: int) -> list[Span]:
        """Those of these calls that have no outcome."""
        spans = self.succeeded.gaps(first, last)
        return [gap for span in spans for gap in self.failed.gaps(span.first, span.last)]

    def alike(self, span: Span) -> Iterator[tuple[Span, Past]]:
        """The parts of a span whose calls have the same history."""
        if not self.past:
            yield span, FRESH
            return
        first = span.first
        past = self.past.get(first, FRESH)
        for index in range(first + 1, span.last + 2):
            following = self.past.get(index, FRESH)
            if index > span.last or following != past:
                yield Span(first, index - first), past
                first, past = index, following

    def remember(self, span: Span, past: Past) -> None:
        """This is the history of these calls now."""
        self.past.update(dict.fromkeys(range(span.first, span.last + 1), past))

    def forget(self, first: int, last: int) -> None:
        """These calls have ended: their history counts no more."""
        if self.past:
            for index in range(first, last + 1):
                self.past.pop(index, None)

    def waiting_calls(self) -> int:
        """Calls that are neither ended nor on a node."""
        if self.open is not None:
            return max(0, len(self.open.calls) - self.flights.calls)
        return max(0, (self.total or 1) - self.ended_calls - self.flights.calls)

    def unhandled(self) -> Iterator[Span]:
        """The calls to hand out: without outcome, not on a node, not kept for a later retry. Those of one
        span have the same history."""
        taken = IndexSet(self.delayed)
        for attempt in self.flights:
            taken.add_range(attempt.index, attempt.last)
        if self.open is not None:
            yield from (Span(index) for index in self.open.unsent(taken))
            return
        for part in (self.succeeded, self.failed):
            for first, last in part.intervals():
                taken.add_range(first, last)
        for span in taken.gaps(0, self.total - 1):
            yield from (alike for alike, _ in self.alike(span))

    def stop_timers(self) -> None:
        """Nothing of this task becomes due any more."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class Ledger:
    """All live tasks, by uid and by name."""

    def __init__(self) -> None:
        self._by_uid: dict[str, LiveTask] = {}
        self._by_key: dict[tuple[str, str], LiveTask] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def __iter__(self) -> Iterator[LiveTask]:
        return iter(list(self._by_uid.values()))

    def add(self, live: LiveTask) -> None:
        """A task begins to live."""
        self._by_uid[live.work.uid] = live
        self._by_key[live.work.key] = live

    def drop(self, live: LiveTask) -> None:
        """A task has ended."""
        self._by_uid.pop(live.work.uid, None)
        if self._by_key.get(live.work.key) is live:
            del self._by_key[live.work.key]

    def get(self, uid: str) -> LiveTask | None:
        """The live task of that uid."""
        return self._by_uid.get(uid)

    def named(self, namespace: str, name: str) -> LiveTask | None:
        """The live task of that name."""
        return self._by_key.get((namespace, name))


def write_members(members: tuple[Member, ...]) -> bytes:
    """A broadcast's frozen set, for its file."""
    return json.dumps([asdict(member) for member in members]).encode()


def read_members(data: bytes) -> tuple[Member, ...]:
    """The inverse of `write_members`."""
    return tuple(Member(**each) for each in json.loads(data))
