"""Who printed what. With one call per process the pipes answer that; with threads this module does.

In a worker with threads, `sys.stdout` and `sys.stderr` are replaced: what a call's thread prints is sent as
the output of that call. This is best effort: what C code or a child process writes to descriptors 1 and 2,
and what threads print that the call started, goes through the pipes and is shown with one of the calls.
"""

import contextlib
import io
import itertools
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import IO, ClassVar

from skyward.wire.frames import Frame, FrameKind

_PIECE = 64 * 1024
_PAUSE = 0.005
"""Lines of one call that follow one another within this many seconds are sent together."""
_HELD_SECONDS = 0.2

type Send = Callable[[Frame], None]


class _Printed:
    """What one call has printed and not sent, in order. Any thread may send it."""

    def __init__(self, attempt: str, send: Send) -> None:
        self.open = threading.Event()
        """Cleared while the agent has too much of this call's output: who prints waits."""
        self.open.set()
        self._attempt = attempt
        self._send = send
        self._lock = threading.Lock()
        self._pieces: list[tuple[str, str]] = []
        self._size = 0
        self._sent = 0.0
        self._is_late = False

    def write(self, stream: str, text: str) -> bool:
        """Add text; True if somebody else has to send it in a moment."""
        while not self.open.wait(_HELD_SECONDS):
            pass  # in short waits: only bytecode can be interrupted
        with self._lock:
            self._pieces.append((stream, text))
            self._size += len(text)
            ends = "\n" in text or "\r" in text
            due = self._size > _PIECE or (ends and time.monotonic() - self._sent > _PAUSE)
            late = ends and not due and not self._is_late
            self._is_late = self._is_late or late
        if due:
            self.flush()
        return late

    def flush(self) -> None:
        """Send everything that was printed so far."""
        with self._lock:
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._sent, self._is_late = time.monotonic(), False
            for stream, run in itertools.groupby(pieces, key=lambda piece: piece[0]):
                data = "".join(text for _, text in run).encode("utf-8", "backslashreplace")
                for start in range(0, len(data), _PIECE):
                    self._send(_log(self._attempt, stream, data[start : start + _PIECE]))


_printed: ContextVar[_Printed | None] = ContextVar("skyward_printed", default=None)


class ThreadOutput(io.TextIOBase):
    """A text stream that sends what a call prints, and passes on what nobody's call prints."""

    _calls: ClassVar[dict[str, _Printed]] = {}
    _late: ClassVar[queue.SimpleQueue[_Printed]] = queue.SimpleQueue()
    _send: ClassVar[Send | None] = None

    def __init__(self, name: str, beneath: IO[str]) -> None:
        self._stream = name
        self._beneath = beneath

    @classmethod
    def install(cls, send: Send) -> None:
        """Replace the standard streams of this process."""
        cls._send = send
        sys.stdout = cls("stdout", sys.stdout)
        sys.stderr = cls("stderr", sys.stderr)
        threading.Thread(target=cls._send_late, name="output", daemon=True).start()

    @classmethod
    @contextlib.contextmanager
    def of(cls, attempt: str) -> Iterator[None]:
        """What this thread prints inside belongs to `attempt`, if the streams were replaced."""
        if cls._send is None:
            yield
            return
        printed = cls._calls[attempt] = _Printed(attempt, cls._send)
        token = _printed.set(printed)
        try:
            yield
        finally:
            del cls._calls[attempt]
            _printed.reset(token)
            printed.open.set()
            printed.flush()

    @classmethod
    def hold(cls, attempt: str, held: bool) -> None:
        """Have who prints for this call wait, or no longer."""
        if (printed := cls._calls.get(attempt)) is not None:
            if held:
                printed.open.clear()
            else:
                printed.open.set()

    @classmethod
    def _send_late(cls) -> None:
        while True:
            late = [cls._late.get()]
            time.sleep(_PAUSE)
            with contextlib.suppress(queue.Empty):
                while True:
                    late.append(cls._late.get_nowait())
            for printed in late:
                printed.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of the stream beneath."""
        return "utf-8"

    def fileno(self) -> int:
        """The real descriptor, for those who hand it to a child process."""
        return self._beneath.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Send `text`, with the rest of its line, as output of the call that runs in this thread."""
        printed = _printed.get()
        if printed is None:
            return self._beneath.write(text)
        if printed.write(self._stream, text):
            self._late.put(printed)
        return len(text)

    def flush(self) -> None:
        """Send what was printed so far, whole line or not."""
        printed = _printed.get()
        if printed is None:
            self._beneath.flush()
        else:
            printed.flush()


def run_command(argv: list[str], folder: str | None, environment: dict[str, str], *, captured: bool) -> int:
    """Run a command to its end and return its status; its output becomes the call's."""
    if not captured:
        return subprocess.call(argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL)
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        errors="backslashreplace",
        bufsize=1,
        text=True,
    ) as process:
        try:
            return _pump(process)
        except BaseException:
            process.kill()
            raise


def _pump(process: subprocess.Popen[str]) -> int:
    printed = _printed.get()

    def copy(source: IO[str] | None, target: IO[str]) -> None:
        _printed.set(printed)
        for line in source or ():
            target.write(line)
        target.flush()

    pairs = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    pumps = [threading.Thread(target=copy, args=pair, daemon=True) for pair in pairs]
    for pump in pumps:
        pump.start()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(timeout=0.2)  # in short waits: only bytecode can be interrupted
            break
    for pump in pumps:
        pump.join()
    return status


def _log(attempt: str, stream: str, data: bytes) -> Frame:
    return Frame(FrameKind.LOG, {"attempt": attempt, "stream": stream, "time": time.time()}, data)
