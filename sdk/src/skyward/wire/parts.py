"""Parts: large bytes that a pickle refers to by digest, and which of them each call of a package needs.

Arrays, `bytes` and other large buffers of arguments stand apart from the pickle. They are sent from where
they lie, stored once for a task and sent to a node once, however many calls share them. Whoever moves them
reads this table and opens no call:

    parts u32 | uses u32 | (SHA-256, size u64) of each part | (entry u32, part u32) of each use

An entry is a function of the package, or a call: those come after the functions.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from skyward.wire.digest import BytesLike
from skyward.wire.errors import PackageError

_HEAD = struct.Struct("!II")
_PART = struct.Struct("!32sQ")
_USE = struct.Struct("!II")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Bytes that stand apart: in pieces, where they lie in the memory of whoever sends them."""

    digest: str
    size: int
    pieces: tuple[BytesLike, ...]


class PartsIndex:
    """Collects what the entries of a package need."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self._place: dict[str, int] = {}
        self._uses: list[tuple[int, int]] = []

    def need(self, entry: int, parts: Iterable[Part]) -> int:
        """Note what an entry needs; entries come in order. Returns how many bytes are new with it."""
        new = 0
        for part in parts:
            if part.digest not in self.parts:
                self._place[part.digest] = len(self.parts)
                self.parts[part.digest] = part
                new += part.size
            self._uses.append((entry, self._place[part.digest]))
        return new

    def pack(self) -> bytes:
        """The table; nothing where there are no parts."""
        if not self.parts:
            return b""
        table = bytearray(_HEAD.pack(len(self.parts), len(self._uses)))
        for part in self.parts.values():
            table += _PART.pack(bytes.fromhex(part.digest), part.size)
        for use in self._uses:
            table += _USE.pack(*use)
        return bytes(table)


class PartsTable:
    """What `PartsIndex` packed, over `entries` entries. Raises `PackageError` for bytes that are none."""

    def __init__(self, data: memoryview, entries: int) -> None:
        if data.nbytes < _HEAD.size:
            raise PackageError("the table of parts is cut off")
        count, self._count = _HEAD.unpack_from(data)
        self._uses = _HEAD.size + count * _PART.size
        if data.nbytes != self._uses + self._count * _USE.size:
            raise PackageError("the table of parts is cut off or damaged")
        self._data = data
        self._entries = entries
        self.sizes: dict[str, int] = {}
        """Size of each part, by digest."""
        for place in range(count):
            digest, size = _PART.unpack_from(data, _HEAD.size + place * _PART.size)
            self.sizes[digest.hex()] = size
        self._digests = list(self.sizes)
        if len(self._digests) != count:
            raise PackageError("a part stands twice in the table of parts")

    def of(self, entry: int) -> list[str]:
        """The digests of what an entry needs."""
        found: list[str] = []
        for place in range(bisect_left(range(self._count), entry, key=self._entry), self._count):
            owner, part = _USE.unpack_from(self._data, self._uses + place * _USE.size)
            if owner != entry:
                break
            if part >= len(self._digests):
                raise PackageError(f"an entry needs part {part}; the package has {len(self._digests)}")
            found.append(self._digests[part])
        return found

    def next_owner(self, entry: int) -> int:
        """The first entry from this one on that needs parts; behind the last entry where none does."""
        use = bisect_left(range(self._count), entry, key=self._entry)
        return self._entry(use) if use < self._count else self._entries

    def _entry(self, use: int) -> int:
        owner: int = _USE.unpack_from(self._data, self._uses + use * _USE.size)[0]
        return owner
