"""Records of output, read back from the files of a task: those of a span of time, in the order kept.

Every record begins with when it was `kept`, so that a span is found by halving, not by reading. Then it says
when the one `before` it was kept: where a reader has not had that one, something is missing, and a record of
its own says so, whatever it was that took it.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, BinaryIO, Final

from skyward_operator.gateway.output import FILES, changed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_PIECE: Final = 1 << 16
_CLOCK_SLACK: Final = 60.0
"""How far apart the clocks of the disk and of this process may be."""
_KEPT: Final = re.compile(rb'\{"kept":([0-9.e+]+),(?:"before":([0-9.e+]+),)?')
_DROPPED: Final = "(output was dropped here: the task wrote more than is kept)\n"


def records(folder: Path, after: float, until: float) -> Iterator[bytes]:
    """The records of a task that were kept in between, `until` included, and one in place of each gap.

    They are those that are there when the first is asked for, however long the reader takes for them.
    """
    last = after
    with contextlib.ExitStack() as opened:
        for file in _files(folder, after, opened):
            for line in _lines_after(file, after):
                kept, before = _times(line)
                if kept <= last:
                    continue
                if before > last:
                    yield _gap(line, before)
                if kept > until:
                    return
                yield line
                last = kept


def in_pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines together, some at a time."""
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size > _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def begins(path: Path) -> float:
    """When the first record of a file was kept; infinite where there is none."""
    try:
        with path.open("rb") as file:
            return _times(file.readline())[0]
    except FileNotFoundError:
        return float("inf")


def _files(folder: Path, after: float, opened: contextlib.ExitStack) -> list[BinaryIO]:
    """The files of a task that may hold what was kept after that, the oldest first.

    Open all at once: the writer takes away the oldest part while a slow reader has the others.
    """
    found: list[tuple[float, BinaryIO]] = []
    for path in (folder / name for name in FILES):
        with contextlib.suppress(FileNotFoundError):
            if changed(path) > max(0.0, (after - _CLOCK_SLACK) * 1e9):
                file = opened.enter_context(path.open("rb"))
                found.append((_times(file.readline())[0], file))
    return [file for _, file in sorted(found, key=lambda each: each[0])]


def _lines_after(file: BinaryIO, after: float) -> Iterator[bytes]:
    """Whole lines of a file, from a little before the first one that was kept after that time."""
    low, high = 0, file.seek(0, 2)
    while high - low > _PIECE:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        if _times(file.readline())[0] <= after:
            low = middle
        else:
            high = middle
    file.seek(low)
    if low:
        file.readline()
    yield from (line for line in file if line.endswith(b"\n"))


def kept_at(line: bytes) -> float | None:
    """When a record was kept; None for one that is cut off, or that only says what is missing."""
    match = _KEPT.match(line) if line.endswith(b"\n") else None
    return float(match[1]) if match else None


def _times(line: bytes) -> tuple[float, float]:
    """When a record was kept, and when the one before it; never, for one that is cut off."""
    match = _KEPT.match(line) if line.endswith(b"\n") else None
    return (float(match[1]), float(match[2] or 0.0)) if match else (float("inf"), 0.0)


def _gap(line: bytes, before: float) -> bytes:
    """What stands in front of a record where those before it are gone, the last of them kept at `before`."""
    task = {name: value for name, value in json.loads(line).items() if name in ("namespace", "pool", "task")}
    gap = {"kept": before, **task, "stream": "stderr", "gap": True, "text": _DROPPED}
    return json.dumps(gap, separators=(",", ":")).encode() + b"\n"
