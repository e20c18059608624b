"""The connection of an open task to the gateway: frames over a WebSocket that is made again when it breaks.

What was queued for a connection that broke is gone. Whoever uses the channel knows what is still to be said
and says it first on the next one (`Peer.greeting`). Few frames are sent at once by whoever has them; a thread
sends the rest together, so that a thousand small calls are a handful of messages.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any, Protocol

import websocket

from skyward.cluster.gateway import Gateway
from skyward.errors import SkywardError
from skyward.wire.errors import FrameError
from skyward.wire.frames import MAX_BODY, Decoder, Frame, FrameKind, encode

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 45.0
"""The gateway pings every 15 s."""
NOT_UNDERSTOOD = 1008
"""The gateway closes a connection with this code, and says what makes no sense to it."""
BROKEN_SECONDS = 45.0
"""Less than the operator waits for a client that is away."""
HELD_SECONDS = 30.0
"""A connection that held so long was well, even if nobody had anything to say."""
_GATHER_SECONDS = 0.0005
_PAUSES = (0.05, 0.1, 0.2, 0.3)

log = logging.getLogger("skyward.channel")


class Peer(Protocol):
    """Who uses a channel. All of it is called from the channel's threads."""

    def greeting(self) -> Iterable[Frame]:
        """What a new connection begins with; what is sent after this call follows it."""

    def receive(self, frame: Frame) -> None:
        """A frame came."""

    def received(self) -> None:
        """All frames of a message came."""

    def refused(self, words: str) -> None:
        """The gateway turns this client away for good."""

    def broken(self, words: str) -> bool:
        """Nothing comes through, over one connection after the other; whether to give up."""


