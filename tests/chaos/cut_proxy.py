"""A TCP proxy that breaks connections at a chosen byte, in the ways in which networks break them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Self

if TYPE_CHECKING:
    from random import Random

type Direction = Literal["up", "down"]
type Kind = Literal["close", "reset", "silence"]

DIRECTIONS: Final[tuple[Direction, ...]] = ("up", "down")
KINDS: Final[tuple[Kind, ...]] = ("close", "reset", "silence")
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Cut:
    """Forward `after` bytes in this direction (`up` is to the server), then break the connection.

    `close` ends both sides orderly, `reset` with RST. `silence` forwards nothing more and closes nothing: so
    looks a machine behind a dead router; the end that connected goes away one day, the other never hears.
    """

    direction: Direction
    after: int
    kind: Kind

    @classmethod
    def random(cls, random: Random, most: int) -> Cut:
        """A cut anywhere up to `most` bytes: each order of magnitude is as likely as any other."""
        kind: Kind = random.choices(KINDS, (5, 5, 2))[0]
        return cls(random.choice(DIRECTIONS), int(most ** random.random()), kind)


@dataclass(eq=False, slots=True)
class _Pipe:
    """One proxied connection."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    cut: Cut | None
    silent: bool = False

    def end(self, *, reset: bool = False) -> None:
        for writer in (self.client, self.server):
            if reset and (link := writer.get_extra_info("socket")) is not None:
                with suppress(OSError):
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort() if reset else writer.close()


@dataclass(eq=False)
class CutProxy:
    """Listens on loopback and forwards to `target`. Each new connection takes the next of `cuts`, if any."""

    target: tuple[str, int]
    cuts: deque[Cut] = field(default_factory=deque)
    made: Counter[str] = field(default_factory=Counter)
    """Cuts that were really made, by kind."""
    connections: int = 0
    _pipes: set[_Pipe] = field(default_factory=set)
    _jobs: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_PIECE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut_now(self, kind: Kind) -> int:
        """Break every connection at this moment. Returns how many there were."""
        pipes = [pipe for pipe in self._pipes if not pipe.silent]
        for pipe in pipes:
            self._break(pipe, kind)
        return len(pipes)

    def release(self) -> None:
        """End the connections that were silenced: their round is over."""
        for pipe in list(self._pipes):
            if pipe.silent:
                pipe.end(reset=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = asyncio.current_task()
        assert job is not None
        self._jobs.add(job)
        self.connections += 1
        try:
            await self._serve(reader, writer)
        finally:
            self._jobs.discard(job)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far, to_server = await asyncio.open_connection(*self.target, limit=_PIECE)
        except OSError:
            return
        pipe = _Pipe(writer, to_server, self.cuts.popleft() if self.cuts else None)
        self._pipes.add(pipe)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(pipe, "up", reader, to_server))
                group.create_task(self._pump(pipe, "down", far, writer))
        finally:
            self._pipes.discard(pipe)
            pipe.end()

    async def _pump(
        self, pipe: _Pipe, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        left = pipe.cut.after if pipe.cut is not None and pipe.cut.direction == direction else None
        with suppress(OSError):
            while piece := await reader.read(_PIECE if left is None else min(_PIECE, left or 1)):
                if pipe.silent:
                    continue  # swallowed: a router that is gone takes what is sent, for a while
                if writer.is_closing():
                    return
                writer.write(piece)
                if left is not None:
                    left -= len(piece)
                    if left <= 0:
                        assert pipe.cut is not None
                        self._break(pipe, pipe.cut.kind)
                        left = None
                await writer.drain()
        if not pipe.silent:
            pipe.end()

    def _break(self, pipe: _Pipe, kind: Kind) -> None:
        self.made[kind] += 1
        if kind == "silence":
            pipe.silent = True
        else:
            pipe.end(reset=kind == "reset")
