"""A result that is not on this operator's disk goes from the store to its reader, piece by piece."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from aiohttp import web

from skyward_operator.gateway.stores.contract import Blob, StoreError

if TYPE_CHECKING:
    from skyward_operator.gateway.stores.contract import Store


async def send_kept(request: web.Request, store: Store, task: dict[str, Any]) -> web.StreamResponse | None:
    """The outcomes of an ended task, or those from a byte on; None where the store has none.

    A reader whose response breaks off comes back for the rest.
    """
    blob = Blob(task["metadata"]["namespace"], task["metadata"]["uid"], "results")
    try:
        size = await store.size(blob)
    except StoreError as error:
        raise web.HTTPServiceUnavailable(
            text=f"the result cannot be read: {error}", headers={"Retry-After": "1"}
        ) from error
    if size is None:
        return None
    if size != (wanted := int(task["status"]["result"]["blob"]["sizeBytes"])):
        raise web.HTTPServiceUnavailable(
            text=f"the store has {size} bytes of the result, and its Task says {wanted}",
            headers={"Retry-After": "1"},
        )
    start = _start(request, size)
    response = web.StreamResponse(status=206 if start else 200)
    response.content_type = "application/octet-stream"
    response.content_length = size - start
    if start:
        response.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    await response.prepare(request)
    try:
        async for piece in store.read(blob, start):
            await response.write(piece)
    except (StoreError, FileNotFoundError):
        if request.transport is not None:
            request.transport.abort()
    with contextlib.suppress(ConnectionError):
        await response.write_eof()
    return response


def _start(request: web.Request, size: int) -> int:
    try:
        wanted = request.http_range
    except ValueError:
        wanted = slice(size, None)
    start = int(wanted.start or 0)
    if wanted.stop is not None or start < 0 or (start and start >= size):
        raise web.HTTPRequestRangeNotSatisfiable(
            text="ask for all of it, or for bytes=START-", headers={"Content-Range": f"bytes */{size}"}
        )
    return start