class Channel:
    """`start` it once; `close` it when everything was said."""

    def __init__(self, gateway: Gateway, where: str, peer: Peer) -> None:
        self._gateway = gateway
        self._where = where
        self._peer = peer
        self._socket: websocket.WebSocket | None = None
        self._out: list[bytes] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._breaks = _Breaks()
        self.connections = 0
        """How many there have been."""

    def start(self) -> None:
        """Connect, and stay connected."""
        for run, name in ((self._run, "skyward-session"), (self._send_waiting, "skyward-session-out")):
            threading.Thread(target=run, name=name, daemon=True).start()

    def send(self, frames: Iterable[Frame], *, at_once: bool) -> None:
        """Send frames; without `at_once` together with those of the next moment."""
        data = [encode(frame) for frame in frames]
        with self._lock:
            self._out += data
        if at_once:
            self._flush()
        else:
            self._wake.set()

    def cut(self) -> None:
        """Break the connection; another one is made at once."""
        self._abort(self._socket)

    def close(self) -> None:
        """Let go of the connection; what is queued is not sent any more."""
        self._closed.set()
        self._wake.set()
        self._abort(self._socket)

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                socket = self._connect()
            except (SkywardError, OSError, websocket.WebSocketException) as error:
                if isinstance(error, websocket.WebSocketBadStatusException) and error.status_code in (
                    401,
                    403,
                    404,
                    409,
                ):
                    self._peer.refused(_words(error))
                    return
                log.debug("no session: %s", error)
                if self._breaks.is_open and self._breaks.ended(
                    str(error) or type(error).__name__, self._peer
                ):
                    return
                self._gateway.forget_address()
                self._closed.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            except RuntimeError:  # the session's client was closed, and this channel with it
                if self._closed.is_set():
                    return
                raise
            failures, problem = 0, "it was closed"
            try:
                if words := self._read(socket):
                    self._peer.refused(words)
                    return
            except (OSError, websocket.WebSocketException, FrameError) as error:
                log.debug("the session broke: %s", error)
                problem = str(error) or type(error).__name__
            finally:
                self._abort(socket)
                _close(socket)
            if not self._closed.is_set() and self._breaks.ended(problem, self._peer):
                return
            self._closed.wait(_PAUSES[0])

    def _connect(self) -> websocket.WebSocket:
        url, headers, route = self._gateway.place(self._where)
        socket: websocket.WebSocket = websocket.create_connection(
            url.replace("http", "ws", 1),
            header=[f"{name}: {value}" for name, value in headers.items()],
            timeout=CONNECT_SECONDS,
            enable_multithread=True,
            socket=route.socket(CONNECT_SECONDS),
        )
        socket.settimeout(SILENCE_SECONDS)
        self._breaks.begin()
        try:
            self._greet(socket)
        except BaseException:
            _close(socket)
            raise
        self._flush()
        if self._closed.is_set():
            self._abort(socket)
        return socket

    def _greet(self, socket: websocket.WebSocket) -> None:
        with self._sending:
            # Nothing may overtake the greeting, and what was queued before is part of it.
            with self._lock:
                self._out = []
            greeting = [encode(frame) for frame in self._peer.greeting()]
            for message in _messages(greeting):
                socket.send_binary(message)
            self._socket = socket
            self.connections += 1

    def _read(self, socket: websocket.WebSocket) -> str:
        """Read until the connection ends. Returns what the gateway does not understand, if that is why: it
        would not understand it on another connection either."""
        decoder = Decoder()
        while not self._closed.is_set():
            code, data = socket.recv_data()
            if code == websocket.ABNF.OPCODE_CLOSE and data[:2] == NOT_UNDERSTOOD.to_bytes(2):
                return data[2:].decode(errors="replace") or "it does not understand this client"
            if code != websocket.ABNF.OPCODE_BINARY:
                return ""
            for frame in decoder.feed(data):
                if frame.kind is not FrameKind.WELCOME:  # which comes over every connection
                    self._breaks.heard()
                self._peer.receive(frame)
            self._peer.received()
        return ""

    def _send_waiting(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            time.sleep(_GATHER_SECONDS)
            self._flush()

    def _flush(self) -> None:
        """Send what is queued, unless another thread is about to: that one sends it as well."""
        while self._out and self._sending.acquire(blocking=False):
            try:
                with self._lock:
                    batch, self._out = self._out, []
                socket = self._socket
                if socket is None:
                    continue  # the next greeting says it
                try:
                    for message in _messages(batch):
                        socket.send_binary(message)
                except (OSError, websocket.WebSocketException):
                    self._abort(socket)
            finally:
                self._sending.release()

    def _abort(self, socket: websocket.WebSocket | None) -> None:
        """Break a connection; the thread that reads it wakes up and closes it."""
        if socket is None:
            return
        if self._socket is socket:
            self._socket = None
        raw: Any = socket.sock
        if raw is not None:
            with suppress(OSError):
                raw.shutdown(SHUT_RDWR)


class _Breaks:
    """Connections in a row over which nothing came through, though each of them was made."""

    def __init__(self) -> None:
        self.is_open = False
        """A connection was made and has not ended."""
        self._count = 0
        self._well = self._begun = time.monotonic()
        self._is_heard = False

    def begin(self) -> None:
        """A connection was made."""
        self.is_open, self._is_heard, self._begun = True, False, time.monotonic()

    def heard(self) -> None:
        """Something came over it."""
        self._is_heard = True

    def ended(self, problem: str, peer: Peer) -> bool:
        """It broke; whether its user gives up."""
        self.is_open, now = False, time.monotonic()
        if self._is_heard or now - self._begun >= HELD_SECONDS:
            self._well, self._count = now, 0
            return False
        self._count += 1
        words = f"{self._count} connections in a row broke before anything came through; the last: {problem}"
        return now - self._well > BROKEN_SECONDS and peer.broken(words)


def _words(error: websocket.WebSocketBadStatusException) -> str:
    body = (error.resp_body or b"").decode(errors="replace").strip()
    with suppress(ValueError, KeyError, TypeError):
        body = json.loads(body)["message"]  # the API server's; the gateway speaks in plain sentences
    return f"{body[:300]} (HTTP {error.status_code})" if body else f"HTTP {error.status_code}"


def _close(socket: websocket.WebSocket) -> None:
    with suppress(OSError):
        socket.shutdown()  # type: ignore[no-untyped-call]


def _messages(frames: list[bytes]) -> Iterable[bytes]:
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        if batch and size + len(frame) > MAX_BODY:
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(frame)
        size += len(frame)
    if batch:
        yield b"".join(batch)
