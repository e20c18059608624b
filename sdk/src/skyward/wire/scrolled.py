"""A large pickle in a mapped file, read once from beginning to end: pages that were read are given back.

What is unpickled from it (`bytes`, text) is a copy. Without this, the pages that it was copied from would
stay in memory beside it.
"""

import mmap
from typing import Any

_STEP = 1024 * 1024


class Scrolled:
    """As much of a file as an unpickler needs, over a view of memory; of a mapping, if it can be."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._place = 0
        self._map = view.obj if isinstance(view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None
        self._begin = _offset(view, self._map) if self._map is not None and not view.readonly else None
        self._given_back = 0

    def readinto(self, target: Any) -> int:
        """As io.RawIOBase, but short only at the end."""
        into = memoryview(target).cast("B")
        done = 0
        while done < into.nbytes and self._place < self._view.nbytes:
            piece = self._view[self._place : self._place + min(_STEP, into.nbytes - done)]
            into[done : done + piece.nbytes] = piece
            done += piece.nbytes
            self._place += piece.nbytes
            self._give_back()
        return done

    def read(self, size: int) -> bytes:
        """As io.RawIOBase."""
        piece = bytes(self._view[self._place : self._place + size])
        self._place += len(piece)
        self._give_back()
        return piece

    def readline(self) -> bytes:
        """As io.RawIOBase."""
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)

    def _give_back(self) -> None:
        """The whole pages behind the place: nobody has written to them, so they are still in the file."""
        if self._map is None or self._begin is None or self._place - self._given_back < _STEP:
            return
        first = -(-(self._begin + self._given_back) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (self._begin + self._place) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
            self._given_back = last - self._begin


def _offset(view: memoryview, whole: mmap.mmap) -> int:
    """Where a writable view begins in its mapping."""
    from ctypes import addressof, c_char

    return addressof(c_char.from_buffer(view)) - addressof(c_char.from_buffer(whole))
