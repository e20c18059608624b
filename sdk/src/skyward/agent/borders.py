"""Which item of a slice printed what: marks in the pipes of a worker, and their removal.

Before an item's first output there is a mark with its place, so that what Python prints is told apart
exactly, and items that print nothing cost nothing. What is written past Python (C code, `os.write`, child
processes) belongs to the item that was marked last; an item that comes after one that took a while is
therefore marked before it begins, whether it prints or not.
"""

import io
import os
from collections.abc import Iterator
from typing import Any

from skyward.wire.digest import BytesLike

_LONGEST = 16
"""More characters than a place has."""


def new_mark() -> str:
    """What the marks of a slice begin with; the called code cannot know it by chance."""
    return f"\0skyward {os.urandom(8).hex()} "


class MarkedPipe(io.FileIO):
    """The raw end of `sys.stdout` or `sys.stderr` in a worker: it writes the mark that is due first."""

    due: bytes = b""

    def write(self, data: Any) -> int:
        """Write all of it, as the called code expects of a pipe."""
        mark, self.due = self.due, b""
        if not mark:
            return super().write(data)
        size = memoryview(data).nbytes
        joined = memoryview(mark + data)
        while joined:
            joined = joined[super().write(joined) :]
        return size

    def mark(self) -> None:
        """Write the mark that is due now: what comes next may not pass through here."""
        if self.due:
            self.write(b"")


class Splitter:
    """Takes the marks out of one stream of a worker and says which item printed what is between them."""

    def __init__(self, mark: str, place: int) -> None:
        self._mark = mark.encode()
        self._place = place
        self._rest = b""

    def feed(self, data: BytesLike) -> Iterator[tuple[int, bytes]]:
        """Place and output, in order; what may be the beginning of a mark waits for its rest."""
        data = self._rest + data
        self._rest = b""
        begin = 0
        while (at := data.find(b"\0", begin)) >= 0:
            end = self._end_of_mark(data, at)
            if end is None:
                self._rest = data[at:]
                data = data[:at]
                break
            if not end:
                yield self._place, data[begin : at + 1]
                begin = at + 1
                continue
            if at > begin:
                yield self._place, data[begin:at]
            self._place = int(data[at + len(self._mark) : end - 1])
            begin = end
        if len(data) > begin:
            yield self._place, data[begin:]

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """What waited for its rest, which does not come."""
        rest, self._rest = self._rest, b""
        if rest:
            yield self._place, rest

    def _end_of_mark(self, data: bytes, at: int) -> int | None:
        """Where the mark at `at` ends; 0 where there is none, None where that cannot be said yet."""
        mark = self._mark
        found = data[at : at + len(mark)]
        if found != mark:
            return None if mark.startswith(found) and at + len(found) == len(data) else 0
        start = at + len(mark)
        end = data.find(b"\0", start, start + _LONGEST)
        if end < 0:
            return None if len(data) < start + _LONGEST else 0
        return end + 1 if data[start:end].isdigit() else 0
