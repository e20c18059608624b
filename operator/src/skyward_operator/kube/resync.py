"""Lists everything and corrects the store: at the start, every few minutes, and ahead of each watch.

A watch tells of what happens after its beginning, so absence is learnt here.
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
        self._fresh: dict[tuple[str, str | None], str] = {}
        """By plural and place: where the first list ended, until a watch begins there."""
        self.corrected: dict[str, int] = {}
        """By plural: the newest resourceVersion that a list knew and the store did not."""

    async def all(self) -> Difference:
        """List every kind once and correct the store; the first success makes it synced."""
        newer = gone = 0
        first = not self._store.synced.is_set()
        for kind in self._store.kinds:
            for place in self._places:
                difference, version = await self._one(kind, place)
                newer, gone = newer + difference.newer, gone + difference.gone
                if first:
                    self._fresh[kind.plural, place] = version
        self._store.synced.set()
        if self._metrics is not None:
            self._metrics.synced.set(1)
        return Difference(newer, gone)

    async def listed(self, kind: Kind, place: str | None) -> str:
        """The resourceVersion of a complete list that the store holds, from which a watch misses nothing:
        for the first one that of the list at the start, later of a list that is made now."""
        if (version := self._fresh.pop((kind.plural, place), None)) is None:
            _, version = await self._one(kind, place)
        return version

    async def run(self) -> None:
        """Correct the store every `interval` seconds, until cancelled."""
        delay = self._interval
        while True:
            await asyncio.sleep(delay)
            try:
                difference = await self.all()
            except ApiError as error:
                logger.warning("the objects could not be listed: %s", error)
                delay = _RETRY_SECONDS
                continue
            delay = self._interval
            if difference:
                logger.info("a list corrected %d objects and removed %d", difference.newer, difference.gone)

    async def _one(self, kind: Kind, place: str | None) -> tuple[Difference, str]:
        first = not self._store.synced.is_set()
        objects, version = await self._api.list(kind, place)
        unknown = [version_of(obj) for obj in objects if self._store.is_news(kind, obj)]
        difference = self._store.replace(kind, objects, version, place)
        if unknown and not first:
            self.corrected[kind.plural] = max(unknown)
        if self._metrics is not None:
            self._metrics.objects.labels(kind.plural).set(self._store.count(kind))
            if not first:
                self._metrics.resync_corrections.labels(kind.plural).inc(difference.newer + difference.gone)
        return difference, version
