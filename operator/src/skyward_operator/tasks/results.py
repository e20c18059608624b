"""The outcomes of one task on disk: appended in batches, durable before anything says so.

The agent keeps a result until it is acknowledged, and it is acknowledged only after the batch that holds
it was synced. A crash leaves at most a torn record at the end, which is cut off when the file is read
again; the agents then send what it held once more.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from skyward.wire.outcomes import Outcome, outcome_head, scan_outcomes
from skyward.wire.package import PackageError
from skyward_operator.tasks.ranges import IndexSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from skyward.wire.digest import BytesLike
    from skyward.wire.envelopes import ErrorInfo

logger = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0
_PIECE: Final = 1 << 20


@dataclass(slots=True)
class Recovered:
    """What a file of outcomes says about the calls of its task."""

    succeeded: IndexSet = field(default_factory=IndexSet)
    failed: IndexSet = field(default_factory=IndexSet)
    first_failure: Outcome | None = None


class ResultFile:
    """An append-only file of outcomes. `add` never blocks; `flushed` waits until all of it is durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.trouble: str | None = None
        self._digest = hashlib.sha256()
        self._pending: list[tuple[list[BytesLike], Callable[[], None]]] = []
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def digest(self) -> str:
        """SHA-256 of what is durable."""
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
                    end = located.offset + located.size
                    outcome = located.outcome
                    (found.succeeded if outcome.ok else found.failed).add(outcome.index)
                    if not outcome.ok and found.first_failure is None:
                        found.first_failure = outcome
            except PackageError as error:
                logger.warning("%s: %s; it is cut off there", self.path, error)
            file.truncate(end)
            file.seek(0)
            while piece := file.read(_PIECE):
                self._digest.update(piece)
            self.size = end
        return found

    def add(self, outcome: Outcome, body: BytesLike, durable: Callable[[], None]) -> bool:
        """Append an outcome; `durable` is called once it is safe. True when somebody has to run `drain`."""
        self._pending.append(([outcome_head(outcome, len(body)), body], durable))
        starting = self._idle.is_set()
        self._idle.clear()
        return starting

    async def drain(self) -> None:
        """Write until nothing is pending. One at a time per file."""
        while self._pending:
            batch, self._pending = self._pending, []
            parts = [part for record, _ in batch for part in record]
            # The disk tells nobody when it has room again.
            while not await self._written(parts):  # noqa: ASYNC110
                await asyncio.sleep(_RETRY_SECONDS)
            for _, durable in batch:
                durable()
        self._idle.set()

    async def flushed(self) -> None:
        """Wait until everything that was added is durable."""
        await self._idle.wait()

    async def _written(self, parts: list[BytesLike]) -> bool:
        try:
            await asyncio.to_thread(self._append, parts)
        except OSError as error:
            self.trouble = f"results cannot be stored: {error.strerror or error}"
            logger.error("%s: %s; trying again", self.path, self.trouble)
            return False
        self.trouble = None
        return True

    def _append(self, parts: list[BytesLike]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            # A batch that failed half-way is written over.
            file.truncate(self.size)
            file.seek(self.size)
            for part in parts:
                file.write(part)
            file.flush()
            os.fdatasync(file.fileno())
            size = file.tell()
        for part in parts:
            self._digest.update(part)
        self.size = size


def failure_text(error: ErrorInfo) -> str:
    """One line for people: type and message."""
    return f"{error.type}: {error.message}" if error.message else error.type
