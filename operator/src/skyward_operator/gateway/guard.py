"""Stands between a connection and the HTTP server, and ends what takes a place and does not use it.

aiohttp bounds the size of a header, and nothing here parses HTTP: it is enough to know when bytes come, when
a handler begins and ends (the middleware says so), and when the client takes nothing of what is sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from skyward_operator.gateway.access import PROVED, TICKET_HEADER, hash_ticket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from skyward_operator.gateway.connections import Connections

    type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard(asyncio.Protocol):
    """One connection. Implements `connections.Connection`."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections, guards: Guards) -> None:
        self.address = ""
        self._inner = inner
        self._connections = connections
        self._guards = guards
        self._bounds = connections.bounds
        self._transport: asyncio.Transport | None = None
        self._requests = 0
        self._is_reading_head = False
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    # What Connections asks

    @property
    def is_idle(self) -> bool:
        """No request is under way."""
        return not self._requests

    def end(self) -> None:
        """Break the connection."""
        if self._transport is not None:
            self._transport.abort()

    # What the middleware tells

    def begin(self) -> None:
        """The header of a request is complete."""
        self._requests += 1
        self._is_reading_head = False
        self._wait(None, "")

    def finish(self) -> None:
        """The handler of a request has returned."""
        self._requests -= 1
        if not self._requests:
            self._wait(self._bounds.idle_seconds, "idle")

    def prove(self) -> None:
        """A ticket was shown that opens something."""
        self._connections.proved(self)

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._guards.by_transport[transport] = self
        self._inner.connection_made(transport)
        if not self._connections.came(self):
            self.end()
            return
        self._is_reading_head = True
        self._wait(self._bounds.head_seconds, "slow-header")

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None, "")
        self._takes_again()
        self._connections.left(self)
        self._guards.by_transport.pop(self._transport, None)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._requests and not self._is_reading_head:
            self._is_reading_head = True
            self._wait(self._bounds.head_seconds, "slow-header")
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        loop = asyncio.get_running_loop()
        self._stall = loop.call_later(self._bounds.stall_seconds, self._too_slow, "slow-reader")
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._takes_again()
        self._inner.resume_writing()

    def _takes_again(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _wait(self, seconds: float | None, cause: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._too_slow, cause)

    def _too_slow(self, cause: str) -> None:
        if cause != "idle":
            self._connections.ended_by(cause)
        self.end()


_GUARD: Final = web.RequestKey("guard", Guard)


class Guards:
    """Puts a guard before each connection of a server, and tells it of requests."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.by_transport: dict[Any, Guard] = {}

    def before(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """A factory of guarded connections."""
        return lambda: Guard(factory(), self.connections, self)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around each handler: 429 for a ticket with too many requests under way."""
        guard = self.by_transport.get(request.transport)
        if guard is None:
            return await handler(request)
        ticket = hash_ticket(request.headers.get(TICKET_HEADER, ""))
        guard.begin()
        try:
            if not self.connections.begin(ticket):
                raise web.HTTPTooManyRequests(
                    text=f"this ticket has {self.connections.bounds.requests_per_ticket} requests under way; "
                    "try again when one has ended",
                    headers={"Retry-After": "1"},
                )
            request[_GUARD] = guard
            request[PROVED] = guard.prove
            try:
                return await handler(request)
            finally:
                self.connections.finish(ticket)
        finally:
            guard.finish()


class GuardedFile(web.FileResponse):
    """A file that is sent after its handler has returned: until then its request is under way."""

    SLOWEST_BYTES_PER_SECOND: Final = 16 * 1024
    PATIENCE_SECONDS: Final = 60.0

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Send it, for as long as the client takes it at a rate that is worth a connection."""
        guard = request.get(_GUARD)
        if guard is None:
            return await super().prepare(request)
        size = self._path.stat().st_size
        guard.begin()
        try:
            async with asyncio.timeout(self.PATIENCE_SECONDS + size / self.SLOWEST_BYTES_PER_SECOND):
                return await super().prepare(request)
        except TimeoutError:
            guard.end()
            raise ConnectionResetError("the client takes the file too slowly") from None
        finally:
            guard.finish()
