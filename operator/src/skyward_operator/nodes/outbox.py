"""What goes to an agent: control frames of one turn in one write, ahead of bulk in chunks.

Bulk goes while the channel has room, so a control frame waits for a few chunks at most. What must not
overtake a transfer (a call that needs it) waits behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from skyward_operator.nodes.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import asyncssh

    from skyward.wire.digest import BytesLike

PACKET = 32 * 1024
"""asyncssh cuts what is written into packets of this size; writing them so saves it a copy of the rest."""
HIGH_WATER = 1024 * 1024


class Outbox:
    """The sending half of a link. `broken` is called when the channel fails, `short` with the digest of a
    transfer whose bytes ended too early."""

    def __init__(self, broken: Callable[[str], None], short: Callable[[str], None]) -> None:
        self._broken = broken
        self._channel: asyncssh.SSHUNIXChannel[bytes] | None = None
        self._control: deque[bytes] = deque()
        self._transfers = Transfers(self._schedule, short)
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
        if not self._transfers.hold(needs, frame):
            self.send(frame)

    def transfer(self, digest: str, chunks: Iterable[bytes], size: int) -> None:
        """Send large bytes as BLOB frames. They are read in a thread, when there is room for them."""
        self._transfers.begin(digest, chunks, size)

    def taken(self, digest: str, offset: int) -> None:
        """The agent has taken these bytes: more may be sent."""
        self._transfers.taken(digest, offset)

    def give_up(self, digest: str) -> None:
        """The agent does not take these bytes: send nothing more of them."""
        self._transfers.give_up(digest)

    def _schedule(self) -> None:
        if not self._scheduled and self._channel is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._channel is None or self._paused:
            return
        self._control.extend(self._transfers.released())
        if self._control:
            whole = b"".join(self._control)
            self._control.clear()
            self._write(whole)
        if not self._paused:
            for piece in self._transfers.chunk():
                self._write(piece)
            self._control.extend(self._transfers.released())
        if (self._control or self._transfers.is_ready) and not self._paused:
            self._schedule()

    def _write(self, data: BytesLike) -> None:
        view = memoryview(data)
        try:
            for start in range(0, len(view), PACKET):
                if self._channel is not None:
                    self._channel.write(bytes(view[start : start + PACKET]))
        except OSError as error:
            self._broken(f"the channel is broken: {error}")
