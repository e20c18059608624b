"""The bytes of a large result in a file of their own, until they stand among the outcomes of their task.

The file begins with room for the record's head, so that a result that comes first becomes the file of
outcomes by a rename, and its bytes are written once. Its digest is taken as it grows: nobody reads it again.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from skyward_operator import disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from skyward.wire.digest import BytesLike

INCOMING: Final = "incoming"
"""Where results are received, in the folder of the operator's data; one folder per node."""

ROOM: Final = 4096
"""Bytes before the body in its file: more than the head of a call that returned ever takes."""

_SPLICE: Final = 1 << 24
_SYNC: Final = 1 << 26
"""Bytes after which the disk has to keep up: so little waits for it at the end, or in the page cache."""


class Received:
    """A whole result in a file. Whoever gets it moves it, copies it, or drops it."""

    def __init__(self, path: Path, size: int, digest: str) -> None:
        self.path = path
        self.size = size
        self.digest = digest
        self.taken = False
        """Somebody else sees to the file now."""

    def __len__(self) -> int:
        return self.size

    def become(self, head: bytes, final: Path) -> None:
        """Be the file `final`, with this head of exactly `ROOM` bytes. Blocks."""
        with self.path.open("r+b") as file:
            file.write(head)
            file.flush()
            os.fdatasync(file.fileno())
        self.path.replace(final)
        directory = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def splice(self, target: int) -> None:
        """Append the body to the open file `target`, inside of the kernel where that can be. Blocks."""
        with self.path.open("rb", buffering=0) as source:
            place, end = ROOM, ROOM + self.size
            while place < end:
                moved = _copy(source.fileno(), target, place, min(_SPLICE, end - place))
                if not moved:
                    raise OSError(f"{self.path} ends at {place} of {end} bytes")
                place += moved

    def drop(self) -> None:
        """Nobody needs it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class Part:
    """A result that is still coming. `append` blocks and runs in a thread, one at a time."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.written = 0
        self._unsynced = 0
        self._digest = hashlib.sha256()
        self._file: int | None = None

    def append(self, pieces: Sequence[BytesLike]) -> None:
        """Write these after what is there. What could not be written whole counts as not written."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
        disk.need(self._file, self.size - self.written)  # each time: others fill it meanwhile
        for piece in pieces:
            view = memoryview(piece)
            done = 0
            while done < len(view):
                done += os.pwrite(self._file, view[done:], ROOM + self.written + done)
            self._digest.update(view)
            self.written += len(view)
            self._unsynced += len(view)
        if self._unsynced >= _SYNC:
            os.fdatasync(self._file)
            self._unsynced = 0

    def finish(self) -> Received:
        """All is there. Whether it is what was announced, the digest says."""
        self._close()
        return Received(self.path, self.written, self._digest.hexdigest())

    def drop(self) -> None:
        """Nobody needs it."""
        self._close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _copy(source: int, target: int, place: int, size: int) -> int:
    """Bytes moved to the end of `target`; 0 at the end of `source`."""
    if hasattr(os, "copy_file_range"):
        with suppress(OSError):  # another file system, or one that cannot: copied by hand, errors are its own
            return os.copy_file_range(source, target, size, place)
    piece = os.pread(source, min(size, 1 << 20), place)
    view = memoryview(piece)
    while view:
        view = view[os.write(target, view) :]
    return len(piece)
