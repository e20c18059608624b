"""The output of calls: kept in one bounded file per task, and passed on live to whoever follows.

A task that prints without end keeps its beginning and its latest end; what lies between is dropped and the
gap is marked. Readers get what is on disk, so that what they have seen is there after a restart as well. One
who is too slow is let go and comes back for the rest: it never slows the operator down.

    <root>/<namespace>/<uid>/head            the first part
    <root>/<namespace>/<uid>/tail.0, tail.1  the latest parts, in turn

Each record says when it was `kept`: no two alike, and growing. A reader who comes back names the latest one
that it has, and gets what was kept after that.

An agent numbers the bytes that an attempt prints and keeps them until it hears that they are on disk. What
comes again after a broken connection, or after a restart of the operator, is recognised by these numbers.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
import re
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.tasks.ledger import Attempt
    from skyward_operator.tasks.work import Work

logger = logging.getLogger(__name__)

DEFAULT_LIMIT: Final = 64 * 1024 * 1024
_FOLLOWED_BYTES: Final = 16 * 1024 * 1024
_PIECE: Final = 1 << 16
_LONGEST_RECORD: Final = 1 << 20
_ENDED: Final = 10_000
_CLOCK_SLACK: Final = 60.0
"""How far apart the clocks of the disk and of this process may be."""
_PLACES: Final = 1 << 16
"""For how many attempts is remembered how far their output has come."""
_REMEMBERED_BYTES: Final = 2 << 20
"""How much of the end of a file is looked at for that after a restart."""
_TAILS: Final = ("tail.0", "tail.1")
_KEPT: Final = re.compile(rb'\{"kept":([0-9.e+]+),')
_Decoder: Final = codecs.getincrementaldecoder("utf-8")


class Follower:
    """One reader of what comes to the disk. With `uid` it follows one task and ends with it."""

    def __init__(
        self, wants: Callable[[Work], bool], uid: str | None = None, limit: int = _FOLLOWED_BYTES
    ) -> None:
        self.wants = wants
        self.uid = uid
        self.behind = False
        """It took too little for too long: the rest is to be read from disk."""
        self._after = 0.0
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        self._wake = asyncio.Event()
        self._closed = False

    def begin(self, after: float) -> None:
        """Take only what was kept after that: the rest is read from disk."""
        self._after = after

    def offer(self, kept: float, line: bytes) -> None:
        """Pass a line on, in the order in which lines were kept."""
        if kept <= self._after or self.behind:
            return
        self._size += len(line)
        self.behind = self._size > self._limit
        if not self.behind:
            self._lines.append(line)
        self._wake.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._wake.set()

    async def next(self) -> bytes | None:
        """All lines that wait, as soon as there are some; None at the end, and for one that is behind."""
        while not self._lines:
            if self._closed or self.behind:
                return None
            self._wake.clear()
            await self._wake.wait()
        lines, self._lines, self._size = b"".join(self._lines), deque(), 0
        return lines


@dataclass(slots=True, eq=False)
class _TaskLog:
    """The files of one task's output. `write` runs in a thread, never twice at once."""

    folder: Path
    limit: int
    pending: list[bytes] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    tail: int = 0
    decoders: dict[tuple[str, str], codecs.IncrementalDecoder] = field(default_factory=dict)

    def decode(self, attempt: str, stream: str, body: bytes) -> str:
        """Output as text; a character that a frame has cut in two is put together again."""
        decoder = self.decoders.pop((attempt, stream), None) or _Decoder("replace")
        text = decoder.decode(body)
        if decoder.getstate()[0]:
            self.decoders[attempt, stream] = decoder
        return text

    def places(self) -> dict[str, int]:
        """How far the output of attempts had come when it was last written here, by an earlier operator."""
        files = [path for name in ("head", *_TAILS) if (path := self.folder / name).exists()]
        if not files:
            return {}
        with max(files, key=_changed).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _REMEMBERED_BYTES))
            found: dict[str, int] = {}
            for line in file:
                record = _record(line)
                if "at" in record:
                    found[record["id"]] = max(record["at"] + record["size"], found.get(record["id"], 0))
            return found

    def write(self, data: bytes) -> None:
        """Append to the head while it has room, then to the tails in turn."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.sizes:
            self.sizes = {name: _size(self.folder / name) for name in ("head", *_TAILS)}
            self.tail = int(_changed(self.folder / _TAILS[1]) > _changed(self.folder / _TAILS[0]))
            for name in ("head", *_TAILS):
                self._mend(name)
        in_tails = any(self.sizes[name] for name in _TAILS)
        if not in_tails and self.sizes["head"] + len(data) <= self.limit // 2:
            self._append("head", data)
            return
        name = _TAILS[self.tail]
        if self.sizes[name] and self.sizes[name] + len(data) > self.limit // 4:
            self.tail = 1 - self.tail
            name = _TAILS[self.tail]
            if self.sizes[name]:
                (self.folder / "dropped").touch()
            (self.folder / name).unlink(missing_ok=True)
            self.sizes[name] = 0
        self._append(name, data)

    def _mend(self, name: str) -> None:
        """Cut off a record that a killed operator left half-written: its agent sends it again."""
        if not self.sizes[name]:
            return
        with (self.folder / name).open("r+b") as file:
            file.seek(max(0, self.sizes[name] - _LONGEST_RECORD))
            rest = file.read()
            torn = len(rest) - (rest.rfind(b"\n") + 1)
            if torn:
                self.sizes[name] -= torn
                file.truncate(self.sizes[name])

    def _append(self, name: str, data: bytes) -> None:
        with (self.folder / name).open("ab") as file:
            file.write(data)
        self.sizes[name] += len(data)


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
        self._open: dict[str, _TaskLog] = {}
        self._dirty: dict[str, _TaskLog] = {}
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
        self._unsaid: dict[tuple[str, str], dict[str, int]] = {}
        self.on_disk: Callable[[str, str, Mapping[str, int]], None] = lambda namespace, node, attempts: None
        """Told for each node up to which byte the output of attempts is safe."""

    def write(self, work: Work, attempt: Attempt, header: Mapping[str, Any], body: bytes) -> None:
        """Take in one LOG frame."""
        log = self._open.get(work.uid)
        if log is None:
            folder = self.blobs.folder(work.namespace, work.uid)
            log = self._open[work.uid] = _TaskLog(folder, self._limit)
            self._places.update(log.places())
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
        self, work: Work, log: _TaskLog, attempt: Attempt, header: Mapping[str, Any], text: str, **more: Any
    ) -> None:
        self.newest = max(round(self._now(), 6), round(self.newest + 1e-6, 6))
        record = {
            "kept": self.newest,
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
        done = json.dumps({"namespace": work.namespace, "task": work.name, "done": True}).encode() + b"\n"
        for follower in self._followers:
            if follower.uid == work.uid:
                follower.close()
            elif follower.uid is None and follower.wants(work):
                follower.offer(float("inf"), done)
        self._open.pop(work.uid, None)
        self._ended[work.uid] = None
        if len(self._ended) > _ENDED:
            self._ended.popitem(last=False)

    async def written(self, uid: str) -> None:
        """Wait until the output of one task so far is on disk."""
        if uid in self._dirty or uid in self._in_writing:
            await self._until(self._begun + (uid in self._dirty))

    async def flush(self) -> None:
        """Wait until everything that was written so far is on disk."""
        await self._until(self._begun + bool(self._dirty))

    async def _until(self, batch: int) -> None:
        while self._done < batch:
            self._start_writing()
            if self._writing is not None:
                await asyncio.wait([self._writing])

    def read(
        self, namespace: str, uid: str, after: float = 0.0, until: float = float("inf")
    ) -> Iterator[bytes]:
        """The records that were kept in between, `until` included, in pieces; blocks on the disk."""
        folder = self.blobs.folder(namespace, uid)
        tails = sorted((folder / name for name in _TAILS), key=_changed)
        yield from _records(folder / "head", after, until)
        if not after and (folder / "dropped").exists():
            yield _gap("output was dropped here: the task wrote more than is kept")
        for tail in tails:
            yield from _records(tail, after, until)

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
        if self._writing is not None or not self._dirty:
            return
        batch = []
        for log in self._dirty.values():
            batch.append((log, b"".join(log.pending)))
            log.pending = []
        self._in_writing, self._dirty = set(self._dirty), {}
        said, self._unsaid = self._unsaid, {}
        new, self._new = self._new, []
        self._begun += 1
        self._writing = asyncio.get_running_loop().run_in_executor(None, _write_all, batch)
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
        if not writing.cancelled() and (error := writing.exception()) is not None:
            # It is gone: to have it sent again would not help a full disk, and would hold the functions.
            logger.error("output of tasks could not be stored: %s", error)
        for node, attempts in said.items():
            self.on_disk(*node, attempts)
        if self._dirty:
            self._write_soon()


def _write_all(batch: list[tuple[_TaskLog, bytes]]) -> None:
    for log, data in batch:
        log.write(data)


def _gap_text(size: int, lines: int) -> str:
    about = f" ({lines} lines)" if lines else ""
    return f"\n… {size} bytes{about} were dropped on the node: nobody took them in time\n"


def _record(line: bytes) -> dict[str, Any]:
    """A record, or nothing where the line is cut off."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _gap(text: str) -> bytes:
    return json.dumps({"stream": "stderr", "gap": True, "text": f"({text})\n"}).encode() + b"\n"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _changed(path: Path) -> float:
    return path.stat().st_mtime_ns if path.exists() else 0


def _records(path: Path, after: float, until: float) -> Iterator[bytes]:
    """The records of a file that were kept in between, some at a time."""
    if _changed(path) <= max(0.0, (after - _CLOCK_SLACK) * 1e9):
        return
    lines: list[bytes] = []
    size = 0
    for line in _lines_after(path, after):
        if after < _kept(line) <= until:
            lines.append(line)
            size += len(line)
        if size > _PIECE:
            yield b"".join(lines)
            lines, size = [], 0
    if lines:
        yield b"".join(lines)


def _lines_after(path: Path, after: float) -> Iterator[bytes]:
    """Whole lines of a file, from a little before the first one that was kept after that time."""
    with path.open("rb") as file:
        low, high = 0, path.stat().st_size
        while high - low > _PIECE:
            middle = (low + high) // 2
            file.seek(middle)
            file.readline()
            if _kept(file.readline()) <= after:
                low = middle
            else:
                high = middle
        file.seek(low)
        if low:
            file.readline()
        yield from (line for line in file if line.endswith(b"\n"))


def _kept(line: bytes) -> float:
    """When a record was kept; one that is cut off, or not there, comes last."""
    match = _KEPT.match(line) if line.endswith(b"\n") else None
    return float(match[1]) if match else float("inf")
