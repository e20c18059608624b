"""Workers that take keys from a queue and reconcile them, for as long as the process leads.

A controller knows nothing of what it reconciles. An exception of one key is logged with the key,
counted, and the key comes back later; only the loss of leadership ends the controller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import TYPE_CHECKING, Final

from skyward_operator.kube.errors import Conflict, NotLeader, Throttled, Unavailable

if TYPE_CHECKING:
    from skyward_operator.engine.queue import KeyedQueue
    from skyward_operator.metrics import Metrics

logger = logging.getLogger(__name__)

_LONGEST_RECONCILE_SECONDS: Final = 300.0
_STEPS_IN_A_ROW: Final = 8
"""A key that wants to be seen at once goes ahead of others so often, then they have their turn."""


class Controller[K: Hashable]:
    """`workers` loops over one queue.

    `reconcile(key)` returns the seconds after which it wants to see the key again, or None. It must
    be level-triggered: it is called at least once after each add, with no word on what changed.
    With 0 the key's next step comes ahead of keys that wait for their first: of hundreds that begin
    together, some are through before the last one begins, and what was decided is done soon.
    """

    def __init__(
        self,
        name: str,
        queue: KeyedQueue[K],
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 8,
        timeout: float = _LONGEST_RECONCILE_SECONDS,
        metrics: Metrics | None = None,
    ) -> None:
        self.name = name
        self.queue = queue
        self._reconcile = reconcile
        self._workers = workers
        self._timeout = timeout
        self._metrics = metrics
        self._steps: dict[K, int] = {}
        """How many steps in a row the keys have had that went ahead of others."""
        if metrics is not None:
            metrics.watch_queue(name, lambda: len(queue))

    async def run(self) -> None:
        """Work until cancelled; raises NotLeader when a reconcile meets it."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name} worker {number}")
        except* NotLeader as lost:
            raise NotLeader(str(lost.exceptions[0])) from None
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile_one(key)
            finally:
                self.queue.done(key)

    async def _reconcile_one(self, key: K) -> None:
        started = monotonic()
        outcome = "ok"
        try:
            async with asyncio.timeout(self._timeout):
                again = await self._reconcile(key)
        except NotLeader:
            raise
        except Conflict:
            # The object moved on while it was reconciled: the normal course of optimistic writes.
            outcome = "conflict"
            self.queue.retry(key)
        except Exception as error:
            outcome = "error"
            self._report(key, error, self.queue.retry(key))
        else:
            self.queue.forget(key)
            self._schedule(key, again)
        finally:
            if self._metrics is not None:
                self._metrics.reconciled(self.name, outcome, monotonic() - started)

    def _schedule(self, key: K, again: float | None) -> None:
        steps = self._steps.pop(key, 0)
        if again is None:
            return
        if again <= 0 and steps < _STEPS_IN_A_ROW:
            self._steps[key] = steps + 1
            self.queue.add(key, first=True)
        else:
            self.queue.add_after(key, again)

    def _report(self, key: K, error: Exception, delay: float) -> None:
        label = "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
        expected = isinstance(error, (Throttled, Unavailable, TimeoutError))
        logger.log(
            logging.WARNING if expected else logging.ERROR,
            "%s %s: %s: %s; again in %.1f s",
            self.name,
            label,
            type(error).__name__,
            error,
            delay,
            extra={"object": label, "controller": self.name},
            exc_info=None if expected else error,
        )
