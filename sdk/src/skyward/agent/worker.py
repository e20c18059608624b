"""The worker process: it takes calls from the agent one after the other and runs them.

With one thread, calls run in the main thread, as the libraries that people bring expect it, and SIGINT
becomes a KeyboardInterrupt in the running call (never outside of one). With several, each call runs in a
thread of its own and is interrupted by an exception raised in that thread.

The lifeline is a pipe that the agent holds the other end of. When it closes, the agent is dead, and the whole
process group goes: no work runs on that nobody can ever collect. Reasons for stopping come through it too.
"""

import contextlib
import os
import queue
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from skyward.agent.capture import ThreadOutput
from skyward.agent.execute import Execution, Functions
from skyward.agent.runtime import CallContext, running
from skyward.agent.streams import CallStream
from skyward.wire.frames import Decoder, Frame, FrameKind, encode

_RECEIVE = 256 * 1024
_WORD_SECONDS = 0.5
"""How long an interrupt waits for the word that says why; a signal of the call's own making has none."""


class Worker:
    """The loop between the agent's socket and the calls."""

    def __init__(self, connection: socket.socket, spool: Path, threads: int) -> None:
        self._connection = connection
        self._spool = spool
        self._threads = threads
        self._functions = Functions()
        self._sending = threading.Lock()
        self._contexts: dict[str, CallContext] = {}
        self._in_call: dict[str, int] = {}
        self._interrupted: set[str] = set()
        self._told = False
        self._pid = os.getpid()
        self._decoder = Decoder()
        self._streams: dict[str, CallStream] = {}
        self._early: deque[Frame] = deque()
        """Frames for after the call, which came while it was listened to for its streams."""
        self._uninterrupted = False
        self._late = False
        """An interrupt came where it must not, and is due after that."""

    def run(self) -> None:
        """Serve calls until the agent closes the connection."""
        start: Callable[[Frame], None] = self._call_here
        if self._threads > 1:
            ThreadOutput.install(self._send)
            start = self._thread_pool()
        else:
            signal.signal(signal.SIGINT, self._on_interrupt)
        self._send(Frame(FrameKind.WELCOME, {"pid": self._pid}))
        buffer = memoryview(bytearray(_RECEIVE))
        while size := self._connection.recv_into(buffer):
            for frame in self._decoder.feed(buffer[:size]):
                self._receive(frame, start)
                while self._early:
                    self._receive(self._early.popleft(), start)

    def stop_calls(self, reason: str) -> None:
        """Let running calls see in `sky.current().stopping` that they are being ended."""
        for context in list(self._contexts.values()):
            context.stop(reason)
        self._told = True

    def _receive(self, frame: Frame, start: Callable[[Frame], None]) -> None:
        match frame.kind:
            case FrameKind.CALL:
                start(frame)
            case FrameKind.FUNCTION:
                self._functions.put(frame.header, bytes(frame.body))
            case FrameKind.CANCEL:
                self._interrupt_thread(frame.header["attempt"], frame.header["why"])
            case FrameKind.CREDIT | FrameKind.INPUT:
                if (stream := self._streams.get(frame.header["attempt"])) is not None:
                    stream.receive(frame)
            case FrameKind.FLOW:
                ThreadOutput.hold(frame.header["attempt"], frame.header["held"])
            case _:
                raise ValueError(f"a worker does not understand {frame.kind.name}")

    def _thread_pool(self) -> Callable[[Frame], None]:
        calls: queue.SimpleQueue[Frame] = queue.SimpleQueue()

        def serve() -> None:
            while True:
                with contextlib.suppress(KeyboardInterrupt):  # one that came just after its call
                    self._call_here(calls.get())

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in range(self._threads):
            threading.Thread(target=serve, name=f"call-{number}", daemon=True).start()
        return calls.put

    def _call_here(self, frame: Frame) -> None:
        attempt = frame.header["attempt"]
        context = CallContext.from_call(frame.header)
        self._contexts[attempt] = context
        stream = self._stream(frame.header)
        execution = Execution(frame, self._functions, captured=self._threads > 1, stream=stream)
        try:
            with running(context), ThreadOutput.of(attempt), self._listening(stream):
                self._in_call[attempt] = threading.get_ident()
                try:
                    execution.run()
                finally:
                    self._in_call.pop(attempt, None)
        except KeyboardInterrupt as interrupt:  # it fell between the call and its end
            execution.fail(interrupt)
        if os.getpid() != self._pid:
            os._exit(0)  # the call forked, and its child came back here: only the parent answers
        header, body = execution.result(self._spool)
        del self._contexts[attempt]
        self._streams.pop(attempt, None)
        header["interrupted"] = attempt in self._interrupted
        self._interrupted.discard(attempt)
        _flush()
        self._send(Frame(FrameKind.RESULT, header, body))

    def _stream(self, header: dict[str, Any]) -> CallStream | None:
        if not (header.get("stream") or header.get("inputs")):
            return None
        attempt = header["attempt"]
        stream = self._streams[attempt] = CallStream(attempt, self._send_within_call)
        return stream

    @contextlib.contextmanager
    def _listening(self, stream: CallStream | None) -> Iterator[None]:
        """Read what comes for a call that streams, where the thread that reads otherwise is busy with it."""
        if stream is None or self._threads > 1:
            yield
            return
        end, ending = socket.socketpair()
        reader = threading.Thread(target=self._listen, args=(stream, end), name="streams", daemon=True)
        reader.start()
        try:
            yield
        finally:
            ending.close()
            reader.join()
            end.close()

    def _listen(self, stream: CallStream, end: socket.socket) -> None:
        data = b""
        with selectors.DefaultSelector() as selector:
            for each in (self._connection, end):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for frame in self._decoder.feed(data):
                    if frame.kind in (FrameKind.CREDIT, FrameKind.INPUT):
                        stream.receive(frame)
                    else:
                        self._early.append(frame)
                if any(key.fileobj is end for key, _ in selector.select()):
                    return
                data = self._connection.recv(_RECEIVE)
                if not data:
                    return  # whoever reads next sees it as well

    def _send(self, frame: Frame) -> None:
        with self._sending:
            self._connection.sendall(encode(frame))

    def _send_within_call(self, frame: Frame) -> None:
        """Send a whole frame: half of one, before an interrupt, would be the end of this worker."""
        if threading.current_thread() is not threading.main_thread():
            self._send(frame)
            return
        self._uninterrupted = True
        try:
            self._send(frame)
        finally:
            self._uninterrupted = False
        if self._late:
            self._late = False
            raise KeyboardInterrupt

    def _on_interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if self._in_call and self._uninterrupted:
            self._interrupted.update(self._in_call)
            self._late = True
        elif self._in_call:
            self._interrupted.update(self._in_call)
            # the reason comes by another thread, and must be there before the call asks for it; no lock here:
            # this runs between any two instructions
            limit = time.monotonic() + _WORD_SECONDS
            while not self._told and time.monotonic() < limit:
                time.sleep(0.001)
            raise KeyboardInterrupt

    def _interrupt_thread(self, attempt: str, why: str) -> None:
        import ctypes

        context = self._contexts.get(attempt)
        thread = self._in_call.get(attempt)
        if context is not None and thread is not None:
            context.stop(why)
            self._interrupted.add(attempt)
            raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
            raise_in(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
            if (stream := self._streams.get(attempt)) is not None:
                stream.wake()


def _flush() -> None:
    """What the call printed must be in the pipes before its result is sent."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            if stream is not None:
                stream.flush()
    if "ctypes" in sys.modules:  # loaded by every library that could have printed from C
        with contextlib.suppress(Exception):
            sys.modules["ctypes"].CDLL(None).fflush(None)


def _watch(lifeline: int, worker: Worker) -> None:
    while reason := os.read(lifeline, 256):
        worker.stop_calls(reason.decode().strip())
    os.killpg(0, signal.SIGKILL)


def _standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=False)


def main(arguments: list[str]) -> None:
    """`socket-fd lifeline-fd spool-folder threads`, as `skyward.agent.process` starts it."""
    connection = socket.socket(fileno=int(arguments[0]))
    lifeline = int(arguments[1])
    for descriptor in (connection.fileno(), lifeline):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _standard_streams()
    worker = Worker(connection, Path(arguments[2]), int(arguments[3]))
    threading.Thread(target=_watch, args=(lifeline, worker), name="lifeline", daemon=True).start()
    with contextlib.suppress(ConnectionError):
        worker.run()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
