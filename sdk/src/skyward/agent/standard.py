"""The standard streams of a worker, which outlive its calls.

A call may close `sys.stdout`, put another object in its place, or close or redirect the descriptor beneath.
None of that may silence, or fail, the next call: it belongs to another task.
"""

import contextlib
import functools
import io
import os
import sys
from typing import Any, Literal

from skyward.agent.borders import MarkedPipe


class StandardStreams:
    """`sys.stdout` and `sys.stderr`, made anew on pipes that know whose output goes through them."""

    def __init__(self) -> None:
        self._streams = (_Stream(1, "stdout"), _Stream(2, "stderr"))

    @property
    def pipes(self) -> tuple[MarkedPipe, ...]:
        """The raw ends."""
        return tuple(stream.pipe for stream in self._streams)

    def restore(self) -> str:
        """Put back what a call has taken away; what to say about it in its output, mostly nothing."""
        lost = [stream.name for stream in self._streams if stream.restore()]
        if not lost:
            return ""
        names = " and ".join(f"sys.{name}" for name in lost)
        return f"skyward: this call closed or replaced {names}; put back for the calls that come after it\n"


class _Stream:
    """One of them."""

    def __init__(self, descriptor: int, name: Literal["stdout", "stderr"]) -> None:
        self.name = name
        self._descriptor = descriptor
        self._saved = os.dup(descriptor)
        self._identity = _identity(self._saved)
        self._open()

    def restore(self) -> bool:
        """Whether something had to be put back. The objects first: one that goes may close the descriptor."""
        lost = False
        if getattr(sys, self.name) is not self._text or not _is_open(self._text):
            lost = True
            with contextlib.suppress(Exception):
                getattr(sys, self.name).flush()
            if _is_open(self._text):
                setattr(sys, self.name, self._text)
            else:
                self._open()
        if _identity(self._descriptor) != self._identity:
            lost = True
            os.dup2(self._saved, self._descriptor)
        return lost

    def _open(self) -> None:
        self.pipe = MarkedPipe(self._descriptor, "wb", closefd=False)
        self.pipe.name = f"<{self.name}>"
        self._text = io.TextIOWrapper(
            io.BufferedWriter(self.pipe), "utf-8", "backslashreplace", line_buffering=True
        )
        setattr(sys, self.name, self._text)
        setattr(sys, f"__{self.name}__", self._text)


def flush() -> None:
    """What was printed must be in the pipes before anything is said about the call that printed it."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            if stream is not None:
                stream.flush()
    if "ctypes" in sys.modules:  # loaded by every library that could have printed from C
        with contextlib.suppress(Exception):
            _c_library().fflush(None)


@functools.cache
def _c_library() -> Any:
    return sys.modules["ctypes"].CDLL(None)


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Which file a descriptor is; None for one that is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_open(stream: io.TextIOWrapper) -> bool:
    """Whether it takes output: it may be closed, or have lost what is beneath it."""
    try:
        return not stream.closed
    except ValueError:
        return False
