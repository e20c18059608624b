"""What goes to an agent: control frames of one turn in one write, ahead of bulk in chunks.

Bulk goes while the channel has room, so a control frame waits for a few chunks at most. What must not
overtake a transfer (a call that needs it) waits behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward.wire.frames import CHUNK, Frame, FrameKind, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import asyncssh

logger = logging.getLogger(__name__)

PACKET = 32 * 1024
"""asyncssh cuts what is written into packets of this size; writing them so saves it a copy of the rest."""
HIGH_WATER = 1024 * 1024


@dataclass(slots=True)
class Transfer:
    """Large bytes on their way, and what may go only after them."""

    digest: str
    size: int
    pieces: Iterator[bytes | memoryview]
    offset: int = 0
    then: list[bytes] = field(default_factory=list)


class Outbox:
    """The sending half of a link. `broken` is called when the channel fails, `short` with the digest of a
    transfer whose bytes ended too early."""

    def __init__(self, broken: Callable[[str], None], short: Callable[[str], None]) -> None:
        self._broken = broken
        self._short = short
        self._channel: asyncssh.SSHUNIXChannel[bytes] | None = None
        self._control: deque[bytes] = deque()
        self._transfers: deque[Transfer] = deque()
        self._scheduled = False
        self._paused = False

    def attach(self, channel: asyncssh.SSHUNIXChannel[bytes]) -> None:
        """Send to this channel."""
        self._channel = channel
        channel.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 4)

    def detach(self) -> None:
        """The channel is gone, and with it all that was not sent."""
        self._channel = None
        self._control.clear()
        self._transfers.clear()

    def pause(self) -> None:
        """The channel is full."""
        self._paused = True

    def resume(self) -> None:
        """The channel has room again."""
        self._paused = False
        self._schedule()

    def send(self, frame: bytes) -> None:
        """Send a control frame with the others of this turn."""
        self._control.append(frame)
        self._schedule()

    def send_after(self, needs: set[str], frame: bytes) -> None:
        """Send a frame, but not before the transfers of these digests."""
        for transfer in reversed(self._transfers):
            if transfer.digest in needs:
                transfer.then.append(frame)
                return
        self.send(frame)

    def transfer(self, digest: str, chunks: Iterable[bytes], size: int) -> None:
        """Send large bytes, read lazily, as BLOB frames."""
        self._transfers.append(Transfer(digest, size, cut(chunks)))
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._channel is None or self._paused:
            return
        if self._control:
            whole = b"".join(self._control)
            self._control.clear()
            self._write(whole)
        if self._transfers and not self._paused:
            self._step(self._transfers[0])
        if (self._control or self._transfers) and not self._paused:
            self._schedule()

    def _step(self, transfer: Transfer) -> None:
        """Send one chunk; after the last, what waited for it."""
        try:
            piece = next(transfer.pieces, None)
        except OSError:
            logger.exception("blob %s cannot be read", transfer.digest)
            piece = None
        short = piece is None and transfer.offset < transfer.size
        if piece is not None:
            last = transfer.offset + len(piece) >= transfer.size
            header = {
                "digest": transfer.digest,
                "offset": transfer.offset,
                "size": transfer.size,
                "last": last,
            }
            self._write(encode(Frame(FrameKind.BLOB, header, piece)))
            transfer.offset += len(piece)
        if short:
            # The agent refuses what follows with BlobMissing, which the listener knows how to answer.
            logger.error("blob %s ends at %d of %d bytes", transfer.digest, transfer.offset, transfer.size)
            self._short(transfer.digest)
        if self._transfers and (short or transfer.offset >= transfer.size):
            self._transfers.popleft()
            self._control.extend(transfer.then)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            for start in range(0, len(view), PACKET):
                if self._channel is not None:
                    self._channel.write(bytes(view[start : start + PACKET]))
        except OSError as error:
            self._broken(f"the channel is broken: {error}")


def cut(chunks: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The same bytes in pieces of at most CHUNK. Nothing at all is one empty piece."""
    empty = True
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), CHUNK):
            empty = False
            yield view[start : start + CHUNK]
    if empty:
        yield b""
