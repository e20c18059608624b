"""The session of an open task: frames of its client over a WebSocket, and the outcomes back.

A message holds any number of whole frames: what is to be said within a turn of the event loop, or while an
earlier message is on its way, leaves together. Reading never waits for writing, so neither side can block
the other. Nothing of a session outlives it: its client comes back and says what it still waits for.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import WSMsgType, web

from skyward.wire.envelopes import PROTOCOL
from skyward.wire.errors import FrameError
from skyward.wire.frames import CHUNK, MAX_BODY, Decoder, Frame, FrameKind, encode
from skyward_operator.tasks.reception import MALFORMED

if TYPE_CHECKING:
    from skyward.wire.outcomes import Outcome
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.reception import Reception

logger = logging.getLogger(__name__)

HELLO_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 15.0
SEND_SECONDS: Final = 60.0
LARGEST_MESSAGE: Final = 16 * 1024 * 1024


class Session:
    """One connected client. Implements `tasks.open.Caller`."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._frames: list[bytes] = []
        self._wake = asyncio.Event()
        self._ending: tuple[int, str] | None = None

    def send(self, frame: Frame) -> None:
        """Send a frame with the others of this turn."""
        self._frames.append(encode(frame))
        self._wake.set()

    def outcome(self, outcome: Outcome) -> None:
        """Tell how a call ended; a large body follows in pieces."""
        body = memoryview(outcome.body)
        chunked = body.nbytes > MAX_BODY
        header = {
            "index": outcome.index,
            "ok": outcome.ok,
            "node": outcome.node,
            "rank": outcome.rank,
            "attempt": outcome.attempt,
            "size": body.nbytes,
            "chunked": chunked,
        }
        if outcome.error is not None:
            header["error"] = outcome.error.to_json()
        self.send(Frame(FrameKind.RESULT, header, b"" if chunked else body))
        for start in range(0, body.nbytes if chunked else 0, CHUNK):
            place = {"index": outcome.index, "offset": start}
            self.send(Frame(FrameKind.RESULT_CHUNK, place, body[start : start + CHUNK]))

    def end(self, code: int, words: str) -> None:
        """Close the connection once everything was sent."""
        self._ending = self._ending or (code, words)
        self._wake.set()

    async def write(self) -> None:
        """Send what there is to be sent, until the end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            frames, self._frames = self._frames, []
            for message in _messages(frames):
                async with asyncio.timeout(SEND_SECONDS):
                    await self._socket.send_bytes(message)
            if self._ending is not None and not self._frames:
                code, words = self._ending
                async with asyncio.timeout(SEND_SECONDS):
                    await self._socket.close(code=code, message=words.encode()[:120])
                return


async def serve(request: web.Request, live: LiveTask, reception: Reception) -> web.WebSocketResponse:
    """Serve the client of an open task until one of them leaves."""
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_SECONDS, max_msg_size=LARGEST_MESSAGE, compress=False, timeout=5.0
    )
    await socket.prepare(request)
    session = Session(socket)
    writing = asyncio.create_task(session.write(), name=f"session of {live.work.name}")
    # A client that takes nothing is let go: its reader would otherwise go on for ever.
    writing.add_done_callback(lambda task: _let_go(task, request))
    try:
        await _read(socket, session, live, reception)
    finally:
        reception.detach(live, session)
        session.end(1000, "")
        with suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(5):
                await writing
    return socket


async def _read(
    socket: web.WebSocketResponse, session: Session, live: LiveTask, reception: Reception
) -> None:
    decoder, greeted = Decoder(), False
    while True:
        try:
            async with asyncio.timeout(None if greeted else HELLO_SECONDS):
                message = await socket.receive()
        except TimeoutError:
            session.end(MALFORMED, "no HELLO came")
            return
        if message.type is not WSMsgType.BINARY:
            return
        try:
            for frame in decoder.feed(message.data):
                if greeted:
                    reception.receive(live, frame)
                else:
                    _greet(session, live, reception, frame)
                    greeted = True
        except (FrameError, KeyError, TypeError, ValueError, AttributeError) as error:
            label = live.work.label
            logger.warning("the client of task %s makes no sense: %r", label, error, extra={"object": label})
            session.end(MALFORMED, f"a frame makes no sense: {error!r}")
            return
        reception.heard(live)


def _greet(session: Session, live: LiveTask, reception: Reception, frame: Frame) -> None:
    if frame.kind is not FrameKind.HELLO:
        raise ValueError(f"{frame.kind.name} before HELLO")
    if frame.header["protocol"] != PROTOCOL:
        raise ValueError(f"protocol {frame.header['protocol']!r}; this operator speaks {PROTOCOL}")
    reception.attach(live, session, frame.header)


def _messages(frames: list[bytes]) -> list[bytes]:
    """The frames in few messages, each of them small enough."""
    messages: list[bytes] = []
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        if batch and size + len(frame) > MAX_BODY:
            messages.append(b"".join(batch))
            batch, size = [], 0
        batch.append(frame)
        size += len(frame)
    if batch:
        messages.append(b"".join(batch))
    return messages


def _let_go(task: asyncio.Task[None], request: web.Request) -> None:
    if not task.cancelled() and task.exception() is not None and request.transport is not None:
        request.transport.abort()
