"""Large results on their way from one agent to disk: announced, fetched, written by a thread, handed on.

A result is fetched when it is announced, a few at a time. What arrived stays when the link breaks, and the
next link goes on behind it. Only a few pieces wait for the disk: then the link stops reading, and with it the
agent stops sending. Where the disk takes nothing, the result stays with the agent and is fetched again until
it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from skyward.wire.digest import is_digest
from skyward.wire.envelopes import ErrorInfo, FailureReason
from skyward_operator.nodes.received import Part, Received

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

AT_ONCE: Final = 4
"""Fetches that are under way together: enough that none waits for a round trip."""
HIGH_WATER: Final = 4 * 1024 * 1024
LOW_WATER: Final = 1024 * 1024
RETRY_SECONDS: Final = 2.0
TRIES: Final = 3
"""How often a result is fetched whose bytes do not have its digest."""


class Line(Protocol):
    """The link, as far as this module uses it."""

    def fetch(self, attempt: str, offset: int, fetch: int) -> None:
        """Have the agent send a result's bytes from `offset` on."""
        ...

    def pause_reading(self) -> None:
        """Take nothing from the agent for now."""
        ...

    def resume_reading(self) -> None:
        """Take what comes."""
        ...

    def close(self, reason: str = ...) -> None:
        """Let go of the channel."""
        ...


class Taker(Protocol):
    """Who wants the results."""

    def arrived(self, header: Mapping[str, Any], body: Received | bytes) -> None:
        """A whole result, or the word that it cannot be had."""
        ...

    def stalled(self, attempt: str, trouble: str | None) -> None:
        """Why a result does not come although its call has ended; None when it comes again."""
        ...


@dataclass(slots=True, eq=False)
class _Fetch:
    """One announced result."""

    header: Mapping[str, Any]
    part: Part
    number: int = 0
    """The FETCH whose pieces count; 0 while none is under way."""
    taken_in: int = 0
    """Bytes that came, written or not."""
    tries: int = 0
    stalled: bool = False
    writing: bool = False
    """A thread has the file now."""
    pieces: list[bytes] = field(default_factory=list)

    @property
    def attempt(self) -> str:
        return str(self.header["attempt"])


