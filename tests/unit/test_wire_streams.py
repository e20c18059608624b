"""The flow of a stream: whatever breaks and however fast who reads, each item arrives once and in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyward.wire.frames import CHUNK, FrameKind
from skyward.wire.streams import WINDOW, Inflow, Outflow, pieces

if TYPE_CHECKING:
    from skyward.wire.frames import Frame

SIZES = st.one_of(
    st.integers(0, 100),
    st.integers(CHUNK - 2, CHUNK + 2),
    st.sampled_from([WINDOW - CHUNK, WINDOW, WINDOW + 1, 3 * WINDOW]),
)
STEPS = st.lists(
    st.sampled_from(["send", "send", "arrive", "arrive", "read", "read", "hear", "break"]), max_size=400
)


class Line:
    """Both ends of one stream and what is on its way between them."""

    def __init__(self, items: list[bytes]) -> None:
        self.out = Outflow(FrameKind.ITEM, {"attempt": "a"})
        self.into = Inflow()
        self.frames = (frame for item in [*items, None] for frame in self._frames(item))
        self.on_way: deque[Frame] = deque()
        self.credits: deque[int] = deque()
        self.read: list[bytes] = []
        self.over = False

    def _frames(self, item: bytes | None) -> Any:
        if item is None:
            yield {"end": True}, b""
            return
        for body, more in pieces([item]):
            yield ({"more": True} if more else {}), body

    def step(self, name: str) -> bool:
        """Whether something could be done."""
        match name:
            case "send" if self.out.has_room:
                made = next(self.frames, None)
                if made is not None:
                    self.on_way.append(self.out.add(made[1], **made[0]))
                return made is not None
            case "arrive" if self.on_way:
                frame = self.on_way.popleft()
                self.into.put(frame.header, frame.body)
                self._tell()
                return True
            case "read" if (arrived := self.into.take()) is not None:
                self.over = self.over or bool(arrived.header.get("end"))
                if not arrived.header.get("end"):
                    self.read.append(bytes(arrived.body))
                self._tell()
                return True
            case "hear" if self.credits:
                self.out.taken(self.credits.popleft())
                return True
            case "break":  # what is on its way is lost; the reader says what it has, and the rest comes again
                self.credits.clear()
                self.out.taken(self.into.taken)
                self.on_way = deque(self.out.unread())
        return False

    def _tell(self) -> None:
        if self.into.tells():
            self.credits.append(self.into.taken)

    @property
    def bytes_held(self) -> int:
        return sum(len(frame.body) for frame in self.out.unread())


@settings(max_examples=300, deadline=None)
@given(sizes=st.lists(SIZES, max_size=30), steps=STEPS)
def test_every_item_arrives_once_in_order_and_no_more_than_the_window_is_held(
    sizes: list[int], steps: list[str]
) -> None:
    items = [bytes([number]) * size for number, size in enumerate(sizes)]
    line = Line(items)
    for step in steps:
        line.step(step)
        assert line.bytes_held < WINDOW + CHUNK
    while any([line.step(step) for step in ("send", "arrive", "read", "hear")]):  # noqa: C419 - every step, each time
        assert line.bytes_held < WINDOW + CHUNK
    assert line.over
    assert line.read == items
    assert line.out.is_taken


def test_large_item_behind_a_small_one_does_not_wait_for_credit_for_ever() -> None:
    line = Line([b"small", bytes(3 * WINDOW)])
    while line.step("send"):
        pass
    while line.step("arrive"):
        pass
    while any([line.step(step) for step in ("read", "hear", "send", "arrive")]):  # noqa: C419 - every step, each time
        pass
    assert [len(item) for item in line.read] == [5, 3 * WINDOW]


def test_sender_stops_at_the_window_however_small_its_items() -> None:
    line = Line([b"x"] * 1000)
    while line.step("send"):
        pass
    assert line.out.sent == 256


@pytest.mark.parametrize("seq", [1, 5])
def test_frame_that_is_not_the_next_one_is_left_out(seq: int) -> None:
    into = Inflow()
    into.put({"seq": 0}, b"zero")
    into.put({"seq": 1}, b"one")
    assert not into.put({"seq": seq}, b"again")
    assert into.received == 2


def test_pieces_are_the_item_whatever_its_parts() -> None:
    parts: list[bytes | bytearray | memoryview] = [b"head", memoryview(bytes(CHUNK * 2 + 7)), bytearray(3)]
    made = list(pieces(parts))
    assert b"".join(bytes(body) for body, _ in made) == b"".join(bytes(part) for part in parts)
    assert [more for _, more in made] == [True] * (len(made) - 1) + [False]
    assert all(len(body) <= CHUNK for body, _ in made)
