"""Which attempts were sent and how those ended that brought no outcome: one file, appended as it happens.

A call may only run again where an attempt is on record. The status says so late (it is written once a second)
and an agent forgets with its process, so an operator that died together with an agent would otherwise begin
again with the first attempt as if nothing had run. A record is written, not synced, before the frame can
leave: it survives the death of this process; the death of the machine takes the page cache with it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from skyward.wire.envelopes import FailureReason, attempt_id
from skyward_operator.tasks.ledger import Attempt, LiveTask, Trace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)

_COMPACT_ABOVE: Final = 16 * 1024 * 1024
_FAILURES: Final = frozenset(str(reason) for reason in FailureReason)


@dataclass(slots=True)
class _Past:
    """What the file says about one task."""

    sent: dict[int, Attempt] = field(default_factory=dict)
    """The newest attempt at each call that was sent, until it is over."""
    numbers: dict[int, int] = field(default_factory=dict)
    over: list[Trace] = field(default_factory=list)
    attempts: int = 0


class Journal:
    """The attempts of all live tasks. `read` it once at the start, before anything is written."""

    def __init__(self, path: Path, live: Iterable[LiveTask]) -> None:
        self._path = path
        self._live = live
        self._past: dict[str, _Past] = {}
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
        past = self._past.pop(live.work.uid, None)
        if past is None:
            return
        live.attempts = max(live.attempts, past.attempts)
        for index, number in past.numbers.items():
            live.numbers[index] = max(live.numbers.get(index, 0), number)
        for trace in past.over:
            live.recent.append(trace)
            counts = live.exceptions if trace.cause in _FAILURES else live.interruptions
            counts[trace.index] = counts.get(trace.index, 0) + 1
        for index, attempt in past.sent.items():
            if not live.has_ended(index) and attempt.number == live.numbers.get(index):
                live.flights[index] = attempt
                live.nodes.add(attempt.node)
                live.started = live.started or attempt.sent

    def begin(self) -> None:
        """The tasks are restored: go on with a file of what is alive. Blocks."""
        self._past.clear()
        self._compact()

    def sent(self, live: LiveTask, attempt: Attempt) -> None:
        """An attempt is about to leave."""
        self._write(_sent(live, attempt))

    def over(self, live: LiveTask, trace: Trace) -> None:
        """An attempt ended without an outcome of its call, or with its failure."""
        self._write(_over(live, trace))

    def settled(self, live: LiveTask, index: int) -> None:
        """A call of an open task has its outcome, which may never come to its file."""
        self._write({"task": live.work.uid, "settled": index})

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self, record: dict[str, Any]) -> None:
        past = self._past.setdefault(record.pop("task"), _Past())
        if "settled" in record:
            past.sent.pop(record["settled"], None)
            past.numbers.pop(record["settled"], None)
            return
        if "cause" in record:
            trace = Trace(**record)
            past.over.append(trace)
            index, number = trace.index, trace.attempt
            known = past.sent.get(index)
            if known is not None and known.number <= number:
                del past.sent[index]
        else:
            attempt = Attempt(**record)
            index, number = attempt.index, attempt.number
            past.sent[index] = attempt
            past.attempts += 1
        past.numbers[index] = max(past.numbers.get(index, 0), number)

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


def _records(live: LiveTask) -> list[dict[str, Any]]:
    traces = [_over(live, trace) for trace in live.recent]
    return traces + [_sent(live, attempt) for attempt in live.flights.values()]


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
    }


def _over(live: LiveTask, trace: Trace) -> dict[str, Any]:
    return {"task": live.work.uid} | asdict(trace)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
