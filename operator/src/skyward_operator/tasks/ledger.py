"""The live tasks: what is known of each one that has not ended, in memory only.

Everything here can be built again from the API server, the files of outcomes and what the agents hold.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import TaskPhase, TaskReason
from skyward_operator.tasks.open import OpenCalls
from skyward_operator.tasks.ranges import IndexSet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from skyward.wire.envelopes import ErrorInfo
    from skyward_operator.tasks.decide import End
    from skyward_operator.tasks.results import ResultFile
    from skyward_operator.tasks.work import Work

_RECENT: Final = 32


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt that is on a node."""

    id: str
    index: int
    number: int
    node: str
    rank: int
    sent: float
    started: float | None = None
    refusals: int = 0
    boot: str = ""
    """The life of the agent that it was sent to, where that is known."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One attempt that ended without ending its call, or with its failure."""

    index: int
    attempt: int
    node: str
    rank: int
    started: float
    ended: float
    cause: str


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
    flights: dict[int, Attempt] = field(default_factory=dict)
    delayed: set[int] = field(default_factory=set)
    """Calls that wait for their next attempt outside the scheduler."""
    numbers: dict[int, int] = field(default_factory=dict)
    """The last attempt's number, where that is not 1."""
    exceptions: dict[int, int] = field(default_factory=dict)
    interruptions: dict[int, int] = field(default_factory=dict)
    attempts: int = 0
    recent: deque[Trace] = field(default_factory=lambda: deque(maxlen=_RECENT))
    first_failure: Failure | None = None
    outcome: bytes | None = None
    """The packed outcome of a task with one small outcome."""
    values: dict[int, Any] = field(default_factory=dict)
    started: float | None = None
    nodes: set[str] = field(default_factory=set)
    """Where attempts were sent."""
    payload_heard: float = 0.0
    """When bytes of the payload came last, or this operator began to wait for them; monotonic."""
    submitted: bool = False
    waiting: tuple[TaskPhase, TaskReason, str] = (TaskPhase.QUEUED, TaskReason.QUEUED, "")
    ending: End | None = None
    """Set once no further call is handed out, because of this."""
    gone: bool = False
    """The object does not exist any more."""
    completing: bool = False
    unacknowledged: dict[tuple[str, str], None] = field(default_factory=dict)
    """Node and attempt of results that are not durable yet, in order."""
    ended: float | None = None
    """When the last call ended, by the clock of its node."""
    seconds: float = 0.0
    """Sum of the durations of the calls that ended while this process watched."""
    timed: int = 0
    """How many those are."""
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

    def has_ended(self, index: int) -> bool:
        """Whether the call has its outcome."""
        return index in self.succeeded or index in self.failed

    def waiting_calls(self) -> int:
        """Calls that are neither ended nor on a node."""
        if self.open is not None:
            return max(0, len(self.open.calls) - len(self.flights))
        return max(0, (self.total or 1) - self.ended_calls - len(self.flights))

    def unhandled(self) -> Iterator[int]:
        """The calls to hand out: without outcome, not on a node, not kept for a later retry."""
        if self.open is not None:
            return iter(self.open.unsent(set(self.flights) | self.delayed))
        taken = set(self.flights) | self.delayed
        done = IndexSet()
        for part in (self.succeeded, self.failed):
            for first, last in part.intervals():
                done.add_range(first, last)
        return (index for index in done.missing(self.total) if index not in taken)

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
