"""What a store promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class StoreError(Exception):
    """The store did not do it. It may do it later; the text says what is wrong and what to do about it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One file of one task."""

    namespace: str
    uid: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.uid}/{self.name}"


class Store(Protocol):
    """Keeps files whole: what was begun and not finished is never seen by anybody. Every method but `close`
    raises StoreError, after a time that is bounded by what moves."""

    async def keep(self, blob: Blob, path: Path, progressed: Callable[[int], object] | None = None) -> None:
        """Keep a copy of a complete file: when this returns, no crash takes it away. Again is success.

        `progressed` is told of each piece how many bytes moved; fewer than none where they go once more.
        """

    async def size(self, blob: Blob) -> int | None:
        """Bytes of a kept file; None where there is none."""

    def read(self, blob: Blob, start: int = 0) -> AsyncIterator[bytes]:
        """A kept file from a byte on, in pieces. Raises FileNotFoundError where there is none."""

    async def remove(self, namespace: str, uid: str) -> None:
        """Drop all that is kept of a task; absent is success."""

    async def sweep(self) -> set[tuple[str, str]]:
        """Drop what was begun by processes before this one and never finished. Returns namespace and uid of
        every task of which something is kept and that is not in the operator's own folders."""

    def close(self) -> None:
        """Let go of connections; what is asked for later makes new ones."""
