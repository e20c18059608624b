"""Outcomes on their way from the gateway to a reader while their task runs: a stream of parts.

    kind u8 | size u32 | bytes

DATA parts together are the task's records (`skyward.wire.outcomes`) from the byte that the reader asked for;
a part may end inside of a record. A BEAT says that the other side is there. An END comes once the task has
ended: a stream without it is not whole, and goes on at the byte that it reached.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from skyward.wire.digest import BytesLike, digest
from skyward.wire.errors import PackageError
from skyward.wire.outcomes import Outcome, StreamDigest, read_head

_PART = struct.Struct("!BI")
_LARGEST_PART = 16 * 1024 * 1024
_SMALL_PART = 16 * 1024


class PartKind(IntEnum):
    """What a part is."""

    DATA = 1
    BEAT = 2
    END = 3


@dataclass(frozen=True, slots=True)
class End:
    """What an END says: how many bytes all records have, and their `StreamDigest` where it is known."""

    size: int
    digest: str | None = None


def data_part(data: bytes) -> bytes:
    """Bytes of the records."""
    return _PART.pack(PartKind.DATA, len(data)) + data


def data_parts(data: bytes) -> bytes:
    """The same in small parts: a connection that breaks loses only the one that was not whole."""
    view = memoryview(data)
    parts = (view[at : at + _SMALL_PART] for at in range(0, len(view), _SMALL_PART))
    return b"".join(each for part in parts for each in (_PART.pack(PartKind.DATA, len(part)), part))


def beat() -> bytes:
    """Nothing new, and still there."""
    return _PART.pack(PartKind.BEAT, 0)


def end_part(end: End) -> bytes:
    """The task has ended, and all of its records have been sent."""
    body = json.dumps({"size": end.size, "digest": end.digest}).encode()
    return _PART.pack(PartKind.END, len(body)) + body


class Arrivals:
    """Takes a delivery in, over as many connections as it needs, and gives each outcome as it is whole.

    `offset` is the byte to ask for next. At the END size and digest are checked: what comes out until then
    is what the operator has on disk. Raises `PackageError` for anything else.
    """

    def __init__(self) -> None:
        self.offset = 0
        self.is_whole = False
        self._parts = bytearray()
        self._records = _Records()

    def reconnected(self) -> None:
        """A new connection goes on at `offset`: the rest of a broken part is forgotten."""
        self._parts.clear()

    def feed(self, received: BytesLike) -> Iterator[Outcome]:
        """Bytes of the connection, cut anywhere. Use up what it gives before the next ones."""
        self._parts += received
        at = 0
        while len(self._parts) - at >= _PART.size:
            kind, size = _PART.unpack_from(self._parts, at)
            if size > _LARGEST_PART:
                raise PackageError(f"a part of {size} bytes in a delivery of results")
            if len(self._parts) - at - _PART.size < size:
                break
            at += _PART.size
            part = self._parts[at : at + size]
            at += size
            yield from self._take(kind, part)
        del self._parts[:at]

    def take(self, data: BytesLike) -> Iterator[Outcome]:
        """Records from `offset` on that came another way."""
        self.offset += memoryview(data).nbytes
        yield from self._records.feed(data)

    def close(self, end: End) -> None:
        """The task has ended like this. Raises `PackageError` unless it all arrived."""
        if self._records.is_inside or self.offset != end.size:
            raise PackageError(f"{self.offset} of {end.size} bytes arrived")
        if end.digest is not None and end.digest != self._records.digest.hexdigest():
            raise PackageError("the results that arrived are not those that were sent: their digests differ")
        self.is_whole = True

    def _take(self, kind: int, part: bytearray) -> Iterator[Outcome]:
        match kind:
            case PartKind.DATA:
                yield from self.take(part)
            case PartKind.BEAT:
                pass
            case PartKind.END:
                self.close(_end(part))
            case _:
                raise PackageError(f"a part of kind {kind} in a delivery of results")


class _Records:
    """Puts records together again. A body grows in the buffer that its reader gets, as its bytes come."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._open: tuple[bytes, dict[str, Any], bytearray, int] | None = None
        self.digest = StreamDigest()

    @property
    def is_inside(self) -> bool:
        """Whether a record has begun and is not whole."""
        return bool(self._rest) or self._open is not None

    def feed(self, data: BytesLike) -> Iterator[Outcome]:
        view = memoryview(data).cast("B")
        if self._open is not None:
            head, fields, body, size = self._open
            missing = size - len(body)
            body += view[:missing]
            if len(view) < missing:
                return
            view = view[missing:]
            self._open = None
            self.digest.add(head, digest(body))
            yield Outcome.from_fields(fields, body)
        self._rest += view
        at = 0
        while (found := read_head(self._rest, at)) is not None:
            fields, start, size = found
            head = bytes(self._rest[at:start])
            body = self._rest[start : start + size]
            at = start + len(body)
            if len(body) < size:
                self._open = head, fields, body, size
                break
            self.digest.add(head, digest(body))
            yield Outcome.from_fields(fields, body)
        del self._rest[:at]


def _end(part: bytearray) -> End:
    try:
        fields = json.loads(part)
        return End(int(fields["size"]), fields.get("digest"))
    except (ValueError, TypeError, KeyError) as error:
        raise PackageError(f"the end of a delivery of results cannot be read: {error}") from error
