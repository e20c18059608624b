"""The link: frames to and from one agent, over one channel of the node's SSH connection.

The channel leads to the agent's Unix socket. Frames that come in are handed on at once, on the event loop;
those that go out leave through `outbox`.

A link lives as long as its connection and never repairs itself: what was lost with it is known after the next
WELCOME, which says what the agent holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import asyncssh

from skyward.contract.meta import clip
from skyward.wire import printed
from skyward.wire.envelopes import BLOB_REFUSED, ILLNESS, INTERRUPTION, PROTOCOL, RefusalReason
from skyward.wire.errors import FrameError
from skyward.wire.frames import CHUNK, MAX_BODY, Decoder, Frame, FrameKind, encode
from skyward_operator.nodes.checks import check
from skyward_operator.nodes.outbox import Outbox
from skyward_operator.nodes.ssh import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from skyward.contract.pool import Worker
    from skyward_operator.nodes.checkup import Checkup
    from skyward_operator.providers.contract import Metadata

logger = logging.getLogger(__name__)

PING_SECONDS = 5.0
SILENCE_SECONDS = 15.0
WELCOME_SECONDS = 10.0
SHOWN = 700
"""Characters of what an agent says of its node that people are shown."""
ACK_SECONDS = 0.002
"""How long acknowledgements are collected: nobody waits for one, and each frame costs the agent a write."""


class LinkClosed(ConnectionError):
    """The channel to the agent is gone; the message says why."""


class Inbox(Protocol):
    """Who gets what the agent says."""

    def started(self, header: Mapping[str, Any]) -> None:
        """A STARTED frame."""
        ...

    def log(self, header: Mapping[str, Any], body: bytes) -> None:
        """A LOG frame."""
        ...

    def result(self, header: Mapping[str, Any], body: bytes) -> None:
        """A whole result, or a refusal."""
        ...

    def announced(self, header: Mapping[str, Any]) -> None:
        """The agent has a large result; `fetch` gets its bytes."""
        ...

    def piece(self, header: Mapping[str, Any], body: bytes) -> None:
        """Some bytes of a large result."""
        ...

    def streamed(self, frame: Frame) -> None:
        """An ITEM or NEED frame."""
        ...

    def heard(self) -> None:
        """The agent gave a sign of life."""
        ...

    def noticed(self, left: float) -> None:
        """The machine is taken back in so many seconds."""
        ...

    def fell_ill(self, ill: str) -> None:
        """The node failed its health check for this reason; empty: it is well again."""
        ...


class AgentLink(asyncssh.SSHUNIXSession[bytes]):
    """One channel to one agent. Implements `fleet.Link`."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._decoder = Decoder()
        self._channel: asyncssh.SSHUNIXChannel[bytes] | None = None
        self._functions: set[str] = set()
        self._blobs: set[str] = set()
        self._outbox = Outbox(broken=self.close, short=self._blobs.discard)
        self._acknowledged: list[str] = []
        self._reading = True
        self._heard = time.monotonic()
        self.latency: float | None = None
        """Seconds of the last round trip."""
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the reason, once the channel is gone."""
        self._welcome: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

    # what tasks ask for

    def ensure_function(self, digest: str, data: bytes) -> None:
        """Have the agent know this function, once per connection."""
        if digest in self._functions or digest in self._blobs:
            return
        if len(data) > MAX_BODY:
            self.send_blob(digest, [data], len(data))
            return
        self._functions.add(digest)
        self._send(FrameKind.FUNCTION, {"digest": digest}, data)

    def send_call(self, header: Mapping[str, Any], args: bytes | None) -> None:
        """Have the agent run a call. Large arguments go ahead of it in chunks."""
        header, body = dict(header), args or b""
        if len(body) > CHUNK:
            header["args"] = hashlib.sha256(body).hexdigest()
            self.send_blob(header["args"], [body], len(body))
            body = b""
        needs = {str(header[name]) for name in ("args", "function") if header.get(name)}
        needs.update(header.get("blobs", ()))
        frame = encode(Frame(FrameKind.CALL, header, body))
        self._outbox.send_after(needs, frame)

    def send_blob(self, digest: str, chunks: Iterable[bytes], size: int) -> None:
        """Store bytes at the agent, read lazily; calls sent later that name the digest come after it."""
        if digest in self._blobs:
            return
        self._blobs.add(digest)
        self._outbox.transfer(digest, chunks, size)

    def cancel(self, attempt: str, grace: float) -> None:
        """Stop an attempt, with force after `grace` seconds."""
        self._send(FrameKind.CANCEL, {"attempt": attempt, "grace": grace})

    def recall(self, attempt: str) -> None:
        """Have those calls of a slice come back that have not begun; `attempt` is any of its calls."""
        self._send(FrameKind.CANCEL, {"attempt": attempt, "rest": True})

    def limit(self, attempt: str, timeout: float | None) -> None:
        """Let an attempt run so long from its start; `attempt` is any call of a slice."""
        self._send(FrameKind.LIMIT, {"attempt": attempt, "timeout": timeout})

    def ack(self, attempts: Sequence[str]) -> None:
        """Say that these results are safe here, together with others of the moment."""
        if attempts and not self._acknowledged:
            asyncio.get_running_loop().call_later(ACK_SECONDS, self._send_acknowledged)
        self._acknowledged += attempts

    def logged(self, attempts: Mapping[str, int]) -> None:
        """Say that the output of these attempts is on disk here up to that byte."""
        self._send(FrameKind.LOGGED, {"attempts": dict(attempts)})

    def pass_on(self, frame: Frame) -> None:
        """Send a CREDIT or INPUT frame to its call."""
        self._outbox.send(encode(frame))

    def fetch(self, attempt: str, offset: int, fetch: int) -> None:
        """Have the agent send a large result from `offset` on, in pieces that carry this `fetch`."""
        self._send(FrameKind.FETCH, {"attempt": attempt, "offset": offset, "fetch": fetch})

    def pause_reading(self) -> None:
        """Take nothing more from the agent, which then waits once the channel's window is full."""
        self._reading = False
        if self._channel is not None:
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        """Take what comes again."""
        self._reading = True
        self._heard = time.monotonic()
        if self._channel is not None:
            self._channel.resume_reading()

    # what the session asks for

    async def hello(
        self,
        operator: str,
        epoch: int,
        worker: Worker,
        largest_result: int | None = None,
        metadata: Metadata | None = None,
    ) -> Mapping[str, Any]:
        """Take the agent over, have calls fail that return more than so many bytes, and have the machine
        asked whether it will be taken back. Returns its WELCOME; raises LinkClosed."""
        header: dict[str, Any] = {
            "protocol": PROTOCOL,
            "operator": operator,
            "epoch": epoch,
            "slots": worker.concurrency,
            "executor": worker.executor,
        }
        if largest_result is not None:
            header["largest_result"] = largest_result
        if metadata is not None:
            header["metadata"] = asdict(metadata)
        self._send(FrameKind.HELLO, header)
        async with asyncio.timeout(WELCOME_SECONDS):
            awaited: list[asyncio.Future[Any]] = [self._welcome, self.closed]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if not self._welcome.done():
            raise LinkClosed(self.closed.result())
        welcome = self._welcome.result()
        self._functions.update(welcome.get("functions", ()))
        self._blobs.update(welcome.get("blobs", ()))
        return welcome

    def announce(self, reason: str, left: float) -> None:
        """Have calls know that the machine is gone in so many seconds, and why."""
        self._send(FrameKind.LEAVING, {"reason": reason, "left": left})

    def watch_health(self, checks: Checkup) -> None:
        """Have the agent check the node in this way, and in no other."""
        header = {"digest": checks.digest, "checks": checks.checks}
        self._send(FrameKind.WATCH, header, checks.function)

    def stop(self, grace: float) -> None:
        """Have the agent end: at once where nothing runs, after `grace` seconds at the latest."""
        self._send_acknowledged()
        self._send(FrameKind.STOP, {"drain": True, "grace": grace})

    async def watch(self) -> str:
        """Ping the agent until the channel is gone or the agent is silent. Returns why."""
        while not self.closed.done():
            self._send(FrameKind.PING, {"t": time.monotonic()})
            await asyncio.wait([self.closed], timeout=PING_SECONDS)
            silent = time.monotonic() - self._heard
            if self._reading and silent > SILENCE_SECONDS:
                self.close(f"the agent has said nothing for {silent:.0f} s")
        return self.closed.result()

    def close(self, reason: str = "closed") -> None:
        """Let go of the channel."""
        if self._channel is not None:
            self._channel.abort()
        self._end(reason)

    # the channel

    def connection_made(self, chan: asyncssh.SSHUNIXChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan
        self._outbox.attach(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Hand on the frames that are complete."""
        self._heard = time.monotonic()
        try:
            for frame in self._decoder.feed(data):
                if self.closed.done():
                    return
                check(frame)
                self._receive(frame)
        except FrameError as error:
            self.close(f"the agent's frames cannot be read: {error}")

    def eof_received(self) -> bool:
        """The agent closed its side; a half-open channel is of no use."""
        self.close("the agent closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone."""
        self._channel = None
        self._end(str(exc) if exc else "the agent closed the connection")

    def pause_writing(self) -> None:
        """The channel is full."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """The channel has room again."""
        self._outbox.resume()

    def _end(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        self._outbox.detach()

    # in

    def _receive(self, frame: Frame) -> None:
        header, body = frame.header, bytes(frame.body)
        match frame.kind:
            case FrameKind.RESULT:
                self._result(header, body)
            case FrameKind.RESULT_CHUNK:
                self._inbox.piece(header, body)
            case FrameKind.LOG:
                self._inbox.log(header, printed.unpack(header, body))
            case FrameKind.ITEM | FrameKind.NEED:
                self._inbox.streamed(frame)
            case FrameKind.STARTED:
                self._inbox.started(header)
            case FrameKind.PONG:
                self.latency = time.monotonic() - float(header.get("t", 0.0))
                self._inbox.heard()
            case FrameKind.WELCOME:
                if not self._welcome.done():
                    self._welcome.set_result(header)
            case FrameKind.REFUSED:
                self._refused(header)
            case FrameKind.TAKEN:
                self._outbox.taken(header["digest"], header["offset"])
            case FrameKind.NOTICE if header.get("reason") == INTERRUPTION:
                self._inbox.noticed(float(header.get("left") or 0.0))
            case FrameKind.NOTICE if header.get("reason") == ILLNESS:
                self._inbox.fell_ill(clip(header.get("message") or "", SHOWN))
            case FrameKind.NOTICE:
                if header.get("reason") == BLOB_REFUSED:
                    self._outbox.give_up(str(header.get("digest")))
                logger.warning("agent: %s: %s", header.get("reason"), header.get("message"))
            case _:
                logger.warning("agent: a %s frame is not for the operator", frame.kind.name)

    def _result(self, header: Mapping[str, Any], body: bytes) -> None:
        if header.get("chunked"):
            self._inbox.announced(header)
        else:
            self._inbox.result(header, body)

    def _refused(self, header: Mapping[str, Any]) -> None:
        reason = header.get("reason")
        if reason in (RefusalReason.PROTOCOL, RefusalReason.STALE_EPOCH):
            self.close(f"{reason}: {header.get('message', '')}")
            return
        digest = header.get("digest")
        if digest:
            self._functions.discard(str(digest))
            self._blobs.discard(str(digest))
        self._inbox.result({**header, "ok": False, "refused": True}, b"")

    def _send_acknowledged(self) -> None:
        attempts, self._acknowledged = self._acknowledged, []
        if attempts:
            self._send(FrameKind.ACK, {"attempts": attempts})

    def _send(self, kind: FrameKind, header: dict[str, Any], body: bytes = b"") -> None:
        self._outbox.send(encode(Frame(kind, header, body)))


async def open_link(connection: asyncssh.SSHClientConnection, socket: str, inbox: Inbox) -> AgentLink:
    """A channel to the agent's socket. Raises asyncssh.ChannelOpenError where nobody listens."""
    async with asyncio.timeout(WELCOME_SECONDS):
        _, link = await connection.create_unix_connection(lambda: AgentLink(inbox), socket, window=WINDOW)
    if not isinstance(link, AgentLink):
        raise TypeError("the session factory was not used")
    return link
