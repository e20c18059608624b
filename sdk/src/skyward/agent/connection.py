"""One connection to the agent's Unix socket: bytes to frames, and what asyncio says about it."""

import asyncio
import logging
from typing import Any, Protocol

from skyward.agent.link import Outbox
from skyward.wire.errors import FrameError
from skyward.wire.frames import Decoder, Frame, FrameKind, encode

_RECEIVE = 256 * 1024

log = logging.getLogger("skyward.agent")


class Owner(Protocol):
    """The agent, as its connections know it."""

    connections: set["Connection"]
    outbox: Outbox

    def receive(self, connection: "Connection", frame: Frame) -> None:
        """Act on one frame."""

    def lost(self, connection: "Connection", error: Exception | None) -> None:
        """A connection is over."""


class Connection(asyncio.BufferedProtocol):
    """One connection to the agent's socket, operator or not.

    Buffered, because asyncio otherwise allocates (and the kernel maps) 256 KiB for every small read.
    """

    def __init__(self, agent: "Owner") -> None:
        self._agent = agent
        self._decoder = Decoder()
        self._buffer = memoryview(bytearray(_RECEIVE))
        self.transport: asyncio.Transport
        self.name = "a new connection"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport
        self._agent.connections.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where bytes shall go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes came."""
        try:
            for frame in self._decoder.feed(self._buffer[:nbytes]):
                if self.transport.is_closing():
                    return
                self._agent.receive(self, frame)
        except FrameError as error:
            log.warning("%s is closed: %s", self.name, error)
            self.transport.abort()

    def resume_writing(self) -> None:
        """asyncio: the write buffer has room again."""
        self._agent.outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is over."""
        self._agent.connections.discard(self)
        self._agent.lost(self, exc)

    def reply(self, kind: FrameKind, header: dict[str, Any]) -> None:
        """Answer on this very connection, whoever it is."""
        self.transport.write(encode(Frame(kind, header)))
