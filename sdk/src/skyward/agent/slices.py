"""Slices as the agent sees them: which items have an outcome, which one runs, which come back.

A place is that of an item in its slice. Those before `next` have an outcome, which the listener has; those
from `end` on were returned. What is between them the agent accounts for, whatever happens to the worker.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skyward.agent.attempts import Attempt, Listener, lost_outcome
from skyward.agent.borders import Splitter, new_mark
from skyward.agent.box import Box
from skyward.agent.ranges import Ranges
from skyward.wire.envelopes import BATCH_SECONDS, ErrorInfo, attempt_id, parse_attempt

_LOOK_SECONDS = 1.5 * BATCH_SECONDS
"""When the agent looks for outcomes that wait in the box because the item after them takes long."""


@dataclass(slots=True)
class Slice(Attempt):
    """A slice that was taken and is not over. Its name is that of its first item."""

    uid: str = ""
    first: int = 0
    number: int = 1
    next: int = 0
    end: int = 0
    condemned: int | None = None
    """The place of the item whose time is up."""
    is_asked_back: bool = False
    splitters: dict[str, Splitter] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, header: dict[str, Any], body: bytes) -> "Slice":
        """The slice of a CALL."""
        uid, first, number = parse_attempt(name)
        return cls(name, header, body, uid=uid, first=first, number=number, end=len(header["sizes"]))

    @property
    def box(self) -> Box:
        """Where its worker writes down how far it is."""
        assert self.worker is not None  # noqa: S101
        return self.worker.boxes[self.slot]

    @property
    def running(self) -> str:
        """The name of the item that runs, or ran last."""
        return self.name(max(self.box.begun - 1, 0))

    @property
    def has_moved_on(self) -> bool:
        """Whether the item whose time was up ended by itself."""
        is_over = self.box.since == float("inf") or self.box.begun != (self.condemned or 0) + 1
        return self.condemned is not None and is_over

    def name(self, place: int) -> str:
        """The name of an item."""
        return attempt_id(self.uid, self.first + place, self.number)

    def part(self, count: int) -> tuple[dict[str, Any], bytes]:
        """What a worker needs beside the usual header to run the next `count` items, and their arguments."""
        assert self.worker is not None  # noqa: S101
        sizes = self.header["sizes"][self.next : self.next + count]
        begin = sum(self.header["sizes"][: self.next])
        mark = new_mark()
        self.splitters = {stream: Splitter(mark, self.next) for stream in ("stdout", "stderr")}
        self.box.prepare(self.next)
        header = {
            "place": self.next,
            "sizes": sizes,
            "mark": mark,
            "box": self.slot,
            "timeout": self.header.get("timeout"),
        }
        return header, self.body[begin : begin + sum(sizes)]


class Slices:
    """Tells the listener about the items of slices, and `overdue` about an item that ran too long."""

    def __init__(self, listener: Listener, names: Ranges, overdue: Callable[[Slice], None]) -> None:
        self._listener = listener
        self._names = names
        self._overdue = overdue

    def output(self, running: Slice, stream: str, data: bytes) -> None:
        """The worker printed this."""
        for place, text in running.splitters[stream].feed(data):
            self._listener.output(running.name(place), stream, text)

    def take(self, running: Slice, header: dict[str, Any], body: bytes) -> None:
        """What a worker says about items that ended: a batch, or one on its own."""
        if "count" in header:
            self._take_batch(running, header["place"], header["lengths"], header["failed"], body)
        elif header["place"] == running.next:
            self._tell(running, header["attempt"], header["started"], header, body)
        if running.has_moved_on:
            self.spare(running)
        self.watch(running)

    def spare(self, running: Slice) -> None:
        """The item whose time was up ended by itself; the slice goes on.

        It stays condemned in the box, so that a signal that is still on its way hits no other.
        """
        running.stop_timers()
        running.ending = running.condemned = None

    def watch(self, running: Slice) -> None:
        """Look after a slice when its outcomes wait for an item that takes long, and when its time is up."""
        if running.ending is None:
            running.stop_timers()
            delay = running.timeout
            if running.end - running.next > 1:
                delay = _LOOK_SECONDS if delay is None else min(delay, _LOOK_SECONDS)
            self._look_later(running, delay)

    def collect(self, running: Slice) -> None:
        """Take from the box what the worker has not sent."""
        lengths: list[int] = []
        failed: list[int] = []
        records: list[bytes] = []
        expected = running.first + running.next
        for index, ok, record in running.box.outcomes():
            if index == expected + len(lengths):
                if not ok:
                    failed.append(len(lengths))
                lengths.append(len(record))
                records.append(record)
        if lengths:
            assert running.worker is not None  # noqa: S101
            running.worker.empty_pipes()
            self._take_batch(running, running.next, lengths, failed, b"".join(records))

    def close(self, running: Slice, begun: int, error: ErrorInfo | None) -> None:
        """The worker is through with the slice, or dead: what began and has no outcome ended with `error`.

        That is the item that ran; more than one only where the called code wrote into the box.
        """
        for stream, splitter in running.splitters.items():
            for place, text in splitter.finish():
                self._listener.output(running.name(place), stream, text)
        while running.next < min(begun, running.end):
            self.fail_next(running, error or lost_outcome())

    def fail_next(self, running: Slice, error: ErrorInfo, duration: float | None = None) -> None:
        """The first item without an outcome ended with this error and brought nothing of its own."""
        took = 0.0
        if duration is not None:
            took = duration
        elif running.worker is not None and (since := running.box.since) != float("inf"):
            took = time.monotonic() - since
        answer = {"ok": False, "duration": max(0.0, took), "size": 0, "error": error.to_json()}
        self._tell(running, running.name(running.next), time.time() - took, answer, b"")

    def give_back(self, running: Slice, place: int) -> None:
        """The items from this place on did not run, and will not run here."""
        place = max(place, running.next)
        if place < running.end:
            count, running.end = running.end - place, place
            if running.id in self._names:
                self._names.add(running.id, place)
            self._listener.returned(running.name(place), count)

    def _take_batch(
        self, running: Slice, place: int, lengths: list[int], failed: list[int], body: bytes
    ) -> None:
        known = running.next - place
        if known:
            body = body[sum(lengths[:known]) :]
            lengths, failed = lengths[known:], [each - known for each in failed if each >= known]
        if not lengths:
            return
        header = {
            "attempt": running.name(running.next),
            "count": len(lengths),
            "failed": failed,
            "lengths": lengths,
        }
        running.next += len(lengths)
        self._listener.finished(running, header, body, None)

    def _tell(self, running: Slice, name: str, started: float, answer: dict[str, Any], body: bytes) -> None:
        running.next += 1
        self._listener.finished(running, result_header(name, started, answer), body, answer.get("file"))

    def _look_later(self, running: Slice, delay: float | None) -> None:
        if delay is not None:
            running.timers.append(asyncio.get_running_loop().call_later(delay, self._look, running))

    def _look(self, running: Slice) -> None:
        running.timers.clear()
        box = running.box
        if box.begun - 1 > running.next:
            self.collect(running)
        left = running.timeout
        begun, since = box.begun, box.since  # in this order: between two items there is no `since`
        if left is not None and begun > running.next and since != float("inf"):
            left += since - time.monotonic()
            if left <= 0:
                running.condemned = begun - 1
                self._overdue(running)
                return
        if box.begun - 1 > running.next:  # emptied at this moment
            left = _LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)
        self._look_later(running, left)


def result_header(name: str, started: float, answer: dict[str, Any]) -> dict[str, Any]:
    """The header of the RESULT of one attempt, from what its worker (or the agent for it) says."""
    header: dict[str, Any] = {
        "attempt": name,
        "ok": answer["ok"],
        "started": started,
        "duration": answer["duration"],
        "size": answer["size"],
        "chunked": "file" in answer,
    }
    header.update({key: answer[key] for key in ("error", "value", "digest") if key in answer})
    return header
