"""The default store: the operator's own folders, which outlive its process and not its disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.gateway.stores.contract import Blob

_PIECE: Final = 1 << 18


class DiskStore:
    """Files are kept where they are written, so there is nothing to copy."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def keep(self, blob: Blob, path: Path, progressed: Callable[[int], object] | None = None) -> None:
        """It is durable already: whoever wrote it has synced it."""

    async def size(self, blob: Blob) -> int | None:
        """Bytes of a file; None where there is none."""
        try:
            return (await asyncio.to_thread(self._path(blob).stat)).st_size
        except FileNotFoundError:
            return None

    async def read(self, blob: Blob, start: int = 0) -> AsyncIterator[bytes]:
        """A file from a byte on."""
        with await asyncio.to_thread(self._path(blob).open, "rb") as file:
            file.seek(start)
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    async def remove(self, namespace: str, uid: str) -> None:
        """Its folder is dropped by whoever works in it."""

    async def sweep(self) -> set[tuple[str, str]]:
        """Nothing is kept beside the folders, and those are swept by their owner."""
        return set()

    def close(self) -> None:
        """There is nothing to let go of."""

    def _path(self, blob: Blob) -> Path:
        return self._blobs.folder(blob.namespace, blob.uid) / blob.name
