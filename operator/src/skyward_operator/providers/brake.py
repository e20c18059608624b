"""Keeps an account quiet for as long as its provider asked.

The message does not count down: it goes into a status, which would be written again for each second.

Many nodes share one account: when one of their requests is told to slow down, the others must not find out
one by one, because each further request makes it worse.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from skyward_operator.providers.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_SECONDS = 5.0
LONGEST_SECONDS = 300.0
"""A provider that asks for more is asked again after this."""


class Brake:
    """One account's silence."""

    def __init__(self, provider: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._until = 0.0

    def check(self) -> None:
        """Raise RateLimited while the silence lasts; nothing was sent then."""
        left = self._until - self._clock()
        if left > 0:
            raise RateLimited(f"{self._provider} asked for a pause", left)

    def pull(self, retry_after: float | None) -> RateLimited:
        """The provider asked for a pause. Returns the error to raise."""
        seconds = min(LONGEST_SECONDS, DEFAULT_SECONDS if retry_after is None else retry_after)
        self._until = max(self._until, self._clock() + seconds)
        return RateLimited(f"{self._provider} asked for a pause", seconds)
