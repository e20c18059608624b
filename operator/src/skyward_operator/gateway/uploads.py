"""Payloads over HTTP: taken in at the pace of the disk, resumed where they were cut, refused in plain words.

The object comes first and waits for its payload; bytes without an object do not stay. A client whose
connection broke asks how much is there (HEAD, `Upload-Offset`) and sends the rest, saying where it begins
(PUT, `Upload-Offset`). The newest connection counts: an older one that still hangs is ended.

What has come is copied into the store, which may take longer than any request: who waits for it is told now
and then how far it is, and asks again. The copy goes on without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from skyward_operator.gateway.incoming import Incoming, Mismatch, TooMuch, WrongLength, make_durable, stored
from skyward_operator.gateway.stores import Blob, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from aiohttp import StreamReader

    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.gateway.stores import Store

logger = logging.getLogger(__name__)

OFFSET: Final = "Upload-Offset"
COMPLETE: Final = "Upload-Complete"
KEPT: Final = "Upload-Kept"
"""How many bytes of a payload that has come are in the store."""
COPY_SECONDS: Final = 10.0
"""After this time a client hears how far the copy is."""
_PIECE: Final = 1 << 20
_WAITING: Final = 8 << 20
"""Bytes that wait for the disk at most; then the client waits."""
PATIENCE_SECONDS: Final = 60.0
SLOWEST_BYTES_PER_SECOND: Final = 16 * 1024
"""A body may pause for as long as the first, and may be as slow as the second over its whole length."""


@dataclass(slots=True, eq=False)
class Copy:
    """A payload that has come, on its way into the store."""

    size: int
    moved: int = 0
    """Bytes of it that are there."""
    job: asyncio.Future[None] | None = None


class Uploads:
    """Takes payloads in."""

    def __init__(
        self,
        blobs: BlobStore,
        store: Store,
        largest: int,
        progressed: Callable[[str], None],
        arrived: Callable[[str], None],
    ) -> None:
        """`progressed` is told the uid of a task for each piece of its payload that is kept, `arrived` once
        all of it is."""
        self._blobs = blobs
        self._store = store
        self._largest = largest
        self._progressed = progressed
        self._arrived = arrived
        self._taking: dict[Path, asyncio.Task[Any]] = {}
        self._copies: dict[Path, Copy] = {}
        self._syncing: set[asyncio.Future[None]] = set()

    async def offset(self, task: dict[str, Any]) -> tuple[int, bool]:
        """How many bytes of a task's payload are there, and whether that is all. Raises HTTP errors."""
        metadata, _ = task["metadata"], _blob(task)
        final = self._blobs.payload(metadata["namespace"], metadata["uid"])
        return await asyncio.to_thread(stored, final)

    async def take(self, task: dict[str, Any], request: web.Request) -> Copy | None:
        """Store the body of a request as the payload of a task, or the rest of it.

        What is complete stays: the same length again is success, and the body is not used. Returns the copy
        into the store where that is not done yet: the client asks again.

        Raises HTTP errors.
        """
        metadata, blob = task["metadata"], _blob(task)
        size, length = int(blob["sizeBytes"]), request.content_length
        if (coding := request.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise web.HTTPUnsupportedMediaType(
                text=f"the body is {coding}: a payload is taken as it is, without a Content-Encoding"
            )
        if size > self._largest or (length or 0) > self._largest:
            raise self._too_much(max(size, length or 0))
        final = self._blobs.payload(metadata["namespace"], metadata["uid"])
        if (copy := self._copies.get(final)) is not None:
            return await self._copied(copy)
        async with self._alone(final):
            there, is_whole = await asyncio.to_thread(stored, final)
            offset = _offset(request)
            if is_whole and length is not None and offset + length != there:
                raise web.HTTPBadRequest(
                    text=f"the payload is complete with {there} bytes, and the body ends at {offset + length}"
                )
            if is_whole:
                return None
            if offset > there:
                raise web.HTTPConflict(
                    text=f"the body begins at byte {offset} and {there} are here",
                    headers={OFFSET: str(there)},
                )
            if length is not None and offset + length < size:
                raise web.HTTPBadRequest(
                    text=f"the body has {length} bytes and spec.calls.blob.sizeBytes says {size}"
                )
            incoming = Incoming(final, size, blob["digest"], self._largest)
            await self._receive(incoming, offset, request.content, metadata["uid"])
            copy = self._begin_copy(incoming, Blob(metadata["namespace"], metadata["uid"], final.name), final)
        return await self._copied(copy)

    async def drop(self, task: dict[str, Any]) -> None:
        """The object went while its payload came."""
        namespace, uid = task["metadata"]["namespace"], task["metadata"]["uid"]
        await asyncio.to_thread(self._blobs.remove, namespace, uid)
        with contextlib.suppress(StoreError):  # it is swept
            await self._store.remove(namespace, uid)

    @contextlib.asynccontextmanager
    async def _alone(self, final: Path) -> AsyncIterator[None]:
        """Be the only one that takes this payload in: whoever did has lost its client."""
        while (before := self._taking.get(final)) is not None:
            before.cancel()
            await asyncio.wait([before])
        mine = asyncio.current_task()
        assert mine is not None  # noqa: S101
        self._taking[final] = mine
        try:
            yield
        finally:
            if self._taking.get(final) is mine:
                del self._taking[final]

    async def _receive(self, incoming: Incoming, offset: int, content: StreamReader, uid: str) -> None:
        try:
            async with _Writer(incoming, offset, lambda: self._progressed(uid)) as writer:
                async for piece in _in_time(content):
                    await writer.put(piece)
            incoming.check_whole()
        except ConnectionError:
            raise
        except WrongLength as error:
            if not incoming.is_short:
                await asyncio.to_thread(incoming.drop)
            raise web.HTTPBadRequest(text=str(error)) from error
        except Mismatch as error:
            await asyncio.to_thread(incoming.drop)
            raise web.HTTPUnprocessableEntity(text=str(error)) from error
        except TooMuch as error:
            await asyncio.to_thread(incoming.drop)
            raise self._too_much(error.size) from error
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                await asyncio.to_thread(incoming.drop)
            raise _refusal(error) from error
        finally:
            incoming.close()

    def _begin_copy(self, incoming: Incoming, kept: Blob, final: Path) -> Copy:
        """Nobody has to wait for it: a client that is gone finds it done, or joins it."""
        copy = self._copies[final] = Copy(incoming.received)

        def ended(job: asyncio.Future[None]) -> None:
            del self._copies[final]
            if not job.cancelled():
                job.exception()  # whoever asked has heard it

        copy.job = asyncio.ensure_future(self._copy(copy, incoming, kept, final))
        copy.job.add_done_callback(ended)
        return copy

    async def _copy(self, copy: Copy, incoming: Incoming, kept: Blob, final: Path) -> None:
        def moved(count: int) -> None:
            copy.moved += count
            self._progressed(kept.uid)

        try:
            # Where the store does not take it the payload stays unfinished: the client asks again.
            await self._store.keep(kept, incoming.path, moved)
            await asyncio.to_thread(incoming.finish)
        except FileNotFoundError:  # its task went meanwhile
            with contextlib.suppress(StoreError):  # it is swept
                await self._store.remove(kept.namespace, kept.uid)
            raise
        self._sync_soon(final)
        self._arrived(kept.uid)

    async def _copied(self, copy: Copy) -> Copy | None:
        """Wait for the copy a while; None when it is done. Raises HTTP errors."""
        assert copy.job is not None  # noqa: S101
        done, _ = await asyncio.wait([copy.job], timeout=COPY_SECONDS)
        if not done:
            return copy
        try:
            copy.job.result()
        except StoreError as error:
            raise web.HTTPServiceUnavailable(
                text=f"the payload cannot be stored: {error}", headers={"Retry-After": "1"}
            ) from error
        except OSError as error:
            raise _refusal(error) from error
        return None

    def _sync_soon(self, final: Path) -> None:
        """The disk may take its time: until then a payload survives the operator, but not its machine. Then
        its task says so, and the client sends it again."""

        def synced(job: asyncio.Future[None]) -> None:
            self._syncing.discard(job)
            error = None if job.cancelled() else job.exception()
            if error is not None and not isinstance(error, FileNotFoundError):  # its task has ended already
                logger.error("%s is not durable: %s", final, error)

        job = asyncio.get_running_loop().run_in_executor(None, make_durable, final)
        self._syncing.add(job)
        job.add_done_callback(synced)

    def _too_much(self, size: int) -> web.HTTPRequestEntityTooLarge:
        return web.HTTPRequestEntityTooLarge(
            max_size=self._largest,
            actual_size=size,
            text=f"the payload has {size} bytes and at most {self._largest} are taken; put large data on a "
            "volume or into an object store and pass its place, or raise --largest-payload of the operator",
        )


class _Writer:
    """Pieces to the file, in a thread, while more of them come."""

    def __init__(self, incoming: Incoming, offset: int, progressed: Callable[[], None]) -> None:
        self._incoming = incoming
        self._offset = offset
        self._progressed = progressed
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._job: asyncio.Future[None] | None = None

    async def __aenter__(self) -> _Writer:
        self._job = asyncio.ensure_future(asyncio.to_thread(self._incoming.begin, self._offset))
        return self

    async def put(self, piece: bytes) -> None:
        """Have it written; waits while the disk is behind. Raises what became of earlier pieces."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        self._progressed()
        if self._job is None or self._job.done() or self._waiting > _WAITING:
            await self._settle()
            if self._waiting >= _PIECE:
                self._start()

    async def __aexit__(self, *_: object) -> None:
        """What came stays for the next connection, however this one ended; a thread cannot be interrupted."""
        await self._settle()
        self._start()
        await self._settle()

    def _start(self) -> None:
        pieces, size = list(self._pieces), self._waiting
        self._pieces.clear()
        self._waiting = 0
        if size:
            self._job = asyncio.ensure_future(asyncio.to_thread(self._incoming.append, pieces))

    async def _settle(self) -> None:
        job, self._job = self._job, None
        if job is None:
            return
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])
            self._give_up_if_failed(job)
            raise
        except BaseException:
            self._give_up_if_failed(job)
            raise

    def _give_up_if_failed(self, job: asyncio.Future[None]) -> None:
        """What comes behind pieces that were not written must not be written either."""
        if job.done() and (job.cancelled() or job.exception() is not None):
            self._pieces.clear()
            self._waiting = 0


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


def _refusal(error: OSError) -> web.HTTPException:
    if isinstance(error, FileNotFoundError):
        return web.HTTPGone(text="the task ended while its payload came")
    return web.HTTPInsufficientStorage(
        text=f"the payload cannot be stored by the operator: {error.strerror or error}; free space "
        "in its data folder, or ask who runs it to"
    )


def _blob(task: dict[str, Any]) -> dict[str, Any]:
    blob: dict[str, Any] | None = (task["spec"].get("calls") or {}).get("blob")
    if blob is None:
        name = task["metadata"]["name"]
        raise web.HTTPConflict(text=f"Task {name} carries its calls itself: nothing to upload")
    return blob


def _offset(request: web.Request) -> int:
    given = request.headers.get(OFFSET, "0")
    if not given.isdecimal() or len(given) > 18:
        raise web.HTTPBadRequest(text=f"{OFFSET} must be a number of bytes")
    return int(given)
