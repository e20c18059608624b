"""Transfers to one agent: in turn, within the window, read ahead by little, and what waits for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from skyward.wire.envelopes import BLOB_WINDOW
from skyward.wire.frames import CHUNK, Decoder
from skyward_operator.nodes.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 4 * CHUNK


class Scene:
    """The transfers of one link, and what was sent of them."""

    def __init__(self) -> None:
        self.short: list[str] = []
        self.woken = asyncio.Event()
        self.transfers = Transfers(self.woken.set, self.short.append)
        self.sent: list[dict[str, Any]] = []

    def send(self, most: int = 10_000) -> int:
        """Send what can be sent now; the bytes of it."""
        size = 0
        for _ in range(most):
            if not (frame := self.transfers.chunk()):
                break
            (chunk,) = Decoder().feed(b"".join(frame))
            self.sent.append(chunk.header)
            size += len(chunk.body)
        return size

    async def until_sent(self, count: int) -> None:
        """Send until so many chunks were sent in all."""
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                self.woken.clear()
                self.send(count - len(self.sent))
                if len(self.sent) < count:
                    await self.woken.wait()


def pieces(count: int, read: list[int] | None = None) -> Iterator[bytes]:
    for number in range(count):
        if read is not None:
            read.append(number)
        yield bytes(PIECE)


async def test_transfers_take_turns_and_frames_wait_for_all_they_need() -> None:
    scene = Scene()
    scene.transfers.begin("long", pieces(6), 6 * PIECE)
    scene.transfers.begin("short", pieces(1), PIECE)
    assert scene.transfers.hold({"short"}, b"one")
    assert scene.transfers.hold({"long", "short", "there"}, b"both")
    assert not scene.transfers.hold({"there"}, b"none")
    while not any(header["digest"] == "short" and header["last"] for header in scene.sent):
        await scene.until_sent(len(scene.sent) + 1)
    assert scene.transfers.released() == [b"one"]
    assert not any(header["digest"] == "long" and header["last"] for header in scene.sent)
    await scene.until_sent(7 * PIECE // CHUNK)
    assert scene.transfers.released() == [b"both"]


async def test_no_more_is_sent_and_read_than_the_agent_takes() -> None:
    scene, read = Scene(), list[int]()
    count = 4 * BLOB_WINDOW // PIECE
    scene.transfers.begin("x", pieces(count, read), count * PIECE)
    await scene.until_sent(BLOB_WINDOW // CHUNK)
    assert scene.send() == 0
    assert not scene.transfers.is_ready
    assert len(read) * PIECE <= BLOB_WINDOW + 2 * PIECE
    scene.woken.clear()
    scene.transfers.taken("x", 3 * CHUNK)
    assert scene.woken.is_set()
    await scene.until_sent(BLOB_WINDOW // CHUNK + 3)
    assert scene.send() == 0
    offset = 0
    while len(scene.sent) < 4 * BLOB_WINDOW // CHUNK:
        offset = scene.sent[-1]["offset"] + CHUNK
        scene.transfers.taken("x", offset)
        await scene.until_sent(min(len(scene.sent) + 8, 4 * BLOB_WINDOW // CHUNK))
    assert [header["offset"] for header in scene.sent] == list(range(0, count * PIECE, CHUNK))
    scene.transfers.taken("x", count * PIECE)
    scene.transfers.begin("y", pieces(1), PIECE)
    await scene.until_sent(len(scene.sent) + 4)


async def test_bytes_that_end_too_early_are_told_and_hold_up_nothing() -> None:
    scene = Scene()

    def broken() -> Iterator[bytes]:
        yield bytes(CHUNK)
        raise OSError("the disk is gone")

    scene.transfers.begin("gone", broken(), PIECE)
    scene.transfers.begin("short", pieces(1), 2 * PIECE)
    scene.transfers.hold({"gone", "short"}, b"frame")
    async with asyncio.timeout(10):
        while len(scene.short) < 2:
            scene.woken.clear()
            scene.send()
            await scene.woken.wait()
    assert sorted(scene.short) == ["gone", "short"]
    assert scene.transfers.released() == [b"frame"]


async def test_what_the_agent_refuses_is_not_sent_any_further() -> None:
    scene, read = Scene(), list[int]()
    scene.transfers.begin("x", pieces(1000, read), 1000 * PIECE)
    scene.transfers.hold({"x"}, b"frame")
    await scene.until_sent(4)
    scene.transfers.give_up("x")
    assert scene.transfers.released() == [b"frame"]
    assert scene.send() == 0
    assert len(read) <= 4
    scene.transfers.taken("x", CHUNK)  # a late word
    scene.transfers.begin("x", pieces(1), PIECE)  # and once more, from its beginning
    await scene.until_sent(8)
    assert [header["offset"] for header in scene.sent[4:]] == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]


async def test_nothing_at_all_is_one_empty_chunk() -> None:
    scene = Scene()
    scene.transfers.begin("empty", iter(()), 0)
    await scene.until_sent(1)
    assert scene.sent == [{"digest": "empty", "offset": 0, "size": 0, "last": True}]
