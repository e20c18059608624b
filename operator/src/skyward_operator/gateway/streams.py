"""Output as lines of JSON: what is kept, then what comes, until the reader leaves or the task ends.

An empty line is sent when there is nothing to say, so that both sides notice a dead connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from skyward_operator.gateway.follower import Follower
    from skyward_operator.gateway.logs import LogBook

KEEPALIVE_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.5
_PIECE: Final = 1 << 16
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
) -> None:
    """What was kept of some tasks after `since` (None: nothing), and, with a follower, what comes.

    No line comes twice, and none is left out, for as long as the follower is not behind. With `marks` a
    record without text says up to when everything was sent before what comes.
    """
    await logs.flush()
    until = logs.follow(follower) if follower is not None else logs.stored
    try:
        if since is not None:
            for namespace, uid in tasks():
                await lines.write_all(logs.read(namespace, uid, since, until))
        if marks:
            await lines.write(json.dumps({"kept": until}).encode() + b"\n")
        if follower is not None:
            await lines.follow(follower)
    finally:
        if follower is not None:
            logs.unfollow(follower)


async def send_node_log(lines: Lines, path: Path, node: str, goes_on: Callable[[], bool]) -> None:
    """The log of a node's bootstrap, and then what is added to it while `goes_on`."""
    offset, silent = 0, 0.0
    while True:
        more = goes_on()
        data, offset = await asyncio.to_thread(_read_lines, path, offset, not more)
        if data:
            await lines.write(b"".join(_node_record(node, line) for line in data.splitlines()))
            silent = 0.0
        elif not more:
            return
        else:
            await asyncio.sleep(_LOOK_SECONDS)
            silent += _LOOK_SECONDS
            if silent >= KEEPALIVE_SECONDS:
                await lines.write(b"\n")
                silent = 0.0


def _read_lines(path: Path, offset: int, to_the_end: bool) -> tuple[str, int]:
    if not path.exists():
        return "", offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(_PIECE)
    if not to_the_end or len(data) == _PIECE:
        data = data[: data.rfind(b"\n") + 1] or (data if len(data) == _PIECE else b"")
    return data.decode("utf-8", "replace"), offset + len(data)


def _node_record(node: str, line: str) -> bytes:
    return json.dumps({"node": node, "stream": "bootstrap", "text": line}).encode() + b"\n"