class Collector:
    """The large results of one agent, over all its links."""

    def __init__(self, folder: Path, taker: Taker) -> None:
        self._folder = folder
        self._taker = taker
        self._line: Line | None = None
        self._known: dict[str, _Fetch] = {}
        self._queue: deque[_Fetch] = deque()
        self._asked: set[str] = set()
        self._number = 0
        self._waiting = 0
        self._paused = False
        self._writer: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    def attach(self, line: Line, held: Collection[str]) -> None:
        """A link is there, to an agent that holds these results; it announces them next."""
        self._line = line
        for attempt in [attempt for attempt in self._known if attempt not in held]:
            self._forget(self._known[attempt])

    def detach(self) -> None:
        """The link is gone. What arrived stays; the rest is announced again."""
        self._line, self._paused = None, False
        self._queue.clear()
        self._asked.clear()
        for fetch in self._known.values():
            fetch.number = 0

    def announce(self, header: Mapping[str, Any]) -> None:
        """The agent has this result."""
        attempt, size = str(header["attempt"]), int(header["size"])
        fetch = self._known.get(attempt)
        if fetch is not None and fetch.header.get("digest") != header.get("digest"):
            self._forget(fetch)
            fetch = None
        if fetch is None:
            self._number += 1
            fetch = _Fetch(header, Part(self._folder / f"{self._number}.part", size))
            self._known[attempt] = fetch
        if fetch.number == 0 and fetch not in self._queue:
            self._queue.append(fetch)
            self._ask()

    def piece(self, header: Mapping[str, Any], body: bytes) -> None:
        """Some bytes of a result."""
        fetch = self._known.get(str(header["attempt"]))
        if fetch is None or not fetch.number or header["fetch"] != fetch.number:
            return  # of a fetch that was given up
        if header["offset"] != fetch.taken_in or fetch.taken_in + len(body) > fetch.part.size:
            if self._line is not None:
                self._line.close(f"the pieces of the result of {fetch.attempt} do not fit together")
            return
        fetch.pieces.append(body)
        fetch.taken_in += len(body)
        self._waiting += len(body)
        if self._waiting > HIGH_WATER and not self._paused and self._line is not None:
            self._paused = True
            self._line.pause_reading()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    def forget(self, attempt: str) -> None:
        """Nobody wants this result, or another word on it has come."""
        if (fetch := self._known.get(attempt)) is not None:
            self._forget(fetch)
            self._ask()

    async def aclose(self) -> None:
        """Drop what is not whole. The agent still has it."""
        self.detach()
        for timer in self._timers:
            timer.cancel()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        for fetch in self._known.values():
            await asyncio.to_thread(fetch.part.drop)
        self._known.clear()

    def _ask(self) -> None:
        while self._queue and self._line is not None and len(self._asked) < AT_ONCE:
            fetch = self._queue.popleft()
            self._number += 1
            fetch.number = self._number
            self._asked.add(fetch.attempt)
            self._line.fetch(fetch.attempt, fetch.taken_in, fetch.number)

    async def _write(self) -> None:
        """Write until nothing waits. Whole results are handed on, and failed ones fetched again later."""
        try:
            while busy := [fetch for fetch in self._known.values() if fetch.pieces]:
                for fetch in busy:
                    await self._write_some(fetch)
        finally:
            self._writer = None

    async def _write_some(self, fetch: _Fetch) -> None:
        pieces, fetch.pieces = fetch.pieces, []
        size = sum(map(len, pieces))
        fetch.writing = True
        job = asyncio.ensure_future(asyncio.to_thread(fetch.part.append, pieces))
        trouble: OSError | None = None
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            # A thread cannot be interrupted, and it holds the file: it is a few megabytes away from its end.
            await asyncio.wait([job])
            raise
        except OSError as error:
            trouble = error
        finally:
            fetch.writing = False
            self._waiting -= size
        if trouble is not None or self._known.get(fetch.attempt) is not fetch:
            await asyncio.to_thread(fetch.part.drop)
        if trouble is not None:
            self._failed(fetch, trouble)
        elif self._known.get(fetch.attempt) is fetch:
            self._written(fetch)
        self._make_room()

    def _make_room(self) -> None:
        if self._paused and self._waiting < LOW_WATER and self._line is not None:
            self._paused = False
            self._line.resume_reading()

    def _written(self, fetch: _Fetch) -> None:
        if fetch.stalled:
            fetch.stalled = False
            self._taker.stalled(fetch.attempt, None)
        if fetch.part.written < fetch.part.size:
            return
        self._settle(fetch)
        received = fetch.part.finish()
        wanted = str(fetch.header.get("digest"))
        if not is_digest(wanted) or received.digest == wanted:
            self._taker.arrived(fetch.header, received)
            return
        drop(received)
        self._damaged(fetch, received.digest)

    def _damaged(self, fetch: _Fetch, digest: str) -> None:
        tries = fetch.tries + 1
        logger.error("the result of %s came with digest %s (try %d)", fetch.attempt, digest, tries)
        if tries >= TRIES:
            text = f"the result has another SHA-256 than the node announced, {tries} times: {digest}"
            self._taker.arrived(_lost(fetch.header, text), b"")
            return
        self.announce(fetch.header)
        self._known[fetch.attempt].tries = tries

    def _failed(self, fetch: _Fetch, error: OSError) -> None:
        """The disk does not take it: leave it with the agent and try again in a moment."""
        trouble = f"the result cannot be stored: {error.strerror or error}; it is kept on the node meanwhile"
        logger.error("%s: %s", fetch.attempt, trouble)
        wanted = self._known.get(fetch.attempt) is fetch
        self._settle(fetch)
        if not wanted or self._line is None:
            return
        self._line.fetch(fetch.attempt, fetch.part.size, 0)  # nothing more of it for now
        self._taker.stalled(fetch.attempt, trouble)
        line, timers = self._line, self._timers

        def again() -> None:
            timers.discard(timer)
            if self._line is line:
                self.announce(fetch.header)
                self._known[fetch.attempt].stalled = True

        timer = asyncio.get_running_loop().call_later(RETRY_SECONDS, again)
        timers.add(timer)

    def _settle(self, fetch: _Fetch) -> None:
        """This fetch is over, and another may begin."""
        self._waiting -= sum(map(len, fetch.pieces))
        fetch.pieces = []
        fetch.number = 0
        if self._known.get(fetch.attempt) is fetch:
            del self._known[fetch.attempt]
            self._asked.discard(fetch.attempt)
        if fetch in self._queue:
            self._queue.remove(fetch)
        self._make_room()
        self._ask()

    def _forget(self, fetch: _Fetch) -> None:
        self._settle(fetch)
        if not fetch.writing:  # else it is dropped when the thread is done with it
            drop(fetch.part)


def drop(file: Part | Received) -> None:
    """Remove a file without waiting for it: a large one takes a while."""
    asyncio.get_running_loop().run_in_executor(None, file.drop)


def _lost(header: Mapping[str, Any], text: str) -> dict[str, Any]:
    error = ErrorInfo("ResultLost", text, kind="System", reason=FailureReason.INTERNAL_ERROR)
    times = {key: header[key] for key in ("attempt", "started", "duration") if key in header}
    return {**times, "ok": False, "size": 0, "chunked": False, "error": error.to_json()}
