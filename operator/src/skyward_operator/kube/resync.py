"""Lists everything and corrects the store: at the start, every few minutes, and after each gap of a watch.

A watch that reconnects tells of what is there, not of what is gone, so absence is learnt here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from skyward_operator.kube.errors import ApiError
from skyward_operator.kube.store import Difference, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward.contract.names import Kind
    from skyward_operator.kube.api import Api
    from skyward_operator.kube.store import Store
    from skyward_operator.metrics import Metrics

logger = logging.getLogger(__name__)

_SETTLE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 5.0


class Resync:
    """Keeps one store equal to the API server; `namespaces` empty means all of them."""

    def __init__(
        self,
        api: Api,
        store: Store,
        *,
        namespaces: Sequence[str] = (),
        interval: float = 300.0,
        metrics: Metrics | None = None,
    ) -> None:
        self._api = api
        self._store = store
        self._places: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._interval = interval
        self._metrics = metrics
        self._asked = asyncio.Event()
        self.corrected: dict[str, int] = {}
        """By plural: the newest resourceVersion that a list knew and the store did not."""

    def ask(self) -> None:
        """Have everything listed soon; several asks in a row are one."""
        self._asked.set()

    async def all(self) -> Difference:
        """List every kind once and correct the store; the first success makes it synced."""
        newer = gone = 0
        for kind in self._store.kinds:
            difference = await self._one(kind)
            newer, gone = newer + difference.newer, gone + difference.gone
        self._store.synced.set()
        if self._metrics is not None:
            self._metrics.synced.set(1)
        return Difference(newer, gone)

    async def run(self) -> None:
        """Correct the store when asked and every `interval` seconds, until cancelled."""
        delay = self._interval
        while True:
            try:
                async with asyncio.timeout(delay):
                    await self._asked.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
            except TimeoutError:
                pass
            self._asked.clear()
            try:
                difference = await self.all()
            except ApiError as error:
                logger.warning("the objects could not be listed: %s", error)
                delay = _RETRY_SECONDS
                continue
            delay = self._interval
            if difference:
                logger.info("a list corrected %d objects and removed %d", difference.newer, difference.gone)

    async def _one(self, kind: Kind) -> Difference:
        first = not self._store.synced.is_set()
        newer = gone = 0
        for place in self._places:
            objects, version = await self._api.list(kind, place)
            unknown = [version_of(obj) for obj in objects if self._store.is_news(kind, obj)]
            difference = self._store.replace(kind, objects, version, place)
            newer, gone = newer + difference.newer, gone + difference.gone
            if unknown and not first:
                self.corrected[kind.plural] = max(unknown)
        if self._metrics is not None:
            self._metrics.objects.labels(kind.plural).set(self._store.count(kind))
            if not first:
                self._metrics.resync_corrections.labels(kind.plural).inc(newer + gone)
        return Difference(newer, gone)
