"""A payload comes in: streamed to a file beside its place, checked against what its Task says, then renamed.

The object comes first and waits for its payload; bytes without an object do not stay.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from skyward_operator.gateway.blobs import replace_durably

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import BinaryIO

    from aiohttp import StreamReader

    from skyward_operator.gateway.blobs import BlobStore

_PIECE: Final = 1 << 20
PATIENCE_SECONDS: Final = 60.0
SLOWEST_BYTES_PER_SECOND: Final = 16 * 1024
"""A body may pause for as long as the first, and may be as slow as the second over its whole length."""


class Uploads:
    """Takes payloads in."""

    def __init__(self, blobs: BlobStore, largest: int, progressed: Callable[[str], None]) -> None:
        """`progressed` is told the uid of a task for each piece of its payload that is kept."""
        self._blobs = blobs
        self._largest = largest
        self._progressed = progressed

    async def take(self, task: dict[str, Any], request: web.Request) -> None:
        """Store the body of a request as the payload of a task; again is success. Raises HTTP errors."""
        metadata, blob = task["metadata"], (task["spec"].get("calls") or {}).get("blob")
        if blob is None:
            raise web.HTTPConflict(
                text=f"Task {metadata['name']} carries its calls itself: nothing to upload"
            )
        size = int(blob["sizeBytes"])
        if size > self._largest:
            raise web.HTTPRequestEntityTooLarge(
                max_size=self._largest,
                actual_size=size,
                text=f"the payload has {size} bytes and at most {self._largest} are taken; "
                "put large data on a volume or into an object store and pass its place, or raise "
                "--largest-payload of the operator",
            )
        if request.content_length not in (None, size):
            raise web.HTTPBadRequest(
                text=f"the body has {request.content_length} bytes and spec.calls.blob.sizeBytes says {size}"
            )
        namespace, uid = metadata["namespace"], metadata["uid"]
        final = self._blobs.payload(namespace, uid)
        if await asyncio.to_thread(final.exists):
            return
        folder = await asyncio.to_thread(self._blobs.make, namespace, uid)
        part = folder / f"payload.{secrets.token_hex(8)}.part"
        try:
            await _receive(request.content, part, size, blob["digest"], lambda: self._progressed(uid))
            await asyncio.to_thread(replace_durably, part, final)
        except OSError as error:
            raise web.HTTPInsufficientStorage(
                text=f"the payload cannot be stored: {error.strerror or error}"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def drop(self, task: dict[str, Any]) -> None:
        """The object went while its payload came."""
        self._blobs.remove(task["metadata"]["namespace"], task["metadata"]["uid"])


async def _receive(
    content: StreamReader, part: Path, size: int, digest: str, progressed: Callable[[], None]
) -> None:
    received, seen = 0, hashlib.sha256()
    file = _create(part)
    try:
        async for piece in _in_time(content):
            received += len(piece)
            if received > size:
                raise web.HTTPBadRequest(text=f"the body is larger than the {size} bytes of spec.calls.blob")
            await asyncio.to_thread(_keep, file, seen, piece)
            progressed()
        if received != size:
            raise web.HTTPBadRequest(text=f"the body ended after {received} of {size} bytes")
        if seen.hexdigest() != digest:
            raise web.HTTPUnprocessableEntity(
                text=f"the body's SHA-256 is {seen.hexdigest()} and spec.calls.blob.digest says {digest}"
            )
        await asyncio.to_thread(_sync, file)
    finally:
        await asyncio.to_thread(file.close)


async def _in_time(content: StreamReader) -> AsyncIterator[bytes]:
    """The pieces of a body, for as long as they come at a rate that is worth a connection."""
    loop = asyncio.get_running_loop()
    begun, received = loop.time(), 0
    while True:
        try:
            async with asyncio.timeout_at(begun + PATIENCE_SECONDS + received / SLOWEST_BYTES_PER_SECOND):
                piece = await content.read(_PIECE)
        except TimeoutError:
            raise web.HTTPRequestTimeout(
                text=f"the body comes too slowly: {received} bytes in {loop.time() - begun:.0f} s; try again"
            ) from None
        if not piece:
            return
        received += len(piece)
        yield piece


def _create(part: Path) -> BinaryIO:
    """Open the file; not in a thread, which would open it for nobody when the request ends meanwhile."""
    return part.open("xb")


def _keep(file: BinaryIO, seen: Any, piece: bytes) -> None:
    seen.update(piece)
    file.write(piece)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
