"""Who printed what. With one call per process the pipes answer that; with threads this module does.

In a worker with threads, `sys.stdout` and `sys.stderr` are replaced: what a call's thread prints is sent as
the output of that call. This is best effort: what C code or a child process writes to descriptors 1 and 2,
and what threads print that the call started, goes through the pipes and is shown with one of the calls.
"""

import contextlib
import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import IO

from skyward.wire.frames import Frame, FrameKind

_PIECE = 64 * 1024

type Send = Callable[[Frame], None]


@dataclass(slots=True)
class _Printed:
    """Text of one call that is not a whole line yet, by stream."""

    attempt: str
    pending: dict[str, str] = field(default_factory=dict)


_printed: ContextVar[_Printed | None] = ContextVar("skyward_printed", default=None)


class ThreadOutput(io.TextIOBase):
    """A text stream that sends what a call prints, and passes on what nobody's call prints."""

    def __init__(self, name: str, send: Send, beneath: IO[str]) -> None:
        self._stream = name
        self._send = send
        self._beneath = beneath

    @classmethod
    def install(cls, send: Send) -> None:
        """Replace the standard streams of this process."""
        sys.stdout = cls("stdout", send, sys.stdout)
        sys.stderr = cls("stderr", send, sys.stderr)

    @staticmethod
    @contextlib.contextmanager
    def of(attempt: str) -> Iterator[None]:
        """What this thread prints inside belongs to `attempt`."""
        token = _printed.set(_Printed(attempt))
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            _printed.reset(token)

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
        """Send `text`, line by line, as output of the call that runs in this thread."""
        printed = _printed.get()
        if printed is None:
            return self._beneath.write(text)
        pending = printed.pending.get(self._stream, "") + text
        printed.pending[self._stream] = pending
        if "\n" in text or "\r" in text or len(pending) > _PIECE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what is not a whole line yet."""
        printed = _printed.get()
        if printed is None:
            self._beneath.flush()
            return
        data = printed.pending.pop(self._stream, "").encode("utf-8", "backslashreplace")
        for start in range(0, len(data), _PIECE):
            self._send(_log(printed.attempt, self._stream, data[start : start + _PIECE]))


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
