"""Takes events off the watches of kopf before kopf sees them.

kopf opens the watches, keeps them open and goes on after each break. What it does for each event after
that (a queue and a task for the object, causes, handlers) costs more than all that the operator does with
it, and nothing of it is used. So the bytes of a watch are read here, one layer below: events go to `take`,
and kopf is told only what it needs to go on: bookmarks, errors, and how far the events were. Its own list
at the beginning of a watch is answered from `listed`, which corrects the store, so nothing is listed twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import aiohttp

    type Take[P] = Callable[[P, dict[str, Any]], str]
    type Listed[P] = Callable[[P], Awaitable[str]]

_CHUNK: Final = 1 << 18
_TOGETHER: Final = 16
"""Events taken in one turn of the loop: others wait some milliseconds at most."""
_TOLD: Final = frozenset({"BOOKMARK", "ERROR"})


class Tap[P]:
    """A middleware for the session of kopf, for these collections by path, each known to us as a place.

    `take` gets each event and answers with its resourceVersion. `listed` makes the store equal to the API
    server and answers with the resourceVersion from which a watch misses nothing.
    """

    def __init__(self, places: Mapping[str, P], take: Take[P], listed: Listed[P]) -> None:
        self._places = places
        self._take = take
        self._listed = listed

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request; where it lists or watches, put ourselves between the answer and kopf."""
        response = await handler(request)
        place = self._places.get(request.url.path)
        if place is not None and response.status < 400:
            watches = "watch" in request.url.query
            tapped = _Watch(response.content, place, self._take) if watches else _List(
                response.content, place, self._listed
            )  # fmt: skip
            response.content = cast("aiohttp.StreamReader", tapped)
        return response


class _Body:
    """Stands before the body of an answer."""

    def __init__(self, body: aiohttp.StreamReader) -> None:
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class _List[P](_Body):
    """What kopf's list becomes: nothing is in it, and the watch begins where our own list was made."""

    def __init__(self, body: aiohttp.StreamReader, place: P, listed: Listed[P]) -> None:
        super().__init__(body)
        self._place = place
        self._listed = listed

    async def read(self) -> bytes:
        """The list for kopf."""
        await self._body.read()
        return orjson.dumps({"metadata": {"resourceVersion": await self._listed(self._place)}, "items": []})


class _Watch[P](_Body):
    """What is left of a watch."""

    def __init__(self, body: aiohttp.StreamReader, place: P, take: Take[P]) -> None:
        super().__init__(body)
        self._place = place
        self._take = take

    async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
        """Lines for kopf, from which it learns that the watch is alive and where to go on after a break."""
        rest = b""
        async for chunk in self._body.iter_chunked(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for first in range(0, len(lines), _TOGETHER):
                if told := self._lines(lines[first : first + _TOGETHER]):
                    yield told
                await asyncio.sleep(0)
        if told := self._lines([rest]):
            yield told

    def _lines(self, lines: list[bytes]) -> bytes:
        """Take the events among these lines; what kopf has to read instead."""
        told, version = [], ""
        for line in filter(None, lines):
            event = orjson.loads(line)
            if event["type"] in _TOLD:
                told.append(line)
                version = ""
            else:
                version = self._take(self._place, event)
        if version:
            bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}
            told.append(orjson.dumps(bookmark))
        return b"".join(line + b"\n" for line in told)
