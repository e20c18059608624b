"""Outcomes: how calls ended, as records that can be appended to a file forever.

One record is `"SKYO" | header length u32 | body length u64 | JSON header | body`. Concatenated streams are a
valid stream, so a segment file grows by plain appends and is read after a crash up to its last whole record.

The digest of a stream is the SHA-256 of the head and the body's own SHA-256 (32 bytes) of one record after
the other. Whoever moves a large body need not read it again: the worker that made it said its digest.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from skyward.wire.digest import BytesLike
from skyward.wire.envelopes import ErrorInfo, parse_attempt
from skyward.wire.errors import PackageError

_MAGIC = b"SKYO"
_RECORD = struct.Struct("!4sIQ")
_MAX_HEADER = 4 * 1024 * 1024
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call of a task ended.

    `body` is the pickled value, or the pickled exception, or empty where neither could be pickled; `error` is
    there exactly when the call failed. `value` is the result as JSON where it is small and of that form.
    """

    index: int
    ok: bool
    body: BytesLike = b""
    error: ErrorInfo | None = None
    node: str = ""
    rank: int = 0
    attempt: str = ""
    started: float = 0.0
    duration: float = 0.0
    value: Any = None
    digest: str = ""
    """The SHA-256 of the body, where that was known before the record was written."""

    @property
    def number(self) -> int:
        """Which attempt at its call ended so, from 1; 0 for a call that was never begun."""
        try:
            return parse_attempt(self.attempt)[2]
        except ValueError:
            return 0

    @classmethod
    def from_fields(cls, fields: dict[str, Any], body: BytesLike = b"") -> "Outcome":
        """The outcome of a record's header and body. Raises `PackageError`."""
        try:
            error = fields.get("error")
            return cls(
                index=int(fields["index"]),
                ok=bool(fields["ok"]),
                body=body,
                error=ErrorInfo.from_json(error) if error is not None else None,
                node=str(fields.get("node", "")),
                rank=int(fields.get("rank", 0)),
                attempt=str(fields.get("attempt", "")),
                started=float(fields.get("started", 0.0)),
                duration=float(fields.get("duration", 0.0)),
                value=fields.get("value"),
                digest=str(fields.get("digest", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as problem:
            raise PackageError(f"an outcome cannot be read: {problem}") from problem


@dataclass(frozen=True, slots=True)
class Located:
    """An outcome whose body was left where it lies: `size` bytes at `offset` of the file, behind its head."""

    outcome: Outcome
    offset: int
    size: int
    head: bytes = b""


class StreamDigest:
    """The digest of a stream of outcomes, record by record."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def add(self, head: bytes, body_digest: str) -> None:
        """The next record."""
        self._sum.update(head)
        self._sum.update(bytes.fromhex(body_digest))

    def extend(self, records: BytesLike) -> None:
        """Whole records, one behind the other. Raises `PackageError`."""
        view = memoryview(records)
        for start, body, end in _places(view):
            head = bytes(view[start:body])
            said = _fields(head[_RECORD.size :]).get("digest") if b'"digest":' in head else None
            self._sum.update(head)
            self._sum.update(bytes.fromhex(said) if said else hashlib.sha256(view[body:end]).digest())

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._sum.hexdigest()


def pack_outcomes(outcomes: Iterable[Outcome]) -> bytes:
    """The records of `outcomes`, ready to be appended to others."""
    parts: list[BytesLike] = []
    for outcome in outcomes:
        parts += (outcome_head(outcome, _size(outcome.body)), outcome.body)
    return b"".join(parts)


def outcome_head(outcome: Outcome, size: int, room: int = 0, alignment: int = 1, offset: int = 0) -> bytes:
    """The record of `outcome` up to its body, for a body of `size` bytes that comes after it.

    At least `room` bytes long, and so that a head at `offset` ends at a multiple of `alignment`.
    """
    fields: dict[str, Any] = {
        "index": outcome.index,
        "ok": outcome.ok,
        "node": outcome.node,
        "rank": outcome.rank,
        "attempt": outcome.attempt,
        "started": outcome.started,
        "duration": outcome.duration,
    }
    if outcome.error is not None:
        fields["error"] = outcome.error.to_json()
    if outcome.value is not None:
        fields["value"] = outcome.value
    if outcome.digest:
        fields["digest"] = outcome.digest
    header = json.dumps(fields, separators=(",", ":")).encode()
    length = max(room, _RECORD.size + len(header))
    header = header.ljust(length + -(offset + length) % alignment - _RECORD.size)
    return _RECORD.pack(_MAGIC, len(header), size) + header


class Heads:
    """The heads of many outcomes of one node, for calls that returned a value: `outcome_head`, at a tenth of
    its cost."""

    def __init__(self, node: str, rank: int) -> None:
        self._middle = f',"ok":true,"node":{json.dumps(node)},"rank":{rank:d},"attempt":'

    def head(self, index: int, attempt: str, started: float, duration: float, size: int) -> bytes:
        """The head of the outcome of `attempt` (a name in need of no escapes), for a body of `size` bytes."""
        times = f',"started":{started:.6f},"duration":{duration:.9f}}}'
        header = f'{{"index":{index}{self._middle}"{attempt}"{times}'.encode()
        return _RECORD.pack(_MAGIC, len(header), size) + header


def iter_outcomes(source: BytesLike | BinaryIO) -> Iterator[Outcome]:
    """The outcomes in bytes (bodies are views, not copies) or in a binary file (bodies are read).

    Raises `PackageError` at a damaged or unfinished record; those before it have been yielded by then.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source).cast("B")
        for fields, _, body, end in cut_records(view):
            yield Outcome.from_fields(fields, view[body:end])
        return
    for located in scan_outcomes(source):
        source.seek(located.offset)
        yield replace(located.outcome, body=source.read(located.size))


def record_sizes(head: BytesLike) -> tuple[int, int]:
    """The bytes of the whole head of a record, and of its body, by its first bytes. Raises `PackageError`."""
    magic, header, body = _RECORD.unpack_from(head)
    if magic != _MAGIC or header > _MAX_HEADER:
        raise PackageError("no outcome where one should begin")
    return _RECORD.size + header, body


def head_size(begun: BytesLike) -> int:
    """How many bytes of a head are needed, as far as what has begun of it says. Raises `PackageError`."""
    return _RECORD.size if len(begun) < _RECORD.size else record_sizes(begun)[0]


def read_head(data: bytearray, at: int) -> tuple[dict[str, Any], int, int] | None:
    """Header, body's place and body's size of the record at `at`; None until its head is there as a whole."""
    if len(data) - at < _RECORD.size:
        return None
    whole, size = record_sizes(memoryview(data)[at : at + _RECORD.size])
    start = at + whole
    if len(data) < start:
        return None
    return _fields(data[at + _RECORD.size : start]), start, size


def cut_records(records: BytesLike) -> Iterator[tuple[dict[str, Any], int, int, int]]:
    """Header, and where head, body and end are, of each of whole records. Raises `PackageError`."""
    view = memoryview(records)
    for at, body, end in _places(view):
        yield _fields(bytes(view[at + _RECORD.size : body])), at, body, end


def _places(view: memoryview) -> Iterator[tuple[int, int, int]]:
    """Where head, body and end are, of each of whole records. Raises `PackageError`."""
    at = 0
    while at < view.nbytes:
        if view.nbytes - at < _RECORD.size:
            raise PackageError(f"the outcome at byte {at} is cut off")
        magic, header_size, size = _RECORD.unpack_from(view, at)
        body = at + _RECORD.size + header_size
        if magic != _MAGIC or header_size > _MAX_HEADER:
            raise PackageError(f"no outcome at byte {at}")
        if body + size > view.nbytes:
            raise PackageError(f"the outcome at byte {at} is cut off")
        yield at, body, body + size
        at = body + size


def scan_outcomes(file: BinaryIO) -> Iterator[Located]:
    """The outcomes in a seekable file, from its current position, without reading their bodies."""
    offset = file.tell()
    end = file.seek(0, 2)
    while offset < end:
        file.seek(offset)
        head, body, size = _read_head(file, offset, end)
        yield Located(Outcome.from_fields(_fields(head[_RECORD.size :])), body, size, head)
        offset = body + size


def digest_outcomes(file: BinaryIO) -> str:
    """The digest of the stream in a seekable file, from every byte of it. Raises `PackageError`."""
    stream, offset = hashlib.sha256(), file.tell()
    end = file.seek(0, 2)
    file.seek(offset)
    while offset < end:
        head, body, size = _read_head(file, offset, end)
        stream.update(head)
        stream.update(_digest_next(file, size).digest())
        offset = body + size
    return stream.hexdigest()


def digest_body(file: BinaryIO, located: Located) -> str:
    """The SHA-256 of one body, read in pieces."""
    file.seek(located.offset)
    return _digest_next(file, located.size).hexdigest()


def _digest_next(file: BinaryIO, size: int) -> "hashlib._Hash":
    seen = hashlib.sha256()
    while size and (piece := file.read(min(_PIECE, size))):
        seen.update(piece)
        size -= len(piece)
    return seen


def _read_head(file: BinaryIO, offset: int, end: int) -> tuple[bytes, int, int]:
    """The head of the record at `offset`, where the file is, and place and size of its body."""
    prefix = file.read(_RECORD.size)
    if len(prefix) < _RECORD.size:
        raise PackageError(f"the outcome at byte {offset} is cut off")
    magic, header_size, size = _RECORD.unpack(prefix)
    if magic != _MAGIC or header_size > _MAX_HEADER:
        raise PackageError(f"no outcome at byte {offset}")
    body = offset + _RECORD.size + header_size
    if body + size > end:
        raise PackageError(f"the outcome at byte {offset} is cut off")
    return prefix + file.read(header_size), body, size


def _fields(header: bytes | bytearray) -> dict[str, Any]:
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"the header of an outcome cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise PackageError(f"the header of an outcome is {type(fields).__name__}")
    return fields


def _size(body: BytesLike) -> int:
    return body.nbytes if isinstance(body, memoryview) else len(body)
