"""The output of one task on disk: its beginning, and its latest end in two files that take turns.

head            the first part
tail.0, tail.1  the latest parts, in turn
dropped         is there when something between head and tails is not
"""

from __future__ import annotations

import codecs
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAILS: Final = ("tail.0", "tail.1")
FILES: Final = ("head", *TAILS)
DROPPED: Final = "dropped"
REMOVED: Final = "removed"
_LONGEST_RECORD: Final = 1 << 20
_REMEMBERED_BYTES: Final = 2 << 20
"""How much of the end of a file is looked at after a restart for how far the output of attempts has come."""
_Decoder: Final = codecs.getincrementaldecoder("utf-8")


@dataclass(slots=True, eq=False)
class TaskOutput:
    """The files of one task's output. `write` runs in a thread, never twice at once."""

    folder: Path
    limit: int
    pending: list[bytes] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    tail: int = 0
    newest: float = 0.0
    """When its latest record was kept, written or not; 0 where there is none."""
    cut: bool = False
    """Something is missing between head and tails."""
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
        files = [path for name in FILES if (path := self.folder / name).exists()]
        if not files:
            return {}
        with max(files, key=changed).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _REMEMBERED_BYTES))
            found: dict[str, int] = {}
            for line in file:
                record = _record(line)
                self.newest = max(self.newest, record.get("kept", 0.0))
                if "at" in record:
                    found[record["id"]] = max(record["at"] + record["size"], found.get(record["id"], 0))
            return found

    def write(self, data: bytes) -> None:
        """Append to the head while it has room, then to the tails in turn."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._look()
        for part in _parts(data, self.limit // 4):
            self._write(part)

    def _write(self, data: bytes) -> None:
        in_tails = self.cut or any(self.sizes[name] for name in TAILS)
        if not in_tails and self.sizes["head"] + len(data) <= self.limit // 2:
            self._append("head", data)
            return
        name = TAILS[self.tail]
        if self.sizes[name] and self.sizes[name] + len(data) > self.limit // 4:
            self.tail = 1 - self.tail
            name = TAILS[self.tail]
            if self.sizes[name]:
                self._drop()
            (self.folder / name).unlink(missing_ok=True)
            self.sizes[name] = 0
        self._append(name, data)

    def shrink(self) -> None:
        """Keep no more than the limit: less of the beginning, and less before the latest end."""
        self._look()
        head = self.folder / "head"
        if self.sizes["head"] > self.limit // 2:
            self._drop()
            with head.open("r+b") as file:
                whole = file.read(self.limit // 2).rfind(b"\n") + 1
                file.truncate(whole)
            self.sizes["head"] = whole
        for name in TAILS:
            if self.sizes[name] > self.limit // 4:
                self._drop()
                self.sizes[name] = _keep_end(self.folder / name, self.limit // 4)

    def _drop(self) -> None:
        """From here on something is missing, and the head is over."""
        (self.folder / DROPPED).touch()
        self.cut = True

    def _look(self) -> None:
        """See what an earlier operator left, once."""
        if self.sizes:
            return
        self.sizes = {name: _size(self.folder / name) for name in FILES}
        self.cut = (self.folder / DROPPED).exists()
        self.tail = int(changed(self.folder / TAILS[1]) > changed(self.folder / TAILS[0]))
        for name in FILES:
            self._mend(name)

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


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    """The same records in parts of about this size: no more goes into one file than may be in it."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + size) + 1 or data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _keep_end(path: Path, size: int) -> int:
    """Keep so many bytes of the end, as whole records, and the file's time: it tells which tail is newer."""
    status = path.stat()
    with path.open("rb") as file:
        file.seek(status.st_size - size)
        file.readline()
        rest = file.read()
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(rest)
    os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
    temporary.replace(path)
    return len(rest)


def _record(line: bytes) -> dict[str, Any]:
    """A record, or nothing where the line is cut off."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def changed(path: Path) -> float:
    """When a file was written last; 0 for one that is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0
