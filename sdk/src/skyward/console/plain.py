"""Lines that are only ever appended: for logs, pipes, CI and notebooks. No colour, no cursor movement.

14:19:02 pool=digits-1a2b Provisioning: 0 of 2 nodes ready
14:19:04 node=0 Bootstrapping: packages
"""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TextIO

from skyward.console.board import (
    CHANGE_SECONDS,
    SILENCE_SECONDS,
    Console,
    Row,
    Stream,
    Subject,
    elapsed,
)


class PlainConsole(Console):
    """Appends one line per fact to `stream`, and repeats what is under way before a silence gets long."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] | None = None) -> None:
        super().__init__(*([clock] if clock is not None else []))
        self._stream = stream
        self._wrote_at = self._clock()

    def refresh(self, now: float) -> None:
        rows = self.visible(now)
        for row in rows:
            if row.text != row.told and now - row.told_at >= CHANGE_SECONDS:
                self._tell_row(row, now)
        if rows and now - self._wrote_at >= SILENCE_SECONDS:
            for row in rows[:5]:
                self._tell_row(row, now)

    def tell(self, subject: Subject, text: str) -> None:
        self._write(f"{_assignment(subject)} {text}")

    def say(self, text: str) -> None:
        self._write(text)

    def remote(self, prefix: str, text: str, stream: Stream) -> None:
        print_remote(prefix, text, stream)
        self._wrote_at = self._clock()

    def _tell_row(self, row: Row, now: float) -> None:
        row.told, row.told_at = row.text, now
        lasted = now - row.began
        self._write(
            f"{_assignment(row.subject)} {row.text}" + (f" ({elapsed(lasted)})" if lasted >= 1 else "")
        )

    def _write(self, text: str) -> None:
        self._wrote_at = self._clock()
        write_line(self._stream, f"{datetime.now().astimezone():%H:%M:%S} {text}")


class SilentConsole(Console):
    """Shows nothing at all."""

    tick_seconds = 0.0

    def refresh(self, now: float) -> None:
        """Nothing is drawn."""

    def tell(self, subject: Subject, text: str) -> None:
        """Nothing is told."""

    def say(self, text: str) -> None:
        """Nothing is said."""

    def remote(self, prefix: str, text: str, stream: Stream) -> None:
        """Nothing is shown."""


def print_remote(prefix: str, text: str, stream: Stream) -> None:
    """Write a remote line to the same stream here: a function's output stays apart from ours."""
    write_line(sys.stdout if stream == "stdout" else sys.stderr, f"{prefix} {text}" if prefix else text)


def write_line(stream: TextIO, line: str) -> None:
    """Write one line, whatever the stream's encoding; a stream that is closed at exit is no error."""
    try:
        try:
            stream.write(f"{line}\n")
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(f"{line.encode(encoding, 'replace').decode(encoding)}\n")
        stream.flush()
    except (ValueError, OSError):
        pass


def _assignment(subject: Subject) -> str:
    return f"{subject.kind}={subject.name}" if subject.name and " " not in subject.kind else f"{subject}:"
