"""Which attempts were sent and how those ended that brought no outcome: one file, appended as it happens.

A call may only run again where an attempt is on record. The status says so late (it is written once a second)
and an agent forgets with its process, so an operator that died together with an agent would otherwise begin
again with the first attempt as if nothing had run. A record is written, not synced, before the frame can
leave: it survives the death of this process; the death of the machine takes the page cache with it.

An attempt at a slice is one record, however many calls it has.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from skyward.wire.envelopes import FailureReason, attempt_id
from skyward_operator.tasks.flights import Attempt
from skyward_operator.tasks.ledger import LiveTask, Past, Trace
from skyward_operator.tasks.ranges import IndexSet, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

_COMPACT_ABOVE: Final = 16 * 1024 * 1024
_FAILURES: Final = frozenset(str(reason) for reason in FailureReason)


@dataclass(frozen=True, slots=True)
class _Gone:
    """Calls that are on no node any more, and of which no attempt counts: returned, or settled."""

    index: int
    count: int = 1
    settled: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """What stood about some calls in a file before this one."""

    index: int
    count: int
    past: Past


@dataclass(slots=True)
class _Story:
    """What the file says about one task, in the order in which it happened."""

    records: list[Attempt | Trace | _Gone | _Known] = field(default_factory=list)
    recent: list[Trace] = field(default_factory=list)
    attempts: int = 0
    interrupted: int = 0
    counted: dict[int, int] = field(default_factory=dict)
    """By call of an open task that was settled, the attempt that did it."""


class Journal:
    """The attempts of all live tasks. `read` it once at the start, before anything is written."""

    def __init__(self, path: Path, live: Iterable[LiveTask]) -> None:
        self._path = path
        self._live = live
        self._stories: dict[str, _Story] = {}
        self._file: int | None = None
        self._size = 0
        self._compact_above = _COMPACT_ABOVE

    def read(self) -> None:
        """Take in what an earlier operator wrote; a torn line is left out. Blocks."""
        try:
            text = self._path.read_text(errors="replace")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError):
                logger.warning("%s: a record cannot be read and is left out", self._path)

    def restore(self, live: LiveTask) -> None:
        """Put what is known of a task's attempts into it. What was in flight stays so until its node says
        otherwise, or is given up."""
        story = self._stories.pop(live.work.uid, None)
        if story is None:
            return
        live.attempts = max(live.attempts, story.attempts)
        live.interrupted = max(live.interrupted, story.interrupted)
        live.recent.extend(story.recent)
        for record in story.records:
            _recall(live, record)
        if live.open is not None:
            live.open.counted = {
                index: number
                for index, number in story.counted.items()
                if number and not live.has_ended(index)
            }
        decided = IndexSet()
        for record in reversed(story.records):  # the newest word on a call is the one that holds
            if not isinstance(record, _Known):
                if isinstance(record, Attempt):
                    _board(live, record, decided)
                decided.add_range(record.index, record.index + record.count - 1)

    def begin(self) -> None:
        """The tasks are restored: go on with a file of what is alive. Blocks."""
        self._stories.clear()
        self._compact()

    def sent(self, live: LiveTask, attempt: Attempt) -> None:
        """An attempt is about to leave."""
        self._write(_sent(live, attempt))

    def over(self, live: LiveTask, trace: Trace) -> None:
        """An attempt ended without an outcome of its call, or with its failure."""
        self._write(_over(live, trace))

    def returned(self, live: LiveTask, attempt: Attempt) -> None:
        """An attempt came back, and nothing of it ran: it is as if it had not been sent."""
        self._write({"task": live.work.uid, "returned": attempt.index, "count": attempt.count})

    def settled(self, live: LiveTask, index: int, number: int) -> None:
        """A call of an open task has its outcome, of this attempt, which may never come to its file."""
        self._write({"task": live.work.uid, "settled": index, "number": number})

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self, record: dict[str, Any]) -> None:
        story = self._stories.setdefault(record.pop("task"), _Story())
        if "settled" in record:
            index = int(record["settled"])
            story.counted[index] = int(record["number"])
            story.records.append(_Gone(index, settled=True))
        elif "returned" in record:
            gone = _Gone(int(record["returned"]), int(record["count"]))
            story.records.append(gone)
            story.attempts -= gone.count
        elif "past" in record:
            story.records.append(_Known(record["index"], record["count"], Past(*record["past"])))
        elif "attempts" in record:
            story.attempts, story.interrupted = int(record["attempts"]), int(record["interrupted"])
        elif "cause" in record:
            is_old = record.pop("old", False)
            trace = Trace(**record)
            story.recent.append(trace)
            if not is_old:
                story.records.append(trace)
                story.interrupted += 0 if trace.cause in _FAILURES else trace.count
        else:
            attempt = Attempt(**record)
            story.records.append(attempt)
            story.attempts += attempt.count

    def _write(self, record: dict[str, Any]) -> None:
        try:
            if self._file is None or self._size > self._compact_above:
                self._compact()
            assert self._file is not None  # noqa: S101
            self._size += os.write(self._file, _line(record))
        except OSError as error:
            logger.error("%s: an attempt is not on record: %s", self._path, error.strerror or error)

    def _compact(self) -> None:
        """Write what concerns live tasks to a new file in its place."""
        records = [_line(record) for live in self._live for record in _records(live)]
        fresh = self._path.with_name(self._path.name + ".new")
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.writelines(records)
            fresh.replace(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        self.close()
        self._file, self._size = descriptor, sum(map(len, records))
        self._compact_above = max(_COMPACT_ABOVE, 2 * self._size)


def _recall(live: LiveTask, record: Attempt | Trace | _Gone | _Known) -> None:
    """Put into the task what a record says about the past of calls that have not ended."""
    match record:
        case _Known():
            for span in live.without_end(record.index, record.index + record.count - 1):
                live.remember(span, record.past)
        case Trace():
            failed = record.cause in _FAILURES
            for span in live.without_end(record.index, record.index + record.count - 1):
                for part, past in list(live.alike(span)):
                    number = max(past.number, record.attempt)
                    now = Past(number, past.exceptions + failed, past.interruptions + (not failed))
                    live.remember(part, now)
        case _Gone(settled=True):
            live.forget(record.index, record.index)


def _board(live: LiveTask, sent: Attempt, decided: IndexSet) -> None:
    """What of an attempt is in flight: of which nothing newer is `decided`, and no outcome is there."""
    for gap in decided.gaps(sent.index, sent.last):
        for span in live.without_end(gap.first, gap.last):
            for part, past in list(live.alike(span)):
                if past.number <= sent.number:
                    live.flights.add(sent.piece(part.first, part.count))
                    live.nodes.add(sent.node)
                    live.started = live.started or sent.sent


def _records(live: LiveTask) -> list[dict[str, Any]]:
    uid = live.work.uid
    if live.attempts == 0:
        return []
    earlier = live.attempts - live.flights.calls
    records: list[dict[str, Any]] = [{"task": uid, "attempts": earlier, "interrupted": live.interrupted}]
    records += [_over(live, trace) | {"old": True} for trace in live.recent]
    if live.open is not None:
        untaken = {index: each.outcome.number for index, each in live.open.untaken.items()}
        settled = sorted((live.open.counted | untaken).items())
        records += [{"task": uid, "settled": index, "number": number} for index, number in settled]
    for span, past in _alike(live):
        known = [past.number, past.exceptions, past.interruptions]
        records.append({"task": uid, "index": span.first, "count": span.count, "past": known})
    return records + [_sent(live, attempt) for attempt in live.flights]


def _alike(live: LiveTask) -> Iterator[tuple[Span, Past]]:
    """The calls that have a past, those in a row with the same one together."""
    for index, past in sorted(live.past.items()):
        if live.past.get(index - 1) != past:
            count = 1
            while live.past.get(index + count) == past:
                count += 1
            yield Span(index, count), past


def _sent(live: LiveTask, attempt: Attempt) -> dict[str, Any]:
    return {
        "task": live.work.uid,
        "id": attempt_id(live.work.uid, attempt.index, attempt.number),
        "index": attempt.index,
        "number": attempt.number,
        "node": attempt.node,
        "rank": attempt.rank,
        "sent": attempt.sent,
        "boot": attempt.boot,
        "count": attempt.count,
        "size": attempt.size,
    }


def _over(live: LiveTask, trace: Trace) -> dict[str, Any]:
    return {"task": live.work.uid} | asdict(trace)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
