"""One reader of what comes to the disk. It waits for nobody, and nobody waits for it.

Who is too slow is let go and comes back for the rest: it never slows the operator down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward_operator.tasks.work import Work

_FOLLOWED_BYTES: Final = 16 * 1024 * 1024


class Follower:
    """One reader of what comes to the disk. With `uid` it follows one task and ends with it."""

    def __init__(
        self, wants: Callable[[Work], bool], uid: str | None = None, limit: int = _FOLLOWED_BYTES
    ) -> None:
        self.wants = wants
        self.uid = uid
        self.behind = False
        """It took too little for too long: the rest is to be read from disk."""
        self._after = 0.0
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        self._wake = asyncio.Event()
        self._closed = False

    def begin(self, after: float) -> None:
        """Take only what was kept after that: the rest is read from disk."""
        self._after = after

    def offer(self, kept: float, line: bytes) -> None:
        """Pass a line on, in the order in which lines were kept."""
        if kept <= self._after or self.behind:
            return
        self._size += len(line)
        self.behind = self._size > self._limit
        if not self.behind:
            self._lines.append(line)
        self._wake.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """All lines that wait, as soon as there are some; None at the end, and for one that is behind."""
        while not self._lines:
            if self._closed or self.behind:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self.take()

    def take(self) -> bytes:
        """All lines that wait now."""
        lines, self._lines, self._size = b"".join(self._lines), deque(), 0
        return lines
