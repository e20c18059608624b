"""The items of a slice inside a worker, one after the other: each ends on its own, and many are told at once.

What an item's end looks like to the operator, the record of its outcome, is made here and stands in the box
before the next item begins. A batch goes to the agent when the slice is over, when the box is full, and when
an item ends after the last batch was some time ago.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from skyward.agent.borders import MarkedPipe
from skyward.agent.box import ROOM, Box
from skyward.agent.execute import Execution, Functions
from skyward.agent.returned import Returned
from skyward.agent.runtime import CallContext
from skyward.agent.standard import flush
from skyward.wire.envelopes import BATCH_SECONDS, attempt_id, parse_attempt
from skyward.wire.frames import Frame, FrameKind
from skyward.wire.outcomes import Heads, Outcome, outcome_head

_SLOW = 0.0002
"""Seconds of an item after which the next one is marked in the pipes before it begins."""


class Host(Protocol):
    """The worker, as a slice knows it."""

    functions: Functions
    spool: Path
    captured: bool

    @property
    def pipes(self) -> tuple[MarkedPipe, ...]:
        """What its calls print to."""

    def restore_streams(self) -> str:
        """Put back what a call took away of them, and what to say about it."""

    def execute(self, context: CallContext, execution: Execution, box: Box | None = None) -> bool:
        """Run it where it can be interrupted; False where the box was closed before it began."""

    def was_interrupted(self, attempt: str) -> bool:
        """Whether somebody interrupted it, said once."""

    def send(self, frame: Frame) -> None:
        """Tell the agent."""


class Items:
    """A slice that this worker runs. A place is that of an item in the slice as the operator sent it."""

    def __init__(self, frame: Frame, box: Box, host: Host) -> None:
        header = frame.header
        self.name: str = header["attempt"]
        self.current: str | None = None
        """The item that runs."""
        self._header = header
        self._uid, self._first, self._number = parse_attempt(self.name)
        self._next: int = header["place"]
        self._limit = self._next + len(header["sizes"])
        self._arguments = _pieces(memoryview(frame.body), header["sizes"])
        self._box = box
        self._host = host
        self._shared = CallContext.from_call(header).place()
        context = header["context"]
        self._node, self._rank = str(context.get("id", "")), int(context.get("rank") or 0)
        self._heads = Heads(self._node, self._rank)
        self._lock = threading.Lock()
        self._place = self._next
        self._batch = self._next
        self._lengths: list[int] = []
        self._failed: list[int] = []
        self._sent = time.monotonic()

    def run(self) -> None:
        """Run the items until there are no more, or no more shall begin, or one was interrupted."""
        try:
            while self._begin() and not self._run_item():
                pass
        except KeyboardInterrupt:  # thrown at this thread between two items
            pass
        finally:
            for pipe in self._host.pipes:
                pipe.due = b""
        self._send_batch(over=True)

    def give_back(self) -> None:
        """Begin no more items, and say from which on they come back."""
        with self._lock:
            self._limit = min(self._limit, self._next)
        self._host.send(Frame(FrameKind.REFUSED, {"slice": self.name, "place": self._limit}))

    @property
    def is_spared(self) -> bool:
        """Whether what comes to interrupt a call was meant for an item that has ended meanwhile."""
        return self._box.is_meant_for_another(self._place)

    def _begin(self) -> bool:
        with self._lock:
            if self._next >= self._limit:
                return False
            self._place = self._next
            self._next += 1
        return True

    def _run_item(self) -> bool:
        """Run one item and see to its outcome; True when the slice ends with it."""
        place, host = self._place, self._host
        name = attempt_id(self._uid, self._first + place, self._number)
        started = time.time()
        execution = Execution(self._header, next(self._arguments), host.functions, captured=host.captured)
        self._box.begin(place, execution.begun)
        self.current = name
        if not host.execute(self._context(name, started), execution, self._box):
            self._next = place
            return True
        returned = execution.returned(host.spool)
        if lost := host.restore_streams():
            self._mark(place, eager=False)  # the one before may have gone elsewhere
            sys.stderr.write(lost)
        flush()
        is_last = host.was_interrupted(name) and self._box.is_condemned(place)
        if not is_last:
            self._box.rest()
        if is_last or not self._keep(self._head(name, started, execution, returned.size), returned):
            self._send_batch()
            self._send_alone(name, started, execution, returned, interrupted=is_last)
        else:
            if execution.error is not None:
                self._failed.append(len(self._lengths) - 1)
            if time.monotonic() - self._sent > BATCH_SECONDS:
                self._send_batch()
        if self._next < self._limit:
            self._mark(self._next, eager=execution.duration > _SLOW)
        return is_last

    def _context(self, name: str, started: float) -> CallContext:
        timeout = self._header["timeout"]
        deadline = started + timeout if timeout is not None else None
        index = self._first + self._place
        return CallContext(**self._shared, index=index, attempt_id=name, deadline=deadline)

    def _head(self, name: str, started: float, execution: Execution, size: int) -> bytes:
        index, duration = self._first + self._place, execution.duration
        if execution.error is None:
            return self._heads.head(index, name, started, duration, size)
        outcome = Outcome(index, False, b"", execution.error, self._node, self._rank, name, started, duration)
        return outcome_head(outcome, size)

    def _keep(self, head: bytes, returned: Returned) -> bool:
        """Put the record of an outcome into the box; False where it is too large for that."""
        size = len(head) + returned.size
        if returned.file is not None or size > ROOM:
            return False
        if not self._box.keep(head, returned.body):
            self._send_batch()
            self._box.keep(head, returned.body)
        if not self._lengths:
            self._batch = self._place
        self._lengths.append(size)
        return True

    def _send_batch(self, *, over: bool = False) -> None:
        """Tell what is in the box. What is told twice is known by its place."""
        if self._lengths or over:
            header: dict[str, Any] = {
                "slice": self.name,
                "place": self._batch,
                "count": len(self._lengths),
                "failed": self._failed,
                "lengths": self._lengths,
            }
            if over:
                header["begun"] = self._next
            self._host.send(Frame(FrameKind.RESULT, header, self._box.contents()))
            self._lengths, self._failed = [], []
            self._box.empty()
        self._sent = time.monotonic()

    def _send_alone(
        self, name: str, started: float, execution: Execution, returned: Returned, *, interrupted: bool
    ) -> None:
        """Tell of a large outcome, or of an item that was interrupted, as of a single call."""
        header = execution.describe(returned)
        header.update(
            slice=self.name, place=self._place, attempt=name, started=started, interrupted=interrupted
        )
        self._host.send(Frame(FrameKind.RESULT, header, returned.body))

    def _mark(self, place: int, *, eager: bool) -> None:
        mark = f"{self._header['mark']}{place}\0".encode()
        for pipe in self._host.pipes:
            pipe.due = mark
            if eager:
                pipe.mark()


def _pieces(body: memoryview, sizes: Iterable[int]) -> Iterator[memoryview]:
    end = 0
    for size in sizes:
        begin, end = end, end + size
        yield body[begin:end]
