"""Large bytes on their way to one agent: read ahead by a thread, a piece at a time, each transfer in turn.

Of each transfer two pieces are in memory at most, one that is being sent and one that is being read, so a
disk that is slow holds up neither the event loop nor the other transfers. No more is sent than `BLOB_WINDOW`
ahead of what the agent has taken, so that calls never wait behind what its disk cannot keep up with.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward.wire.envelopes import BLOB_WINDOW
from skyward.wire.frames import CHUNK, Frame, FrameKind, encode_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from skyward.wire.digest import BytesLike

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Transfer:
    """One blob."""

    digest: str
    size: int
    pieces: Iterator[bytes]
    ready: deque[memoryview] = field(default_factory=deque)
    """Chunks that can be sent."""
    sent: int = 0
    reading: bool = False
    """A thread has the pieces now."""
    ended: bool = False
    """Nothing more can be read."""


@dataclass(slots=True, eq=False)
class _Held:
    """A frame that must not overtake some transfers."""

    needs: set[str]
    frame: bytes


class Transfers:
    """The transfers of one link. `wake` is called when there is something to send again, `short` with the
    digest of a transfer whose bytes ended too early."""

    def __init__(self, wake: Callable[[], None], short: Callable[[str], None]) -> None:
        self._wake = wake
        self._short = short
        self._running: dict[str, _Transfer] = {}
        self._turn: deque[_Transfer] = deque()
        self._held: list[_Held] = []
        self._released: list[bytes] = []
        self._under_way: dict[str, tuple[int, int]] = {}
        """Of each blob: the end of what was sent, and of what the agent has taken."""

    @property
    def is_ready(self) -> bool:
        """Whether a chunk can be sent now."""
        return self._has_room and any(transfer.ready for transfer in self._turn)

    @property
    def _has_room(self) -> bool:
        return sum(sent - taken for sent, taken in self._under_way.values()) < BLOB_WINDOW

    def begin(self, digest: str, pieces: Iterable[bytes], size: int) -> None:
        """Send this, too."""
        transfer = self._running[digest] = _Transfer(digest, size, iter(pieces))
        self._turn.append(transfer)
        if not size:
            transfer.ready.append(memoryview(b""))
        self._read_on(transfer)

    def hold(self, needs: set[str], frame: bytes) -> bool:
        """Whether a frame has to wait for transfers; then it is among the `released` behind the last one."""
        under_way = needs & self._running.keys()
        if under_way:
            self._held.append(_Held(under_way, frame))
        return bool(under_way)

    def chunk(self) -> list[BytesLike]:
        """The next chunk, as the pieces of its frame; nothing where none is ready."""
        for _ in range(len(self._turn) if self._has_room else 0):
            transfer = self._turn[0]
            self._turn.rotate(-1)
            if transfer.ready:
                return self._frame(transfer, transfer.ready.popleft())
        return []

    def released(self) -> list[bytes]:
        """The frames that have waited long enough."""
        frames, self._released = self._released, []
        return frames

    def taken(self, digest: str, offset: int) -> None:
        """The agent has taken these bytes."""
        if digest not in self._under_way:
            return
        had_room, (sent, _) = self._has_room, self._under_way[digest]
        if offset < sent or digest in self._running:
            self._under_way[digest] = (sent, min(offset, sent))
        else:
            del self._under_way[digest]
        if not had_room:
            self._wake()

    def give_up(self, digest: str) -> None:
        """The agent does not take it. What waited goes: the agent says why it cannot be."""
        self._under_way.pop(digest, None)
        if (transfer := self._running.get(digest)) is not None:
            self._end(transfer)
            self._wake()

    def clear(self) -> None:
        """The link is gone."""
        for transfer in list(self._running.values()):
            self._end(transfer)
        self._held.clear()
        self._released.clear()
        self._under_way.clear()

    def _frame(self, transfer: _Transfer, chunk: memoryview) -> list[BytesLike]:
        offset, transfer.sent = transfer.sent, transfer.sent + chunk.nbytes
        _, taken = self._under_way.get(transfer.digest, (0, 0))
        self._under_way[transfer.digest] = (transfer.sent, taken if offset else 0)
        last = transfer.sent >= transfer.size
        header = {"digest": transfer.digest, "offset": offset, "size": transfer.size, "last": last}
        if last:
            self._end(transfer)
        else:
            self._read_on(transfer)
        return encode_parts(Frame(FrameKind.BLOB, header, chunk))

    def _read_on(self, transfer: _Transfer) -> None:
        """Have the next piece read while the last one is sent."""
        if transfer.ended and not transfer.ready:
            logger.error("blob %s ends at %d of %d bytes", transfer.digest, transfer.sent, transfer.size)
            self._short(transfer.digest)
            self._end(transfer)
        elif not transfer.reading and not transfer.ended and len(transfer.ready) <= 1:
            transfer.reading = True
            job = asyncio.get_running_loop().run_in_executor(None, next, transfer.pieces, None)
            job.add_done_callback(lambda job: self._have_read(transfer, job))

    def _have_read(self, transfer: _Transfer, job: asyncio.Future[bytes | None]) -> None:
        transfer.reading = False
        piece: bytes | None = None
        if not job.cancelled():
            if (error := job.exception()) is not None:
                logger.error("blob %s cannot be read: %s", transfer.digest, error)
            else:
                piece = job.result()
        if self._running.get(transfer.digest) is not transfer:
            _close(transfer.pieces)
            return
        if piece is None:
            transfer.ended = True
        else:
            view = memoryview(piece)
            transfer.ready.extend(view[at : at + CHUNK] for at in range(0, view.nbytes, CHUNK))
        self._read_on(transfer)
        self._wake()

    def _end(self, transfer: _Transfer) -> None:
        del self._running[transfer.digest]
        self._turn.remove(transfer)
        if not transfer.reading:
            _close(transfer.pieces)
        for held in self._held:
            held.needs.discard(transfer.digest)
        self._released += (held.frame for held in self._held if not held.needs)
        self._held = [held for held in self._held if held.needs]


def _close(pieces: Iterator[bytes]) -> None:
    """A generator that has a file open lets go of it."""
    close = getattr(pieces, "close", None)
    if close is not None:
        close()
