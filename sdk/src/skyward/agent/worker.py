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

from skyward.agent.borders import MarkedPipe
from skyward.agent.box import Box
from skyward.agent.capture import ThreadOutput
from skyward.agent.execute import Execution, Functions
from skyward.agent.items import Items
from skyward.agent.runtime import CallContext, running
from skyward.agent.standard import StandardStreams, flush
from skyward.agent.streams import CallStream
from skyward.wire.frames import Decoder, Frame, FrameKind, encode

_RECEIVE = 256 * 1024
_NOTHING = contextlib.nullcontext()
_WORD_SECONDS = 0.5
"""How long an interrupt waits for the word that says why; a signal of the call's own making has none."""


class Worker:
    """The loop between the agent's socket and the calls."""

    def __init__(
        self, connection: socket.socket, spool: Path, boxes: list[Box], streams: StandardStreams
    ) -> None:
        self.functions = Functions()
        self.spool = spool
        self.captured = len(boxes) > 1
        self._standard = streams
        self._connection = connection
        self._boxes = boxes
        self._slices: dict[str, Items] = {}
        self._sending = threading.Lock()
        self._contexts: dict[str, CallContext] = {}
        self._in_call: dict[str, int] = {}
        self._interrupted: set[str] = set()
        self._told = False
        self._ahead: tuple[str, float] | None = None
        """Why calls end soon, and when by the clock that nobody sets."""
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
        if self.captured:
            ThreadOutput.install(self.send)
            start = self._thread_pool()
        else:
            signal.signal(signal.SIGINT, self._on_interrupt)
        self.send(Frame(FrameKind.WELCOME, {"pid": self._pid}))
        buffer = memoryview(bytearray(_RECEIVE))
        while size := self._connection.recv_into(buffer):
            for frame in self._decoder.feed(buffer[:size]):
                self._receive(frame, start)
                while self._early:
                    self._receive(self._early.popleft(), start)

    def hear(self, word: str) -> None:
        """What the agent says while a call has the main thread: `rest SLICE`, `leaving WHY WHEN`, or why a
        call is ended."""
        if word.startswith("rest "):
            self._give_back(word.removeprefix("rest "))
            return
        if word.startswith("leaving "):
            _, why, when = word.split(" ")
            self._ahead = why, float(when)
            for context in list(self._contexts.values()):
                context.warn(*self._ahead)
            return
        for attempt, context in list(self._contexts.items()):
            if not self._is_spared(attempt):
                context.stop(word)
        self._told = True

    def execute(self, context: CallContext, execution: Execution, box: Box | None = None) -> bool:
        """items.Host"""
        attempt = context.attempt_id
        self._contexts[attempt] = context
        if self._ahead is not None:
            context.warn(*self._ahead)
        has_begun = True
        try:
            with (
                running(context),
                ThreadOutput.of(attempt) if self.captured else _NOTHING,
                self._listening(execution.stream) if execution.stream else _NOTHING,
            ):
                self._in_call[attempt] = threading.get_ident()
                try:
                    if box is not None and box.is_closed:
                        has_begun = False
                    else:
                        execution.run()
                finally:
                    self._in_call.pop(attempt, None)
        except KeyboardInterrupt as interrupt:  # it fell between the call and its end
            execution.fail(interrupt)
        if os.getpid() != self._pid:
            os._exit(0)  # the call forked, and its child came back here: only the parent answers
        del self._contexts[attempt]
        return has_begun

    @property
    def pipes(self) -> tuple[MarkedPipe, ...]:
        """items.Host"""
        return () if self.captured else self._standard.pipes

    def restore_streams(self) -> str:
        """items.Host"""
        return "" if self.captured else self._standard.restore()

    def was_interrupted(self, attempt: str) -> bool:
        """items.Host"""
        was = attempt in self._interrupted
        self._interrupted.discard(attempt)
        return was

    def send(self, frame: Frame) -> None:
        """items.Host"""
        with self._sending:
            self._connection.sendall(encode(frame))

    def _receive(self, frame: Frame, start: Callable[[Frame], None]) -> None:
        match frame.kind:
            case FrameKind.CALL:
                start(frame)
            case FrameKind.FUNCTION:
                self.functions.put(frame.header, bytes(frame.body))
            case FrameKind.CANCEL if frame.header.get("rest"):
                self._give_back(frame.header["attempt"])
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
        for number in range(len(self._boxes)):
            threading.Thread(target=serve, name=f"call-{number}", daemon=True).start()
        return calls.put

    def _call_here(self, frame: Frame) -> None:
        if "sizes" in frame.header:
            self._slice_here(frame)
            return
        attempt = frame.header["attempt"]
        stream = self._stream(frame.header)
        execution = Execution(frame.header, frame.body, self.functions, captured=self.captured, stream=stream)
        self.execute(CallContext.from_call(frame.header), execution)
        header, body = execution.result(self.spool)
        self._streams.pop(attempt, None)
        header["interrupted"] = self.was_interrupted(attempt)
        if lost := self.restore_streams():
            sys.stderr.write(lost)
        flush()
        self.send(Frame(FrameKind.RESULT, header, body))

    def _slice_here(self, frame: Frame) -> None:
        items = Items(frame, self._boxes[frame.header["box"]], self)
        self._slices[items.name] = items
        try:
            items.run()
        finally:
            del self._slices[items.name]

    def _give_back(self, name: str) -> None:
        if (items := self._slices.get(name)) is not None:
            items.give_back()

    def _is_spared(self, attempt: str) -> bool:
        """Whether what comes to end a call is meant for an item of its slice that has ended meanwhile."""
        return any(each.current == attempt and each.is_spared for each in list(self._slices.values()))

    def _stream(self, header: dict[str, Any]) -> CallStream | None:
        if not (header.get("stream") or header.get("inputs")):
            return None
        attempt = header["attempt"]
        stream = self._streams[attempt] = CallStream(attempt, self._send_within_call)
        return stream

    @contextlib.contextmanager
    def _listening(self, stream: CallStream | None) -> Iterator[None]:
        """Read what comes for a call that streams, where the thread that reads otherwise is busy with it."""
        if stream is None or self.captured:
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

    def _send_within_call(self, frame: Frame) -> None:
        """Send a whole frame: half of one, before an interrupt, would be the end of this worker."""
        if threading.current_thread() is not threading.main_thread():
            self.send(frame)
            return
        self._uninterrupted = True
        try:
            self.send(frame)
        finally:
            self._uninterrupted = False
        if self._late:
            self._late = False
            raise KeyboardInterrupt

    def _on_interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        running = [attempt for attempt in self._in_call if not self._is_spared(attempt)]
        if running and self._uninterrupted:
            self._interrupted.update(running)
            self._late = True
        elif running:
            self._interrupted.update(running)
            # the reason comes by another thread, and must be there before the call asks for it; no lock here:
            # this runs between any two instructions
            limit = time.monotonic() + _WORD_SECONDS
            while not self._told and time.monotonic() < limit:
                time.sleep(0.001)
            raise KeyboardInterrupt

    def _interrupt_thread(self, attempt: str, why: str) -> None:
        import ctypes

        if (items := self._slices.get(attempt)) is not None:
            attempt = items.current or attempt
        context = self._contexts.get(attempt)
        thread = self._in_call.get(attempt)
        if context is not None and thread is not None and not self._is_spared(attempt):
            context.stop(why)
            self._interrupted.add(attempt)
            raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
            raise_in(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
            if (stream := self._streams.get(attempt)) is not None:
                stream.wake()


def _watch(lifeline: int, worker: Worker) -> None:
    with os.fdopen(lifeline) as words:
        for word in words:
            worker.hear(word.strip())
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """`socket-fd lifeline-fd spool-folder box-fd…`: a box for each slot, as `process` starts it."""
    connection = socket.socket(fileno=int(arguments[0]))
    lifeline = int(arguments[1])
    for descriptor in (connection.fileno(), lifeline):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    boxes = [_box(int(descriptor)) for descriptor in arguments[3:]]
    worker = Worker(connection, Path(arguments[2]), boxes, StandardStreams())
    threading.Thread(target=_watch, args=(lifeline, worker), name="lifeline", daemon=True).start()
    with contextlib.suppress(ConnectionError):
        worker.run()
    os._exit(0)


def _box(descriptor: int) -> Box:
    try:
        return Box(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
