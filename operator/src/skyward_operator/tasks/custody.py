"""What of a task goes into the store, and how an operator that lacks its folder gets it back.

Kept are: the payload before its upload is confirmed, the frozen nodes of a broadcast, and the outcomes before
the status says that the task has ended. What an operator works with until then (outcomes of calls while
others run, the journal of attempts, output) is on its own disk.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.ranges import spans
from skyward_operator.gateway.stores.contract import Blob, StoreError
from skyward_operator.gateway.stores.recall import recall, recall_payload
from skyward_operator.tasks.record import INLINE_RESULT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from skyward_operator.engine.clock import Clock
    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.gateway.stores.contract import Store
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.work import Work

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_TOLD_SECONDS: Final = 3.0
"""So often a status says how far results are on their way into the store."""


def forgotten(status: Mapping[str, Any], live: LiveTask) -> Sequence[range]:
    """Calls that had ended, by the status of a task whose outcomes are nowhere any more: they were on the
    disk of an operator on another machine."""
    counts = status.get("counts") or {}
    if live.open is not None or live.results.size or not counts.get("succeeded", 0) + counts.get("failed", 0):
        return ()
    if live.total == 1:
        return (range(1),)
    return (*spans(status.get("succeededIndexes")), *spans(status.get("failedIndexes")))


class Custody:
    """Between the folders of tasks and the store."""

    def __init__(self, store: Store, blobs: BlobStore, clock: Clock) -> None:
        self.store = store
        self._blobs = blobs
        self._clock = clock

    async def keep_results(self, live: LiveTask) -> None:
        """Keep what an ended task returned, however long that takes, unless that is given up; its status says
        why it waits."""
        await live.results.flushed()
        if live.open is not None or live.outcome is not None or live.results.size <= INLINE_RESULT:
            return
        keeping = asyncio.ensure_future(self._keep_results(live))
        given_up = asyncio.ensure_future(live.results.given_up.wait())
        try:
            await asyncio.wait((keeping, given_up), return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
        finally:
            keeping.cancel()
            given_up.cancel()
        live.results.trouble = None

    async def _keep_results(self, live: LiveTask) -> None:
        blob = Blob(live.work.namespace, live.work.uid, live.results.path.name)
        pause = _FIRST_PAUSE
        while not live.gone:
            try:
                await self._keep_and_tell(live, blob)
            except (StoreError, OSError) as error:
                live.results.trouble = f"its results cannot be stored yet: {error}"
                logger.warning("%s: %s", live.work.label, error, extra={"object": live.work.label})
            else:
                return
            await self._clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _keep_and_tell(self, live: LiveTask, blob: Blob) -> None:
        """Keep them; where that takes a while, the status says how far it is."""
        size, moved = live.results.size, 0

        def tell(count: int) -> None:
            nonlocal moved
            moved += count

        keeping = asyncio.ensure_future(self.store.keep(blob, live.results.path, tell))
        try:
            while not (await asyncio.wait([keeping], timeout=_TOLD_SECONDS))[0]:
                if moved > 0 or not live.results.trouble:  # what it failed with before says more than that
                    there = f"{max(0, moved) / 1e6:,.1f} of {size / 1e6:,.1f} MB"
                    live.results.trouble = f"its results are being stored: {there} are in the store"
            keeping.result()
        finally:
            keeping.cancel()

    async def keep_members(self, live: LiveTask) -> None:
        """Keep the frozen nodes of a broadcast; it does not wait for that."""
        work, pause = live.work, _FIRST_PAUSE
        path = self._blobs.members(work.namespace, work.uid)
        while not (live.gone or live.completing):
            try:
                await self.store.keep(Blob(work.namespace, work.uid, path.name), path)
            except (StoreError, OSError) as error:
                logger.warning("%s: %s", work.label, error, extra={"object": work.label})
            else:
                return
            await self._clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def recall_started(self, work: Work) -> None:
        """Have here what an earlier operator kept of a task that has started and not ended: the frozen nodes
        of a broadcast, and outcomes if all were there. Waits for the store: without it nobody knows."""
        paths = [self._blobs.results(work.namespace, work.uid)]
        if work.broadcast:
            paths.append(self._blobs.members(work.namespace, work.uid))
        pause = _FIRST_PAUSE
        for path in paths:
            while not path.exists():
                try:
                    await recall(self.store, Blob(work.namespace, work.uid, path.name), path)
                except (StoreError, OSError) as error:
                    logger.warning("%s waits: %s", work.label, error, extra={"object": work.label})
                    await self._clock.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    break

    async def recall_payload(
        self, live: LiveTask, progressed: Callable[[LiveTask], None], arrived: Callable[[LiveTask], None]
    ) -> None:
        """Have the payload of a task here, if an earlier operator kept it; a store that does not answer is
        asked again for as long as the task waits."""
        work, pause = live.work, _FIRST_PAUSE
        path = self._blobs.payload(work.namespace, work.uid)
        blob = Blob(work.namespace, work.uid, path.name)
        while work.blob is not None and not (live.gone or live.completing or path.exists()):
            try:
                found = await recall_payload(self.store, blob, path, work.blob, lambda: progressed(live))
            except (StoreError, OSError) as error:
                logger.warning("%s: %s", work.label, error, extra={"object": work.label})
                progressed(live)  # nobody knows yet that it is not there
                await self._clock.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if found and not live.gone:
                arrived(live)
            return
