"""Large bytes on their way from the link to the disk: a thread writes them, a slow disk stops nothing else.

The operator sends only so much ahead of what it was told is taken (`BLOB_WINDOW`), so what waits here is
bounded, and nothing else has to wait for it. Who sends more than that is read no further for a while. A frame
that needs a blob which still waits (a CALL, or the CANCEL or LIMIT of one) waits with it.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from skyward.agent.blobs import BlobRefused, Blobs
from skyward.wire.digest import BytesLike, is_digest
from skyward.wire.envelopes import BLOB_REFUSED, BLOB_WINDOW
from skyward.wire.frames import Frame, FrameKind

_ROOM = 2 * BLOB_WINDOW
_BATCH = 1024 * 1024
_SOON = 0.005
"""Pieces are written so many bytes at a time, or after this many seconds: a thread's turn has its price."""

log = logging.getLogger("skyward.agent")

type Piece = tuple[dict[str, Any], BytesLike]


class Arrivals:
    """Takes pieces of blobs in. `send` answers the operator, `act` is given the frames that have waited, and
    `read` is told whether more may be read from the link."""

    def __init__(
        self,
        blobs: Blobs,
        send: Callable[[Frame], None],
        act: Callable[[Frame], None],
        read: Callable[[bool], None],
    ) -> None:
        self._blobs = blobs
        self._send = send
        self._act = act
        self._read = read
        self._is_full = False
        self._queue: deque[Piece] = deque()
        self._waiting: Counter[str] = Counter()
        """Pieces that are not written yet, by digest."""
        self._bytes = 0
        self._held: deque[Frame] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._forgets = False

    def put(self, header: dict[str, Any], body: BytesLike) -> None:
        """Have a piece written. Raises KeyError or ValueError for what is none."""
        sizes = header["offset"], header["size"]
        if not is_digest(header["digest"]) or not all(isinstance(each, int) and each >= 0 for each in sizes):
            raise ValueError("no piece of a blob")
        if not isinstance(header["last"], bool):
            raise ValueError("no piece of a blob: whether it is the last is not said")
        self._bytes += len(body)
        if self._bytes > _ROOM and not self._is_full:
            self._is_full = True
            self._read(False)
        self._queue.append((header, body))
        self._waiting[header["digest"]] += 1
        self._look()

    def hold(self, frame: Frame) -> bool:
        """Whether this frame has to wait: for a blob, or behind the call that it is about."""
        header = frame.header
        needs = {header.get("function"), header.get("args"), *(header.get("blobs") or ())}
        if not any(digest in self._waiting for digest in needs) and not any(
            header.get("attempt") == held.header.get("attempt") for held in self._held
        ):
            return False
        self._held.append(frame)
        return True

    def forget(self) -> None:
        """The operator is gone: what has not arrived whole comes again, and so do the calls."""
        self._queue.clear()
        self._waiting.clear()
        self._held.clear()
        self._bytes, self._is_full = 0, False
        self._forgets = True
        self._look()

    def _look(self) -> None:
        """Begin to write if there is enough to do, else soon."""
        if self._writer is not None:
            return  # it looks when it is through
        if self._forgets or self._bytes >= _BATCH or (self._queue and self._queue[-1][0]["last"]):
            self._start()
        elif self._queue and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SOON, self._start)

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            forgets, self._forgets = self._forgets, False
            pieces = list(self._queue)
            self._queue.clear()
            if forgets:
                await asyncio.to_thread(self._blobs.drop_partial)
            refused = await asyncio.to_thread(self._keep, pieces)
            if not self._forgets:
                self._taken(pieces, refused)
        finally:
            self._writer = None
            self._look()

    def _keep(self, pieces: list[Piece]) -> list[tuple[str, str]]:
        """Write them, in the thread. Returns what was refused, and why."""
        refused = []
        for header, body in pieces:
            try:
                self._blobs.receive(header, body)
            except BlobRefused as error:
                refused.append((header["digest"], str(error)))
        return refused

    def _taken(self, pieces: list[Piece], refused: list[tuple[str, str]]) -> None:
        for digest, words in refused:
            log.warning("blob %s %s", digest, words)
            notice = {"reason": BLOB_REFUSED, "message": words, "digest": digest}
            self._send(Frame(FrameKind.NOTICE, notice))
        ends: dict[str, int] = {}
        for header, body in pieces:
            digest = header["digest"]
            ends[digest] = header["offset"] + len(body)
            self._bytes -= len(body)
            self._waiting[digest] -= 1
            if not self._waiting[digest]:
                del self._waiting[digest]
        if self._is_full and self._bytes < BLOB_WINDOW:
            self._is_full = False
            self._read(True)
        for digest, end in ends.items():
            self._send(Frame(FrameKind.TAKEN, {"digest": digest, "offset": end}))
        frames, self._held = self._held, deque()
        for frame in frames:
            self._act(frame)
