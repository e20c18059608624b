"""The outcomes of one task on disk: appended in batches, durable before anything says so.

The agent keeps a result until it is acknowledged, and it is acknowledged only after the batch that holds
it was synced. A crash leaves at most a torn record at the end, which is cut off when the file is read
again; the agents then send what it held once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from skyward.wire.digest import digest
from skyward.wire.outcomes import Outcome, StreamDigest, digest_body, outcome_head, scan_outcomes
from skyward.wire.package import PackageError
from skyward_operator import disk
from skyward_operator.nodes.received import ROOM, Received
from skyward_operator.tasks.ranges import IndexSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from skyward.wire.digest import BytesLike
    from skyward.wire.envelopes import ErrorInfo

logger = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0
_LARGE: Final = 16 * 1024
_ALIGNMENT: Final = 64
"""Where the bodies of large outcomes begin: arrays in a mapped file are used in place then."""


@dataclass(slots=True)
class Recovered:
    """What a file of outcomes says about the calls of its task."""

    succeeded: IndexSet = field(default_factory=IndexSet)
    failed: IndexSet = field(default_factory=IndexSet)
    first_failure: Outcome | None = None


@dataclass(slots=True, eq=False)
class _Record:
    """An outcome that is not durable yet."""

    outcome: Outcome
    body: BytesLike | Received
    durable: Callable[[], None]

    @property
    def bytes(self) -> BytesLike:
        """The body, where it is in memory."""
        return b"" if isinstance(self.body, Received) else self.body


@dataclass(slots=True, eq=False)
class _Records:
    """Whole records that are not durable yet."""

    bytes: bytes
    durable: Callable[[], None]


class ResultFile:
    """An append-only file of outcomes. `add` never blocks; `flushed` waits until all of it is durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.trouble: str | None = None
        self._digest = StreamDigest()
        self._pending: list[_Record | _Records] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_closed = False
        """Nothing more comes: its task has ended."""
        self.given_up = asyncio.Event()
        """Nobody waits for the store to take it any more."""
        self._readers: set[asyncio.Event] = set()

    @property
    def digest(self) -> str:
        """The digest of the stream that is durable."""
        return self._digest.hexdigest()

    def recover(self) -> Recovered:
        """Read what is there and cut off a torn tail. Blocks: call it in a thread, before `add`."""
        found = Recovered()
        if not self.path.exists():
            return found
        with self.path.open("r+b") as file:
            end = 0
            try:
                for located in scan_outcomes(file):
                    self._digest.add(located.head, located.outcome.digest or digest_body(file, located))
                    end = located.offset + located.size
                    outcome = located.outcome
                    (found.succeeded if outcome.ok else found.failed).add(outcome.index)
                    if not outcome.ok and found.first_failure is None:
                        found.first_failure = outcome
            except PackageError as error:
                logger.warning("%s: %s; it is cut off there", self.path, error)
            file.truncate(end)
            self.size = end
        return found

    def add(self, outcome: Outcome, body: BytesLike | Received, durable: Callable[[], None]) -> bool:
        """Append an outcome; `durable` is called once it is safe. True when somebody has to run `drain`."""
        if isinstance(body, Received):
            body.taken = True
            outcome = replace(outcome, digest=body.digest)
        return self._add(_Record(outcome, body, durable))

    def add_records(self, records: bytes, durable: Callable[[], None]) -> bool:
        """Append whole records as they are; otherwise as `add`."""
        return self._add(_Records(records, durable))

    def _add(self, record: _Record | _Records) -> bool:
        self._pending.append(record)
        starting = self._idle.is_set()
        self._idle.clear()
        return starting

    async def drain(self) -> None:
        """Write until nothing is pending. One at a time per file."""
        while self._pending:
            batch, self._pending = self._pending, []
            # The disk tells nobody when it has room again.
            while not await self._written(batch):  # noqa: ASYNC110
                await asyncio.sleep(_RETRY_SECONDS)
            for record in batch:
                record.durable()
            self._wake_readers()
        self._idle.set()

    def attach(self) -> asyncio.Event:
        """A reader of what comes: the event is set when the file has grown, and when it is closed."""
        growth = asyncio.Event()
        self._readers.add(growth)
        return growth

    def detach(self, growth: asyncio.Event) -> None:
        """This reader is gone."""
        self._readers.discard(growth)

    def close(self) -> None:
        """Its task has ended: those who read along hear so."""
        self.is_closed = True
        self._wake_readers()

    def _wake_readers(self) -> None:
        for growth in self._readers:
            growth.set()

    async def find(self, index: int) -> Outcome | None:
        """The latest durable outcome of a call, whole; None where there is none."""
        return await asyncio.to_thread(self._find, index) if self.size else None

    async def flushed(self) -> None:
        """Wait until everything that was added is durable."""
        await self._idle.wait()

    async def _written(self, batch: list[_Record | _Records]) -> bool:
        try:
            await asyncio.to_thread(self._append, batch)
        except OSError as error:
            self.trouble = f"results cannot be stored: {self._why(error, batch)}"
            logger.error("%s: %s; trying again", self.path, self.trouble)
            return False
        self.trouble = None
        return True

    def _why(self, error: OSError, batch: list[_Record | _Records]) -> str:
        text = str(error.strerror or error)
        if error.errno != errno.ENOSPC or "free" in text:
            return text
        size = sum(len(each.bytes) if isinstance(each, _Records) else len(each.body) for each in batch)
        with contextlib.suppress(OSError):
            folder = next(each for each in self.path.parents if each.exists())
            text += f": {size:,} bytes are needed and {disk.free(folder):,} are free"
        return text

    def _find(self, index: int) -> Outcome | None:
        found: Outcome | None = None
        with self.path.open("rb") as file, contextlib.suppress(PackageError):  # its end is being written
            for located in scan_outcomes(file):
                if located.outcome.index == index:
                    found = replace(located.outcome, body=_read(self.path, located.offset, located.size))
        return found

    def _append(self, batch: list[_Record | _Records]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        first, heads, size = batch[0], list[bytes](), self.size
        if size == 0 and isinstance(first, _Record) and (head := self._become(first)):
            heads, size = [head], ROOM + len(first.body)
        if rest := batch[len(heads) :]:
            more, size = self._extend(rest, size)
            heads += more
        for record, head in zip(batch, heads, strict=True):
            if isinstance(record, _Records):
                self._digest.extend(record.bytes)
            else:
                self._digest.add(head, record.outcome.digest or digest(record.bytes))
        self.size = size
        for record in batch:
            if isinstance(record, _Record) and isinstance(record.body, Received):
                record.body.drop()

    def _become(self, record: _Record) -> bytes:
        """Make the file of a large first result the file of outcomes. Returns its head, or nothing if that
        cannot be."""
        head = outcome_head(record.outcome, len(record.body), room=ROOM)
        if not isinstance(record.body, Received) or len(head) != ROOM:
            return b""
        if record.body.path.exists():  # else a batch that failed behind it has done this already
            try:
                record.body.become(head, self.path)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return b""
        return head

    def _extend(self, batch: list[_Record | _Records], size: int) -> tuple[list[bytes], int]:
        heads: list[bytes] = []
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            # A batch that failed half-way is written over.
            file.truncate(size)
            file.seek(size)
            for record in batch:
                if isinstance(record, _Records):
                    heads.append(b"")
                    file.write(record.bytes)
                    continue
                alignment = _ALIGNMENT if len(record.body) >= _LARGE else 1
                head = outcome_head(record.outcome, len(record.body), alignment=alignment, offset=file.tell())
                heads.append(head)
                file.write(head)
                if isinstance(record.body, Received):
                    file.flush()
                    disk.need(file.fileno(), len(record.body))
                    record.body.splice(file.fileno())
                    file.seek(0, os.SEEK_END)
                else:
                    file.write(record.body)
            file.flush()
            os.fdatasync(file.fileno())
            return heads, file.tell()


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def failure_text(error: ErrorInfo) -> str:
    """One line for people: type and message."""
    return f"{error.type}: {error.message}" if error.message else error.type
