"""Everything that ever happened, one JSON object a line, never changed.

It is the cloud's only memory: the state is rebuilt from it at a start. What moves money or machines is on
disk before anybody is told; requests are noted without waiting for the disk. A last line that a crash cut
short is taken away at the next start: nobody was told of it.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

type Event = dict[str, Any]


class LedgerInUse(Exception):
    """Another process keeps this ledger."""


class Ledger:
    """A ledger that is kept by this process alone."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self.written = 0
        """Events since this process keeps it."""
        self._file = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise LedgerInUse(
                f"{path} is kept by another process; stop it, or choose another folder"
            ) from None
        repair(path)

    def append(self, kind: str, time: float, **fields: Any) -> Event:
        """Write an event and wait until it is on disk."""
        event = self.note(kind, time, **fields)
        os.fsync(self._file.fileno())
        return event

    def note(self, kind: str, time: float, **fields: Any) -> Event:
        """Write an event that may be lost with the power."""
        event: Event = {"kind": kind, "time": round(time, 3), **fields}
        self._file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        self.written += 1
        return event

    def read(self) -> Iterator[Event]:
        """All events, oldest first."""
        return read(self.path)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read(path: Path) -> Iterator[Event]:
    """The events in a ledger that somebody may be writing to; a line without its end is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def repair(path: Path) -> None:
    """Cut off a last line that has no end."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        kept = size
        while kept:
            start = max(0, kept - 64 * 1024)
            file.seek(start)
            end = file.read(kept - start).rfind(b"\n")
            if end >= 0:
                kept = start + end + 1
                break
            kept = start
        if kept != size:
            file.truncate(kept)
