"""What a worker writes down about the slice that it runs, in memory that outlives it.

One box per slot, mapped by the agent and the worker. Before an item begins its place stands here, and as soon
as it has ended its outcome does, so that after a SIGKILL at any instruction the agent knows which items ended
and how, which one ran, and which never began. Each word is written by one side only, with one store.

The worker empties the box whenever it has sent what is in it; a record that was sent and still stands here is
known by its index.
"""

import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO

from skyward.wire.digest import BytesLike
from skyward.wire.errors import PackageError
from skyward.wire.outcomes import scan_outcomes

ROOM = 256 * 1024
"""Bytes of outcomes in a box. One that is larger is sent on its own."""

EVERYTHING = (1 << 64) - 1
"""Condemned is whatever runs, and nothing begins any more."""

_BEGUN, _USED, _LAPS, _CONDEMNED = range(4)
_WORDS = 32
_SINCE = 40
_RECORDS = 4096
_NEVER = float("inf")


def new_box() -> int:
    """The descriptor of an empty box."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("skyward-box", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp(prefix="skyward-box-")
        os.unlink(path)
    os.ftruncate(descriptor, _RECORDS + ROOM)
    return descriptor


class Box:
    """A box, seen from either side. Places are those of items in their slice."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, _RECORDS + ROOM)
        view = memoryview(self._map)
        self._words = view[:_WORDS].cast("Q")
        self._since = view[_SINCE : _SINCE + 8].cast("d")
        self._records = view[_RECORDS:]

    # what the agent does

    def prepare(self, place: int) -> None:
        """A slice is about to be handed to the worker, which begins at this place."""
        words = self._words
        words[_BEGUN], words[_USED], words[_CONDEMNED] = place, 0, 0
        words[_LAPS] += 1
        self._since[0] = time.monotonic()

    def condemn(self, place: int | None) -> None:
        """The item at this place shall be interrupted (None: whichever runs, and none begins after it)."""
        self._words[_CONDEMNED] = EVERYTHING if place is None else place + 1

    @property
    def begun(self) -> int:
        """How many items have begun, counted from the start of the slice."""
        return self._words[_BEGUN]

    @property
    def since(self) -> float:
        """When the item that runs began, by the monotonic clock; infinity between two items."""
        return self._since[0]

    def outcomes(self) -> Iterator[tuple[int, bool, bytes]]:
        """Index, success and record of each item that ended and was not sent when last it was emptied."""
        laps, used = self._words[_LAPS], self._words[_USED]
        data = bytes(self._records[: min(used, ROOM)])
        if self._words[_LAPS] != laps:
            return  # emptied meanwhile: all of it comes over the socket
        end = 0
        try:
            for found in scan_outcomes(BytesIO(data)):
                begin, end = end, found.offset + found.size
                yield found.outcome.index, found.outcome.ok, data[begin:end]
        except PackageError:
            return  # the called code wrote here; what the rest says is worth nothing

    # what the worker does

    def begin(self, place: int, now: float) -> None:
        """The item at this place begins."""
        self._words[_BEGUN] = place + 1
        self._since[0] = now

    def keep(self, head: bytes, body: BytesLike) -> bool:
        """An item has ended; False where its record does not fit in."""
        used = self._words[_USED]
        middle = used + len(head)
        end = middle + len(body)
        if end > ROOM:
            return False
        self._records[used:middle] = head
        self._records[middle:end] = body
        self._words[_USED] = end
        return True

    def rest(self) -> None:
        """No item runs at the moment: the last one ended without being interrupted."""
        self._since[0] = _NEVER

    def contents(self) -> bytes:
        """The records in the box."""
        return bytes(self._records[: self._words[_USED]])

    def empty(self) -> None:
        """What is in the box has been sent."""
        self._words[_LAPS] += 1
        self._words[_USED] = 0

    def is_condemned(self, place: int) -> bool:
        """Whether the item at this place shall be interrupted."""
        return self._words[_CONDEMNED] in (place + 1, EVERYTHING)

    def is_meant_for_another(self, place: int) -> bool:
        """Whether another item than the one at this place shall be interrupted."""
        return self._words[_CONDEMNED] not in (0, place + 1, EVERYTHING)

    @property
    def is_closed(self) -> bool:
        """Whether nothing shall begin any more."""
        return self._words[_CONDEMNED] == EVERYTHING
