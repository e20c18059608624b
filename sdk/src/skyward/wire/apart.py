"""Large bytes leave a pickle: where to cut, when to compress, and how they come together again on the node.

What refers to parts is an envelope of its own, next to the one of `skyward.wire.codec`:

    0x01 "SKR" | segments u32 | buffers u32 | (kind u8, size u64, SHA-256) of each | bytes of those inside

The segments, one behind the other, are the pickle. A buffer or segment stands inside, or apart as a part
(`size` counts its bytes before compression). Nothing is copied on the way out. On the way in, a buffer is
mapped from its file, and `bytes` are read from theirs straight into the new object.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from io import BytesIO
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, BinaryIO

import lz4.frame

from skyward.wire.compression import compressed, flat, size_of
from skyward.wire.digest import BytesLike
from skyward.wire.errors import Damaged
from skyward.wire.parts import Part

MAGIC = b"\x01SKR"
LARGE = 64 * 1024
"""Bytes from which on something stands apart."""

_HEAD = struct.Struct("!4sII")
_ENTRY = struct.Struct("!BQ32s")
_INSIDE, _APART, _COMPRESSED = 0, 1, 2
_CHANGED = "large bytes of it were changed or removed on the disk here after they came"


class Apart:
    """Makes parts of large bytes; the same object is read once, and the same bytes are one part.

    Unless `steady`, buffers may be written to again before their part is sent: they are copied.
    """

    def __init__(self, *, steady: bool = True) -> None:
        self._steady = steady
        self._known: dict[int, tuple[object, bytes, Part]] = {}
        self._by_digest: dict[str, Part] = {}

    def envelope(
        self, stream: Sequence[BytesLike], buffers: Sequence[memoryview]
    ) -> tuple[bytes, list[Part]]:
        """A pickle, written in these pieces, and its buffers: what stays, and what stands apart."""
        entries, inside, parts = bytearray(), bytearray(), []
        segments = list(_segments(stream))
        every: list[Sequence[BytesLike]] = [*segments, *([buffer] for buffer in buffers)]
        for pieces in every:
            size = sum(map(size_of, pieces))
            if size < LARGE:
                entries += _ENTRY.pack(_INSIDE, size, bytes(32))
                inside += b"".join(pieces)
                continue
            entry, part = self._part(pieces, size)
            entries += entry
            parts.append(part)
        return _HEAD.pack(MAGIC, len(segments), len(buffers)) + entries + inside, parts

    def _part(self, pieces: Sequence[BytesLike], size: int) -> tuple[bytes, Part]:
        owner = _whole_owner(pieces)
        if owner is not None and id(owner) in self._known:
            _, entry, part = self._known[id(owner)]
            return entry, part
        if not self._steady:
            pieces = [piece if isinstance(piece, bytes) else bytes(piece) for piece in pieces]
        packed = compressed(pieces, size)
        stored = tuple(map(flat, pieces if packed is None else packed))
        digest = _digest(stored)
        part = self._by_digest.setdefault(digest, Part(digest, sum(map(size_of, stored)), stored))
        kind = _APART if packed is None else _COMPRESSED
        entry = _ENTRY.pack(kind, size, bytes.fromhex(digest))
        if owner is not None and self._steady:
            self._known[id(owner)] = owner, entry, part  # the owner is kept: its id belongs to nobody else
        return entry, part


def join(view: memoryview, files: Mapping[str, Path]) -> "tuple[Joined, list[BytesLike]]":
    """The pickle as a file to read and close, and its buffers. Raises KeyError, OSError or ValueError."""
    _, segments, buffers = _HEAD.unpack_from(view)
    place = _HEAD.size + (segments + buffers) * _ENTRY.size
    stream: list[Callable[[], BinaryIO]] = []
    found: list[BytesLike] = []
    for number in range(segments + buffers):
        kind, size, digest = _ENTRY.unpack_from(view, _HEAD.size + number * _ENTRY.size)
        if kind == _INSIDE:
            inside = view[place : place + size]
            place += size
            if inside.nbytes != size:
                raise ValueError("the payload is cut off")
            if number < segments:
                stream.append(partial(BytesIO, inside))
            else:
                found.append(bytearray(inside))
        elif number < segments:
            stream.append(partial(_opened, files[digest.hex()], kind))
        else:
            found.append(_mapped(files[digest.hex()], kind, size))
    return Joined(stream), found


class Joined:
    """Files, one behind the other, as far as an unpickler reads them; each is opened when it is its turn."""

    def __init__(self, files: Iterable[Callable[[], BinaryIO]]) -> None:
        self._files = iter(files)
        self._file: Any = BytesIO()

    def readinto(self, target: Any) -> int:
        """As io.RawIOBase, but short only at the end."""
        view = memoryview(target).cast("B")
        done = 0
        while done < view.nbytes:
            if size := self._file.readinto(view[done:]):
                done += size
                continue
            following = next(self._files, None)
            if following is None:
                break
            self.close()
            self._file = following()
        return done

    def read(self, size: int) -> bytes:
        """As io.RawIOBase."""
        data = bytearray(size)
        return bytes(memoryview(data)[: self.readinto(data)])

    def readline(self) -> bytes:
        """As io.RawIOBase."""
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _opened(path: Path, kind: int) -> Any:
    try:
        return lz4.frame.open(path, "rb") if kind == _COMPRESSED else path.open("rb")
    except FileNotFoundError as error:
        raise Damaged(_CHANGED) from error


def _mapped(path: Path, kind: int, size: int) -> BytesLike:
    """A buffer that may be written to; what nobody writes to is shared with the other readers of its file."""
    if kind == _COMPRESSED:
        whole = bytearray(size)
        with _opened(path, kind) as packed:
            if packed.readinto(whole) != size or packed.read(1):
                raise Damaged(_CHANGED)
        return whole
    with _opened(path, kind) as file:
        if os.fstat(file.fileno()).st_size != size:
            raise Damaged(_CHANGED)
        found = memoryview(mmap(file.fileno(), 0, access=ACCESS_COPY))
    if found.nbytes != size:
        raise Damaged(_CHANGED)
    return found


def _segments(stream: Sequence[BytesLike]) -> Iterable[list[BytesLike]]:
    """The pickle cut where a large object stands in it: the pickler writes that one by itself."""
    run: list[BytesLike] = []
    for piece in stream:
        if run and _is_announced(run[-1], piece):
            yield run
            yield [piece]
            run = []
        else:
            run.append(piece)
    if run:
        yield run


def _is_announced(before: BytesLike, piece: BytesLike) -> bool:
    """Whether the opcode before says that just these bytes follow. (If it only looks so, no harm is done.)"""
    size = size_of(piece)
    tail = bytes(before[-9:])
    if size < LARGE:
        return False
    if tail[-5:-4] in (b"B", b"X"):  # bytes and str of up to 4 GiB
        return int.from_bytes(tail[-4:], "little") == size
    return tail[:1] in (b"\x8e", b"\x8d", b"\x96") and int.from_bytes(tail[1:], "little") == size


def _whole_owner(pieces: Sequence[BytesLike]) -> object | None:
    """The object that is just these bytes, if there is one: its identity stands for them."""
    if len(pieces) != 1:
        return None
    view = memoryview(pieces[0])
    try:
        whole = memoryview(view.obj).nbytes == view.nbytes
    except (TypeError, BufferError):
        return None
    return view.obj if whole else None


def _digest(pieces: Iterable[BytesLike]) -> str:
    seen = hashlib.sha256()
    for piece in pieces:
        seen.update(piece)
    return seen.hexdigest()
