"""The output of calls: kept in one bounded file per task, and passed on live to whoever follows.

A task that prints without end keeps its beginning and its latest end; what lies between is dropped and the
gap is marked. Readers get what is on disk, so that what they have seen is there after a restart as well. One
who is too slow is let go and comes back for the rest: it never slows the operator down.

    <root>/<namespace>/<uid>/head            the first part
    <root>/<namespace>/<uid>/tail.0, tail.1  the latest parts, in turn

Each record says when it was `kept`: no two alike, and growing. A reader who comes back names the latest one
that it has, and gets what was kept after that. It also says when the one `before` it of its task was kept: so
whoever comes back hears of what was dropped meanwhile.

An agent numbers the bytes that an attempt prints and keeps them until it hears that they are on disk. What
comes again after a broken connection, or after a restart of the operator, is recognised by these numbers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from skyward_operator.gateway.output import REMOVED, TaskOutput, changed
from skyward_operator.gateway.records import begins, in_pieces, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.gateway.follower import Follower
    from skyward_operator.tasks.flights import Attempt
    from skyward_operator.tasks.work import Work

logger = logging.getLogger(__name__)

DEFAULT_LIMIT: Final = 64 * 1024 * 1024
_ENDED: Final = 10_000
_PLACES: Final = 1 << 16
"""For how many attempts is remembered how far their output has come."""


class LogBook:
    """All output of all tasks."""

    def __init__(
        self,
        blobs: BlobStore,
        limit: int = DEFAULT_LIMIT,
        flush_seconds: float = 0.1,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.blobs = blobs
        self.newest = now()
        """When the latest record was kept: all that come are newer."""
        self.stored = self.newest
        """When the latest record on disk was kept: all that is older is there."""
        self._now = now
        self._limit = limit
        self._flush_seconds = flush_seconds
        self._open: dict[str, TaskOutput] = {}
        self._dirty: dict[str, TaskOutput] = {}
        self._followers: set[Follower] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._in_writing: set[str] = set()
        self._ended: OrderedDict[str, None] = OrderedDict()
        """The latest tasks that have ended: who begins to follow one at that moment must not wait."""
        self._begun = 0
        self._done = 0
        self._new: list[tuple[float, Work, bytes]] = []
        self._places: OrderedDict[str, int] = OrderedDict()
        self._grown = 0
        self._growth = asyncio.Event()
        self._to_shrink: list[TaskOutput] = []
        self._unsaid: dict[tuple[str, str], dict[str, int]] = {}
        self.on_disk: Callable[[str, str, Mapping[str, int]], None] = lambda namespace, node, attempts: None
        """Told for each node up to which byte the output of attempts is safe."""

    def write(self, work: Work, attempt: Attempt, header: Mapping[str, Any], body: bytes) -> None:
        """Take in one LOG frame."""
        log = self._output(work.namespace, work.uid)
        end = int(header.get("at", 0)) + len(body)
        self._unsaid.setdefault((work.namespace, attempt.node), {})[attempt.id] = end
        lost, body = self._missing(attempt.id, header, body)
        if lost:
            self._keep(
                work, log, attempt, header, _gap_text(lost, int(header.get("lost_lines", 0))), gap=True
            )
        if body:
            text = log.decode(attempt.id, str(header.get("stream", "stdout")), body)
            self._keep(work, log, attempt, header, text, id=attempt.id, at=end - len(body), size=len(body))
        self._dirty[work.uid] = log
        self._write_soon()

    def decline(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes) -> None:
        """Output that belongs to no live task: the agent need not keep it."""
        end = int(header.get("at", 0)) + len(body)
        self.on_disk(namespace, node, {str(header["attempt"]): end})

    def _output(self, namespace: str, uid: str) -> TaskOutput:
        log = self._open.get(uid)
        if log is None:
            log = self._open[uid] = TaskOutput(self.blobs.folder(namespace, uid), self._limit)
            self._places.update(log.places())
        return log

    def _missing(self, attempt: str, header: Mapping[str, Any], body: bytes) -> tuple[int, bytes]:
        """How many bytes are missing before `body`, and what of it is new."""
        if "at" not in header:
            return 0, body
        at = int(header["at"])
        known = self._places.pop(attempt, None)
        self._places[attempt] = max(at + len(body), known or 0)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)
        if known is None:
            return int(header.get("lost", 0)), body
        return max(0, at - known), body[max(0, known - at) :]

    def _keep(
        self, work: Work, log: TaskOutput, attempt: Attempt, header: Mapping[str, Any], text: str, **more: Any
    ) -> None:
        self.newest = max(round(self._now(), 6), round(self.newest + 1e-6, 6))
        record = {
            "kept": self.newest,
            "before": log.newest,
            "namespace": work.namespace,
            "pool": work.pool,
            "task": work.name,
            "index": attempt.index,
            "attempt": attempt.number,
            "node": attempt.node,
            "rank": attempt.rank,
            "stream": str(header.get("stream", "stdout")),
            "time": header.get("time", 0.0),
            **more,
            "text": text,
        }
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        log.newest = self.newest
        self._new.append((self.newest, work, line))
        log.pending.append(line)

    def follow(self, follower: Follower) -> float:
        """Pass on to this reader what is kept after the returned time; what is older is on disk."""
        follower.begin(self.stored)
        self._followers.add(follower)
        if follower.uid in self._ended:
            follower.close()
        return self.stored

    def unfollow(self, follower: Follower) -> None:
        """This reader is gone."""
        self._followers.discard(follower)

    def close(self, work: Work) -> None:
        """The task has ended, and all of it is on disk: those who follow it have the rest, and hear so."""
        done = over(work.namespace, work.name)
        for follower in self._followers:
            if follower.uid == work.uid:
                follower.close()
            elif follower.uid is None and follower.wants(work):
                follower.offer(float("inf"), done)
        self._open.pop(work.uid, None)
        self._ended[work.uid] = None
        if len(self._ended) > _ENDED:
            self._ended.popitem(last=False)

    def has_ended(self, uid: str) -> bool:
        """Whether a task has ended lately, so that its object may not say so yet."""
        return uid in self._ended

    async def written(self, uid: str) -> None:
        """Wait until the output of one task so far is on disk."""
        if uid in self._dirty or uid in self._in_writing:
            await self._until(self._begun + (uid in self._dirty))

    async def flush(self) -> None:
        """Wait until everything that was written so far is on disk."""
        await self._until(self._begun + bool(self._dirty or self._to_shrink))

    async def grown(self, size: int) -> None:
        """Wait until so many bytes were written since this was waited for last."""
        while self._grown < size:
            self._growth.clear()
            await self._growth.wait()
        self._grown = 0

    async def shrink(self, limit: int, tasks: Sequence[tuple[str, str]]) -> None:
        """From now on no task may have more than `limit` on disk; these have more, and lose it now."""
        self._limit = limit
        for log in self._open.values():
            log.limit = limit
        for namespace, uid in tasks:
            self._to_shrink.append(self._output(namespace, uid))
        await self.flush()

    async def _until(self, batch: int) -> None:
        while self._done < batch:
            self._start_writing()
            if self._writing is not None:
                await asyncio.wait([self._writing])

    def read(
        self, namespace: str, uid: str, after: float = 0.0, until: float = float("inf")
    ) -> Iterator[bytes]:
        """The records that were kept in between, `until` included, in pieces; blocks on the disk.

        What is missing in between has a record of its own.
        """
        folder = self.blobs.folder(namespace, uid)
        if changed(folder / REMOVED) > after * 1e9:
            yield _gap((folder / REMOVED).read_text())
        yield from in_pieces(records(folder, after, until))

    def begins(self, namespace: str, uid: str) -> float:
        """No record of a task was kept before that; infinite where nothing was kept."""
        return begins(self.blobs.folder(namespace, uid) / "head")

    def remove(self, namespace: str, uid: str) -> None:
        """Drop the output of a task."""
        self.blobs.remove(namespace, uid)

    def _write_soon(self) -> None:
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(self._flush_seconds, self._start_writing)

    def _start_writing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None or not (self._dirty or self._to_shrink):
            return
        batch = []
        for log in self._dirty.values():
            batch.append((log, b"".join(log.pending)))
            log.pending = []
        self._in_writing, self._dirty = set(self._dirty), {}
        said, self._unsaid = self._unsaid, {}
        new, self._new = self._new, []
        self._begun += 1
        self._writing = asyncio.get_running_loop().run_in_executor(None, _write_all, batch, self._to_shrink)
        self._to_shrink = []
        self._writing.add_done_callback(partial(self._written, said, new))

    def _written(
        self,
        said: dict[tuple[str, str], dict[str, int]],
        new: list[tuple[float, Work, bytes]],
        writing: asyncio.Future[None],
    ) -> None:
        self._writing = None
        self._done = self._begun
        self._in_writing = set()
        for follower in self._followers:
            for kept, work, line in new:
                if follower.wants(work):
                    follower.offer(kept, line)
        if new:
            self.stored = new[-1][0]
            self._grown += sum(len(line) for _, _, line in new)
            self._growth.set()
        if not writing.cancelled() and (error := writing.exception()) is not None:
            # It is gone: to have it sent again would not help a full disk, and would hold the functions.
            logger.error("output of tasks could not be stored: %s", error)
        for node, attempts in said.items():
            self.on_disk(*node, attempts)
        if self._dirty:
            self._write_soon()


def over(namespace: str, task: str) -> bytes:
    """The record that says that nothing more comes of a task."""
    return json.dumps({"namespace": namespace, "task": task, "done": True}).encode() + b"\n"


def _write_all(batch: list[tuple[TaskOutput, bytes]], to_shrink: list[TaskOutput]) -> None:
    """Write each task's part; where one cannot be written, the others are all the same."""
    problem: OSError | None = None
    steps: list[Callable[[], None]] = [log.shrink for log in to_shrink]
    steps += [partial(log.write, data) for log, data in batch]
    for step in steps:
        try:
            step()
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem


def _gap_text(size: int, lines: int) -> str:
    about = f" ({lines} lines)" if lines else ""
    return f"\n… {size} bytes{about} were dropped on the node: nobody took them in time\n"


def _gap(text: str) -> bytes:
    return json.dumps({"stream": "stderr", "gap": True, "text": f"({text})\n"}).encode() + b"\n"
