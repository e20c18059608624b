"""A payload that is still coming: a file beside its place, checked as it grows, of use only when it is whole.

A payload is the package of a Task's calls and, right behind it, the large parts that the package lists with
their digests. So one digest, that of the package in the Task, vouches for all of it. What has come stays when
the connection breaks: the next one goes on behind it.

Everything here blocks and runs in a thread, one call at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, Final

from skyward.wire.package import CallPackage, PackageError
from skyward_operator import disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from skyward.wire.digest import BytesLike

_READ: Final = 1 << 20


class Mismatch(ValueError):
    """The bytes are not those that were announced; what came is dropped."""


class WrongLength(ValueError):
    """There are fewer bytes than announced (what came stays), or more (what came is dropped)."""


class TooMuch(ValueError):
    """The payload has more bytes than are taken."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


class Incoming:
    """The file `<final>.part`, and how far it is checked."""

    def __init__(self, final: Path, package: int, digest: str, largest: int) -> None:
        """The package has so many bytes of this digest; all together must not be more than `largest`."""
        self.received = 0
        self.total: int | None = None
        """Bytes of the whole payload; known once the package is there."""
        self._final = final
        self.path = part_of(final)
        """Where it is until it is whole."""
        self._package = package
        self._largest = largest
        self._file: int | None = None
        self._sections: list[tuple[str, int, str]] = [("the package", package, digest)]
        self._hasher = hashlib.sha256()

    @property
    def is_short(self) -> bool:
        """Whether more has to come."""
        return self.total is None or self.received < self.total

    def begin(self, offset: int) -> None:
        """Go on behind the first `offset` bytes, which are checked again: the machine may have lost some."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, offset)
        for piece in _pieces(self._file, offset):
            self._check(piece)

    def append(self, pieces: Sequence[BytesLike]) -> None:
        """Write these behind what is there. Raises Mismatch, WrongLength, TooMuch, or OSError."""
        if self._file is None:
            raise OSError(errno.EBADF, "the upload was given up")
        if self.total is not None:
            disk.need(self._file, self.total - self.received)  # others fill it meanwhile
        for piece in pieces:
            view = memoryview(piece)
            done = 0
            while done < len(view):
                done += os.pwrite(self._file, view[done:], self.received + done)
            self._check(view)

    def check_whole(self) -> None:
        """Raises WrongLength where something is missing."""
        if self.is_short:
            total = self._package if self.total is None else self.total
            raise WrongLength(f"the body ended after {self.received} of {total} bytes")

    def finish(self) -> None:
        """All has come: put it in its place. Raises WrongLength where something is missing."""
        self.check_whole()
        self.close()
        self.path.replace(self._final)

    def close(self) -> None:
        """Let go of the file; what has come stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def drop(self) -> None:
        """What has come is of no use."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _check(self, piece: BytesLike) -> None:
        view = memoryview(piece)
        while view.nbytes:
            if not self._sections:
                raise WrongLength(f"the body is larger than the {self.total} bytes of the payload")
            name, size, digest = self._sections[0]
            taken = view[:size]
            self._hasher.update(taken)
            self.received += taken.nbytes
            view = view[size:]
            self._sections[0] = (name, size - taken.nbytes, digest)
            if taken.nbytes == size:
                self._section_ended(name, digest)

    def _section_ended(self, name: str, digest: str) -> None:
        found, self._hasher = self._hasher.hexdigest(), hashlib.sha256()
        if found != digest:
            where = "spec.calls.blob.digest" if self.total is None else "the package"
            raise Mismatch(f"the SHA-256 of {name} is {found} and {where} says {digest}")
        del self._sections[0]
        if self.total is None:
            self._read_package()

    def _read_package(self) -> None:
        """The package is whole: now it is known what comes behind it."""
        try:
            with CallPackage(self.path, self._package) as package:
                parts = dict(package.parts)
        except PackageError:
            parts = {}  # who reads the calls says what is wrong with it
        self.total = self._package + sum(parts.values())
        if self.total > self._largest:
            raise TooMuch(self.total)
        for number, (digest, size) in enumerate(parts.items()):
            self._sections.append((f"part {number} of {len(parts)}", size, digest))
        disk.need(self.path, self.total - self.received)


def part_of(final: Path) -> Path:
    """Where a payload is until it is whole."""
    return final.with_name(f"{final.name}.part")


def stored(final: Path) -> tuple[int, bool]:
    """How many bytes of a payload are there, and whether that is all of it."""
    for path, is_whole in ((final, True), (part_of(final), False)):
        if path.exists():
            return path.stat().st_size, is_whole
    return 0, False


def make_durable(final: Path) -> None:
    """Have the disk keep a whole payload, which can be used meanwhile."""
    for path, flags in ((final, os.O_RDONLY), (final.parent, os.O_RDONLY)):
        file = os.open(path, flags)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _pieces(file: int, end: int) -> Iterator[bytes]:
    place = 0
    while place < end and (piece := os.pread(file, min(_READ, end - place), place)):
        yield piece
        place += len(piece)
