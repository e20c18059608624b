"""The files of tasks that do not exist any more: dropped with their Task, or found later and dropped then."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from skyward.contract.names import TASK
from skyward_operator.gateway.stores import StoreError
from skyward_operator.kube.store import uid_of

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.gateway.logs import LogBook
    from skyward_operator.gateway.stores import Store

logger = logging.getLogger(__name__)

_SWEEP_SECONDS: Final = 6 * 3600.0


class Files:
    """Payloads, results and output: in folders on disk, and in the store."""

    def __init__(self, context: Context, blobs: BlobStore, logs: LogBook, store: Store) -> None:
        self._context = context
        self.blobs = blobs
        self._logs = logs
        self._store = store

    async def drop(self, namespace: str, uid: str) -> None:
        """Remove everything that a task left. What the store does not drop now is swept later."""
        await self._logs.flush()
        for files in (self.blobs, self._logs.blobs):
            # Most tasks leave nothing; a look costs far less than a thread that finds that out.
            if files.folder(namespace, uid).exists():
                await asyncio.to_thread(files.remove, namespace, uid)
        await self._drop_kept(namespace, uid)

    async def run(self) -> None:
        """Sweep now and then, for ever."""
        while True:
            await self.sweep()
            await self._context.clock.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Drop what tasks left that went while nobody watched. Only once the store of objects is complete."""
        for files in (self.blobs, self._logs.blobs):
            for namespace, uid in self._ownerless(await asyncio.to_thread(files.folders)):
                await asyncio.to_thread(files.remove, namespace, uid)
        try:
            kept = await self._store.sweep()
        except StoreError as error:
            logger.error("the blob store does not serve: %s", error)
            return
        for namespace, uid in self._ownerless(sorted(kept)):
            await self._drop_kept(namespace, uid)

    def _ownerless(self, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those whose Task is gone. A file is made for an object that is known: looking at the objects after
        the files were listed is safe."""
        known = {uid_of(task) for task in self._context.store.list(TASK)}
        gone = [(namespace, uid) for namespace, uid in found if uid not in known]
        for namespace, uid in gone:
            label = f"{namespace}/{uid}"
            logger.info("dropping the files of %s, whose Task is gone", label, extra={"object": label})
        return gone

    async def _drop_kept(self, namespace: str, uid: str) -> None:
        try:
            await self._store.remove(namespace, uid)
        except StoreError as error:
            label = f"{namespace}/{uid}"
            logger.warning("%s: %s; it is tried again later", label, error, extra={"object": label})
