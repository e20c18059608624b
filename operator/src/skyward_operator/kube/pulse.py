"""Signs of life of the watches, taken from the bytes that arrive on them.

The API server sends a bookmark on an idle watch about once a minute. kopf keeps bookmarks to itself,
so they are counted one layer below: as bytes of the response that the watch reads. A watch that is
half open, abandoned, or read by nobody (then the flow control stops it) grows old here, and a growing
age is what restarts the intake. It needs no sentinel object and not a single write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiohttp

    from skyward_operator.engine.clock import Clock


@dataclass(slots=True)
class _Watch:
    alive: float
    response: aiohttp.ClientResponse | None = None
    received: int = 0


class Pulse:
    """A middleware for the session that watches use. `paths` are the collections that must be watched."""

    def __init__(self, paths: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._watches = {path: _Watch(clock.monotonic()) for path in paths}

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request; note when it begins or continues a watch."""
        response = await handler(request)
        watch = self._watches.get(request.url.path)
        if watch is not None and response.status < 400:
            watch.alive = self._clock.monotonic()
            if "watch" in request.url.query:
                watch.response, watch.received = response, 0
        return response

    def age(self) -> float:
        """Seconds since the last sign of life of that watch which has been silent longest."""
        now = self._clock.monotonic()
        for watch in self._watches.values():
            received = watch.response.content.total_bytes if watch.response is not None else 0
            if received != watch.received:
                watch.received, watch.alive = received, now
        return max((now - watch.alive for watch in self._watches.values()), default=0.0)

    def cut(self) -> None:
        """End all watches at once, without waiting for the server to agree to a TLS shutdown."""
        for watch in self._watches.values():
            connection = watch.response.connection if watch.response is not None else None
            if connection is not None and connection.transport is not None:
                connection.transport.abort()

    def reset(self) -> None:
        """The watches are being started again: give them time."""
        for watch in self._watches.values():
            watch.alive, watch.response, watch.received = self._clock.monotonic(), None, 0
