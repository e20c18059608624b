"""Results of one task to one reader, as they become durable: read from its file, woken by what is appended.

A reader who is slow holds nothing here but its place in the file. What is not on disk yet is not sent, so
what was sent once is never taken back, whatever dies.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import os
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from skyward.wire.delivery import End, beat, data_parts, end_part
from skyward_operator.gateway.streams import KEEPALIVE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from skyward_operator.gateway.stores import Blob, Store
    from skyward_operator.tasks.ledger import LiveTask

_PIECE: Final = 1 << 18


class Delivery:
    """A response that brings a task's records from the byte `offset` on."""

    def __init__(self, request: web.Request, path: Path, offset: int, store: Store, blob: Blob) -> None:
        """`path` is where the records are; where that is gone they come from `store`."""
        self._request = request
        self._path = path
        self._store = store
        self._blob = blob
        self._offset = offset
        self._file: int | None = None
        self._response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )

    async def begin(self) -> None:
        """Send the headers."""
        await self._response.prepare(self._request)

    async def follow(self, live: LiveTask) -> None:
        """Send what is durable, and what becomes so, until the task has ended."""
        file = live.results
        growth = file.attach()
        try:
            while True:
                growth.clear()
                is_closed = file.is_closed
                await self.send_file(file.size)
                if is_closed:
                    return
                try:
                    async with asyncio.timeout(KEEPALIVE_SECONDS):
                        await growth.wait()
                except TimeoutError:
                    await self._response.write(beat())
        finally:
            file.detach(growth)

    async def send_file(self, size: int) -> None:
        """Send the file up to `size`. Raises ConnectionError where it is shorter than that by now, and
        StoreError where it cannot be read."""
        while self._offset < size:
            try:
                piece = await asyncio.to_thread(self._read, min(_PIECE, size - self._offset))
            except FileNotFoundError:
                await self._send_kept()
                return
            if not piece:
                raise ConnectionResetError(f"{self._path} ends before byte {size}")
            await self._response.write(data_parts(piece))
            self._offset += len(piece)

    async def send_end(self, result: dict[str, Any]) -> None:
        """Send what is missing of an ended task, and that this is all."""
        if (package := result.get("package")) is not None:
            records = b64decode(package)
            await self._response.write(data_parts(records[self._offset :]))
            end = End(len(records))
        elif (blob := result.get("blob")) is not None:
            await self.send_file(int(blob["sizeBytes"]))
            end = End(int(blob["sizeBytes"]), blob.get("digest"))
        else:
            end = End(self._offset)
        await self._response.write(end_part(end))

    async def close(self) -> web.StreamResponse:
        """Finish the response, whole or not: a reader who got no END knows that it is not."""
        if self._file is not None:
            os.close(self._file)
        with contextlib.suppress(ConnectionError):  # the reader has left
            await self._response.write_eof()
        return self._response

    async def _send_kept(self) -> None:
        async for piece in self._store.read(self._blob, self._offset):
            await self._response.write(data_parts(piece))
            self._offset += len(piece)

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY)
        return os.pread(self._file, size, self._offset)


def start_of(request: web.Request) -> int:
    """The byte that a reader asks for; 400 for anything else."""
    text = request.query.get("from", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise web.HTTPBadRequest(text="from must be the number of bytes that you have")
    return int(text)


def check_start(name: str, start: int, size: int) -> None:
    """416 for a reader who has more than there is: this is another task, or its results are lost."""
    if start > size:
        raise web.HTTPRequestRangeNotSatisfiable(
            text=f"the results of Task {name} have {size} bytes, and you ask for those from {start} on"
        )


def size_of(result: dict[str, Any]) -> int:
    """How many bytes the records of an ended task have."""
    if (package := result.get("package")) is not None:
        try:
            return len(b64decode(package, validate=True))
        except binascii.Error as error:
            raise web.HTTPInternalServerError(text=f"its result is damaged: {error}") from error
    return int((result.get("blob") or {}).get("sizeBytes", 0))
