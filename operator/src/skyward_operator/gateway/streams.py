"""Output as lines of JSON: what is kept, then what comes, until the reader leaves or the task ends.

An empty line is sent when there is nothing to say, so that both sides notice a dead connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import web

from skyward_operator.gateway.logs import over
from skyward_operator.gateway.merge import Source, merged, timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from skyward_operator.gateway.follower import Follower
    from skyward_operator.gateway.logs import LogBook
    from skyward_operator.gateway.node_output import NodeOutput, PoolNodes

KEEPALIVE_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.5
END: Final = b'{"end":true}\n'
"""The last record of what is followed to its end: without it the reader was let go, and comes back."""


class Lines:
    """A response of JSON lines that is being sent."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response = web.StreamResponse(
            headers={
                "Content-Type": "application/x-ndjson",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )

    async def begin(self) -> None:
        """Send the headers."""
        await self._response.prepare(self._request)

    async def write(self, lines: bytes) -> None:
        """Send lines; waits for the reader."""
        await self._response.write(lines)

    async def write_all(self, pieces: Iterator[bytes]) -> None:
        """Send what is read from disk, a piece at a time."""
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            await self.write(piece)

    async def follow(self, follower: Follower) -> None:
        """Send what a follower gets until it is closed."""
        while True:
            try:
                async with asyncio.timeout(KEEPALIVE_SECONDS):
                    lines = await follower.next()
            except TimeoutError:
                lines = b"\n"
            if lines is None:
                return
            await self.write(lines)

    async def end(self) -> web.StreamResponse:
        """Finish the response; a reader who has left is no error."""
        with contextlib.suppress(ConnectionError):
            await self._response.write_eof()
        return self._response


async def send_output(
    lines: Lines,
    logs: LogBook,
    tasks: Callable[[], Sequence[tuple[str, str]]],
    since: float | None,
    follower: Follower | None,
    *,
    marks: bool = False,
    ended: Callable[[], Sequence[tuple[str, str]]] = list,
) -> None:
    """What was kept of some tasks after `since` (None: nothing), and, with a follower, what comes.

    No line comes twice, and none is left out, for as long as the follower is not behind. With `marks` records
    without text say which tasks had ended, of which nothing more comes, and up to when everything was sent
    before what comes.
    """
    await logs.flush()
    gone = ended()  # first: of a task that ends from here on, the follower is told
    until = logs.follow(follower) if follower is not None else logs.stored
    try:
        if since is not None:
            for namespace, uid in tasks():
                await lines.write_all(logs.read(namespace, uid, since, until))
        if marks:
            await lines.write(_ends(gone) + _mark(until))
        if follower is not None:
            await lines.follow(follower)
    finally:
        if follower is not None:
            logs.unfollow(follower)


async def send_pool_output(
    lines: Lines,
    logs: LogBook,
    nodes: PoolNodes,
    tasks: Callable[[], Sequence[tuple[str, str]]],
    since: float,
    follower: Follower | None,
    goes_on: Callable[[], bool],
    ended: Callable[[], Sequence[tuple[str, str]]],
) -> None:
    """What tasks of a pool printed after `since` and how its nodes were made, by time, and what comes.

    Lines of nodes are sent whole each time: they are few, and whoever comes back knows them by their offset.
    """
    await logs.flush()
    gone = ended()
    until = logs.follow(follower) if follower is not None else logs.stored
    try:
        await lines.write_all(
            await asyncio.to_thread(_sources, logs, nodes, tasks(), since, until, follower is None)
        )
        await lines.write(_ends(gone) + _mark(until))
        if follower is not None:
            await _follow_pool(lines, nodes, follower, goes_on)
    finally:
        if follower is not None:
            logs.unfollow(follower)


def _sources(
    logs: LogBook,
    nodes: PoolNodes,
    tasks: Sequence[tuple[str, str]],
    since: float,
    until: float,
    to_the_end: bool,
) -> Iterator[bytes]:
    """Everything there is of a pool. What nothing was kept of is no source."""
    sources = [Source(node.begins(), partial(node.records, to_the_end=to_the_end)) for node in nodes.find()]
    for namespace, uid in tasks:
        if (begins := logs.begins(namespace, uid)) <= until:
            read = partial(logs.read, namespace, uid, since, until)
            sources.append(Source(max(begins, since), lambda read=read: timed(read())))  # type: ignore[misc]
    return merged(sources)


async def _follow_pool(
    lines: Lines, nodes: PoolNodes, follower: Follower, goes_on: Callable[[], bool]
) -> None:
    """Send what its tasks print and how nodes are made until the pool is gone, or the reader is behind."""
    silent = 0.0
    while goes_on():
        made = await asyncio.to_thread(_news, nodes)
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                printed = await follower.next()
        except TimeoutError:
            printed = b""
        if printed is None:
            return
        silent = 0.0 if made or printed else silent + _LOOK_SECONDS
        if made or printed or silent >= KEEPALIVE_SECONDS:
            await lines.write(made + printed or b"\n")
            silent = 0.0
    if rest := await asyncio.to_thread(_news, nodes) + follower.take():
        await lines.write(rest)


def _news(nodes: PoolNodes) -> bytes:
    return b"".join(_added(node) for node in nodes.find())


def _added(node: NodeOutput, to_the_end: bool = False) -> bytes:
    return b"".join(line for _, line in node.records(to_the_end=to_the_end))


async def send_node_log(
    lines: Lines, node: NodeOutput, goes_on: Callable[[], bool], *, marks: bool = False
) -> None:
    """The log of a node's bootstrap, and then what is added to it while `goes_on`."""
    silent = 0.0
    while True:
        more = goes_on()
        data = await asyncio.to_thread(_added, node, not more)
        if data:
            await lines.write(data)
            silent = 0.0
        if marks:
            await lines.write(_mark(0.0))
            marks = False
        if not more:
            return
        if not data:
            await asyncio.sleep(_LOOK_SECONDS)
            silent += _LOOK_SECONDS
            if silent >= KEEPALIVE_SECONDS:
                await lines.write(b"\n")
                silent = 0.0


def _ends(tasks: Sequence[tuple[str, str]]) -> bytes:
    """Nothing more comes of these tasks."""
    return b"".join(over(namespace, name) for namespace, name in tasks)


def _mark(until: float) -> bytes:
    """Everything that was there before what comes has been sent."""
    return json.dumps({"kept": until}).encode() + b"\n"
