"""Results on disk, from the moment they exist until the operator has acknowledged them.

Small results, and batches of a slice as one, are appended to a journal, each with one `write`, so that the
death of the agent leaves whole records and at most one torn tail, which is cut off at the next start. Large
results are files that the worker wrote; the journal names them. There is no fsync: a machine that loses its
page cache loses its workers too.
"""

import contextlib
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyward.agent.ranges import Ranges
from skyward.wire.envelopes import ErrorInfo, FailureReason
from skyward.wire.errors import FrameError
from skyward.wire.frames import CHUNK, MAX_FRAME, Decoder, Frame, FrameKind, encode

_EMPTY_ABOVE = 256 * 1024
"""A journal without live records is emptied at this size: a truncation costs as much as six appends."""

_COMPACT_ABOVE = 64 * 1024 * 1024
_REMEMBERED = 10_000
_TOTAL = struct.Struct("!I")

log = logging.getLogger("skyward.agent")


@dataclass(slots=True)
class Spooled:
    """A result that waits for its acknowledgement: in the journal, in its own file, or (disk full) here."""

    header: dict[str, Any]
    offset: int = -1
    length: int = 0
    file: Path | None = None
    body: bytes | None = None


class Spool:
    """All results that are not acknowledged, oldest first."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._path = folder / "journal"
        self._held: dict[str, Spooled] = {}
        self._names = Ranges()
        self._acknowledged = Ranges()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._recover()

    def close(self) -> None:
        """Let go of the journal."""
        os.close(self._fd)

    def held(self) -> list[str]:
        """The attempts whose results wait for an acknowledgement; a batch by the name of its first item."""
        return list(self._held)

    def count(self, attempt: str) -> int | None:
        """How many items the batch of this name has; None for the result of one call."""
        count: int | None = self._held[attempt].header.get("count")
        return count

    def state(self, attempt: str, count: int = 1) -> str | None:
        """Whether one of these attempts ended: `done`, or `acknowledged` not long ago."""
        if self._names.find(attempt, count) is not None:
            return "done"
        return "acknowledged" if self._acknowledged.find(attempt, count) is not None else None

    def add(self, header: dict[str, Any], body: bytes, file: Path | None = None) -> bytes:
        """Keep a result. `file` (inside `folder`) holds the body of a large one.

        Returns the record, which is the encoded RESULT frame of a small result.
        """
        record = dict(header)
        if file is not None:
            record["file"] = file.name
        spooled = Spooled(header, file=file)
        data = encode(Frame(FrameKind.RESULT, record, body))
        try:
            spooled.offset, spooled.length = self._append(data)
        except OSError as error:
            log.error("the result of %s stays in memory: %s", header["attempt"], error)
            spooled.body = body
        self._hold(spooled)
        return data

    def frames(self, attempt: str) -> Iterator[Frame]:
        """The RESULT frame of an attempt; `pieces` has the body of a large one."""
        spooled = self._held.get(attempt)
        if spooled is None:
            return
        if spooled.file is not None:
            yield Frame(FrameKind.RESULT, spooled.header)
        elif spooled.body is not None:
            yield Frame(FrameKind.RESULT, spooled.header, spooled.body)
        else:
            frame = _decode(os.pread(self._fd, spooled.length, spooled.offset))
            yield Frame(FrameKind.RESULT, spooled.header, frame.body)

    def pieces(self, attempt: str, offset: int, fetch: int) -> Iterator[Frame]:
        """The body of a large result from `offset` on, as RESULT_CHUNK frames of this `fetch`.

        Where the file is gone or too short, a RESULT that says so takes the place of the one announced.
        """
        spooled = self._held.get(attempt)
        if spooled is None or spooled.file is None:
            return
        size = int(spooled.header["size"])
        header = {"attempt": attempt, "fetch": fetch}
        try:
            with spooled.file.open("rb", buffering=0) as source:
                source.seek(offset)
                while offset < size and (body := source.read(min(CHUNK, size - offset))):
                    last = offset + len(body) >= size
                    yield Frame(FrameKind.RESULT_CHUNK, {**header, "offset": offset, "last": last}, body)
                    offset += len(body)
        except OSError as error:
            trouble: str | None = f"{error.strerror or error}"
        else:
            trouble = f"its file ends at {offset} of {size} bytes" if offset < size else None
        if trouble is not None and attempt in self._held:
            log.error("the result of %s is lost: %s", attempt, trouble)
            yield Frame(FrameKind.RESULT, _lost(spooled.header, trouble))

    def acknowledge(self, attempts: Iterable[str]) -> None:
        """Forget results. Unknown attempts are fine: an ACK may come twice."""
        gone = [attempt for attempt in attempts if (self._forget(attempt))]
        while len(self._acknowledged) > _REMEMBERED:
            self._acknowledged.discard_oldest()
        if not gone:
            return
        with contextlib.suppress(OSError):  # a lost ACK record only means that a result is sent once more
            if not self._held and self._size > _EMPTY_ABOVE:
                os.ftruncate(self._fd, 0)
                self._size = 0
            else:
                self._append(encode(Frame(FrameKind.ACK, {"attempts": gone})))
                self._compact()

    def _hold(self, spooled: Spooled) -> None:
        name = spooled.header["attempt"]
        self._held[name] = spooled
        self._names.add(name, spooled.header.get("count", 1))

    def _forget(self, attempt: str) -> bool:
        spooled = self._held.pop(attempt, None)
        if spooled is None:
            return False
        self._names.discard(attempt)
        self._acknowledged.add(attempt, spooled.header.get("count", 1))
        if spooled.file is not None:
            spooled.file.unlink(missing_ok=True)
        return True

    def _append(self, data: bytes) -> tuple[int, int]:
        offset = self._size
        written = os.write(self._fd, data)
        if written != len(data):
            os.ftruncate(self._fd, offset)
            raise OSError("the disk is full")
        self._size += written
        return offset, written

    def _compact(self) -> None:
        """Rewrite a journal that is mostly acknowledged, so that a busy node does not fill its disk."""
        live = sum(spooled.length for spooled in self._held.values())
        if self._size < _COMPACT_ABOVE or live > self._size // 2:
            return
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = 0
        for spooled in self._held.values():
            if spooled.length:
                os.write(fd, os.pread(self._fd, spooled.length, spooled.offset))
                spooled.offset, size = size, size + spooled.length
        fresh.rename(self._path)
        os.close(self._fd)
        self._fd, self._size = fd, size

    def _recover(self) -> None:
        for offset, length, frame in _records(self._fd):
            self._size = offset + length
            if frame.kind is FrameKind.ACK:
                for attempt in frame.header["attempts"]:
                    self._forget(attempt)
                continue
            header = dict(frame.header)
            name = header.pop("file", None)
            file = self.folder / name if name else None
            if file is None or file.is_file():
                self._hold(Spooled(header, offset, length, file))
        self._size = self._size if self._held else 0
        os.ftruncate(self._fd, self._size)
        self.remove_strays()

    def remove_strays(self, worker: int | None = None) -> None:
        """Remove what workers (or the one with this pid) left when they died while writing a result."""
        known = {spooled.file.name for spooled in self._held.values() if spooled.file is not None}
        for path in self.folder.glob("*" if worker is None else f"{worker}-*"):
            if path != self._path and path.name not in known:
                path.unlink(missing_ok=True)


def _lost(header: dict[str, Any], trouble: str) -> dict[str, Any]:
    error = ErrorInfo(
        "ResultLost",
        f"the result was lost on the node after the call had ended: {trouble}",
        kind="System",
        reason=FailureReason.INTERNAL_ERROR,
    )
    times: dict[str, Any] = {key: header[key] for key in ("attempt", "started", "duration") if key in header}
    return {**times, "ok": False, "size": 0, "chunked": False, "error": error.to_json()}


def _records(fd: int) -> Iterator[tuple[int, int, Frame]]:
    """The whole records of a journal, with their places; it ends at the first torn one."""
    offset = 0
    while len(prefix := os.pread(fd, _TOTAL.size, offset)) == _TOTAL.size:
        length = _TOTAL.size + _TOTAL.unpack(prefix)[0]
        if length > MAX_FRAME + _TOTAL.size:
            return
        data = os.pread(fd, length, offset)
        try:
            frame = _decode(data)
        except FrameError:
            return
        yield offset, length, frame
        offset += length


def _decode(data: bytes) -> Frame:
    for frame in Decoder().feed(data):
        return frame
    raise FrameError("a record is cut off")
