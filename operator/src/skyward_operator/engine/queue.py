"""A queue of keys: each key is worked on by one worker at a time, and waits at most once.

Reconcilers are level-triggered: a key says "look at this object again", so two adds before a worker
comes are one, and an add while the key is being worked on makes it come again afterwards. Keys that
failed come back with growing delays, so that one broken object never starves the others.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

_FIRST_RETRY_SECONDS: Final = 0.2
_LONGEST_RETRY_SECONDS: Final = 60.0


class KeyedQueue[K: Hashable]:
    """Keys waiting for a worker; belongs to one event loop.

    A worker takes a key with `get()` and gives it back with `done(key)`, always.
    """

    def __init__(
        self,
        *,
        first_retry: float = _FIRST_RETRY_SECONDS,
        longest_retry: float = _LONGEST_RETRY_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first_retry = first_retry
        self._longest_retry = longest_retry
        self._jitter = jitter
        self._waiting: OrderedDict[K, None] = OrderedDict()
        self._working: set[K] = set()
        self._again: dict[K, bool] = {}
        """Keys that were added while they are worked on; True: ahead of the others."""
        self._later: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._getters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K, *, first: bool = False) -> None:
        """Have the key worked on soon, or `first`, ahead of all that wait; a delayed add of the same key
        becomes superfluous."""
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        if key in self._working:
            self._again[key] = self._again.get(key, False) or first
            return
        if key not in self._waiting:
            self._waiting[key] = None
            self._wake_one()
        if first:
            self._waiting.move_to_end(key, last=False)

    def add_after(self, key: K, delay: float) -> None:
        """Have the key worked on after `delay` seconds, or earlier where that was asked before."""
        if delay <= 0:
            self.add(key)
            return
        if key in self._waiting or key in self._again:
            return
        loop = asyncio.get_running_loop()
        timer = self._later.get(key)
        if timer is not None and timer.when() <= loop.time() + delay:
            return
        if timer is not None:
            timer.cancel()
        self._later[key] = loop.call_later(delay, self._due, key)

    async def get(self) -> K:
        """The next key; it is not handed out again before `done`."""
        while not self._waiting:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                # A getter that was woken and cancelled at once must pass the wake-up on.
                if getter.done() and not getter.cancelled():
                    self._wake_one()
                raise
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker is through with the key."""
        self._working.discard(key)
        if (first := self._again.pop(key, None)) is not None:
            self.add(key, first=first)

    def retry(self, key: K) -> float:
        """Have a failed key worked on again, later each time; the seconds until then."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = min(self._longest_retry, self._first_retry * 2.0 ** min(failures, 30))
        delay = longest * (0.5 + 0.5 * self._jitter())
        self.add_after(key, delay)
        return delay

    def failures(self, key: K) -> int:
        """How often in a row the key failed."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure starts with the shortest delay."""
        self._failures.pop(key, None)

    def close(self) -> None:
        """Drop every pending timer; nothing becomes due afterwards."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    def _due(self, key: K) -> None:
        self._later.pop(key, None)
        self.add(key)

    def _wake_one(self) -> None:
        for getter in self._getters:
            if not getter.done():
                getter.set_result(None)
                return
