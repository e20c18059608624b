"""Streams: what a call yields, and what it pulls from its caller, one item after the other.

Both directions work alike, between worker and caller; what lies between keeps nothing. Frames are numbered
from 0. Who sends keeps each frame until the reader has taken it, and sends no more than `WINDOW` bytes ahead;
who reads says how many frames it has taken. That one number is everything: whatever breaks in between, the
frames after it are sent again, and those that arrive twice are known by their number. So no hop ever holds
more than the window, however large an item or slow its reader, and nothing is lost or doubled.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skyward.wire.digest import BytesLike
from skyward.wire.frames import CHUNK, Frame, FrameKind

WINDOW = 4 * 1024 * 1024
"""Bytes that may be on their way and unread. At 500 MB/s that is a round trip of 8 ms."""

_LEAST = 16 * 1024
"""What a frame counts at least: a generator is at most 256 items ahead of its reader."""

_TELL = WINDOW // 4


@dataclass(frozen=True, slots=True)
class InputMark:
    """Stands for the caller's iterator in the pickled arguments; the worker puts a `Pull` in its place."""

    number: int


class Outflow:
    """The sending half: which frames the reader has not taken, and whether it has room for another."""

    def __init__(self, kind: FrameKind, fields: dict[str, Any]) -> None:
        self._kind = kind
        self._fields = fields
        self._frames: deque[tuple[int, Frame]] = deque()
        self._outstanding = 0
        self._taken = 0

    @property
    def sent(self) -> int:
        """How many frames there have been."""
        return self._taken + len(self._frames)

    @property
    def has_room(self) -> bool:
        """Whether another frame may be sent."""
        return self._outstanding < WINDOW

    @property
    def is_taken(self) -> bool:
        """Whether the reader has taken everything."""
        return not self._frames

    def add(self, body: BytesLike, **header: Any) -> Frame:
        """The next frame, numbered."""
        frame = Frame(self._kind, {**self._fields, **header, "seq": self.sent}, body)
        cost = _cost(body)
        self._frames.append((cost, frame))
        self._outstanding += cost
        return frame

    def taken(self, count: int) -> None:
        """The reader has taken the first `count` frames; older news is harmless."""
        while self._taken < count and self._frames:
            cost, _ = self._frames.popleft()
            self._outstanding -= cost
            self._taken += 1

    def unread(self) -> list[Frame]:
        """The frames that the reader has not taken, for sending them again."""
        return [frame for _, frame in self._frames]

    def clear(self) -> None:
        """Nobody reads on."""
        self._taken = self.sent
        self._frames.clear()
        self._outstanding = 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One whole item (or the end), with the header of its last frame, in `frames` frames of `cost`."""

    header: dict[str, Any]
    body: BytesLike
    frames: int
    cost: int


class Inflow:
    """The reading half: frames in, whole items out, and when to say how many were taken."""

    def __init__(self) -> None:
        self._items: deque[Arrived] = deque()
        self._parts: list[BytesLike] = []
        self._parts_cost = 0
        self._taken = 0
        self._taken_cost = 0
        self._told_cost = 0
        self.received = 0
        """Frames that came, in order."""
        self.ended = False
        """The frame that ends the stream has come."""

    def __bool__(self) -> bool:
        """Whether a whole item waits."""
        return bool(self._items)

    @property
    def is_next_the_end(self) -> bool:
        """Whether only the end waits."""
        return bool(self._items) and bool(self._items[0].header.get("end"))

    @property
    def taken(self) -> int:
        """Frames that were taken; of an item that is still arriving, those that are here, if it is next."""
        return self._taken + (0 if self._items else len(self._parts))

    def put(self, header: dict[str, Any], body: BytesLike) -> bool:
        """A frame. False if it is not the next one: it came before, or one before it was lost."""
        if header["seq"] != self.received:
            return False
        self.received += 1
        self._parts.append(body)
        self._parts_cost += _cost(body)
        if not header.get("more"):
            whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._items.append(Arrived(header, whole, len(self._parts), self._parts_cost))
            self._parts, self._parts_cost = [], 0
            self.ended = self.ended or bool(header.get("end"))
        return True

    def take(self) -> Arrived | None:
        """The next item, if one is there whole."""
        if not self._items:
            return None
        arrived = self._items.popleft()
        self._taken += arrived.frames
        self._taken_cost += arrived.cost
        return arrived

    def tells(self) -> bool:
        """Whether it is time to say how many were taken: a part of the window, or everything there is."""
        cost = self._taken_cost + (0 if self._items else self._parts_cost)
        if cost - self._told_cost < (1 if self.ended and not self._items else _TELL):
            return False
        self._told_cost = cost
        return True


def pieces(parts: list[BytesLike]) -> Iterator[tuple[BytesLike, bool]]:
    """The bytes of an item in bodies of frames, and whether more follows. Small ones are one piece."""
    left = sum(map(_size, parts))
    if left <= CHUNK:
        yield (bytes(parts[0]) if len(parts) == 1 else b"".join(parts)), False
        return
    for part in parts:
        view = memoryview(part).cast("B")
        for start in range(0, view.nbytes, CHUNK):
            piece = bytes(view[start : start + CHUNK])
            left -= len(piece)
            yield piece, left > 0


def _cost(body: BytesLike) -> int:
    return max(_LEAST, _size(body))


def _size(body: BytesLike) -> int:
    return body.nbytes if isinstance(body, memoryview) else len(body)
