"""The files of tasks that do not exist any more: dropped with their Task, or found later and dropped then."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from skyward.contract.names import TASK
from skyward_operator.kube.store import uid_of

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.gateway.logs import LogBook

logger = logging.getLogger(__name__)


class Files:
    """Payloads, results and output on disk."""

    def __init__(self, context: Context, blobs: BlobStore, logs: LogBook) -> None:
        self._context = context
        self.blobs = blobs
        self._logs = logs

    async def drop(self, namespace: str, uid: str) -> None:
        """Remove everything that a task left on disk."""
        await self._logs.flush()
        for files in (self.blobs, self._logs.blobs):
            # Most tasks leave nothing; a look costs far less than a thread that finds that out.
            if files.folder(namespace, uid).exists():
                await asyncio.to_thread(files.remove, namespace, uid)

    async def sweep(self) -> None:
        """Drop what tasks left that went while nobody watched. Only once the store is complete."""
        for files in (self.blobs, self._logs.blobs):
            folders = await asyncio.to_thread(files.folders)
            # A folder is made for an object that is known: looking at the objects last is safe.
            known = {uid_of(task) for task in self._context.store.list(TASK)}
            for namespace, uid in folders:
                if uid not in known:
                    label = f"{namespace}/{uid}"
                    text = "dropping the files of %s, whose Task is gone"
                    logger.info(text, label, extra={"object": label})
                    await asyncio.to_thread(files.remove, namespace, uid)
