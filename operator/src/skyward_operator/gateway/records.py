"""Records of output, read back from the files of a task: those of a span of time, in the order kept.

Every record begins with when it was `kept`, so that a span is found by halving, not by reading.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from skyward_operator.gateway.output import changed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_PIECE: Final = 1 << 16
_CLOCK_SLACK: Final = 60.0
"""How far apart the clocks of the disk and of this process may be."""
_KEPT: Final = re.compile(rb'\{"kept":([0-9.e+]+),')


def records(path: Path, after: float, until: float) -> Iterator[bytes]:
    """The records of a file that were kept in between, some at a time."""
    if changed(path) <= max(0.0, (after - _CLOCK_SLACK) * 1e9):
        return
    yield from in_pieces(line for line in _lines_after(path, after) if after < _kept(line) <= until)


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
            return _kept(file.readline())
    except FileNotFoundError:
        return float("inf")


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


def kept_at(line: bytes) -> float | None:
    """When a record was kept; None for one that is cut off, or that only says what is missing."""
    match = _KEPT.match(line) if line.endswith(b"\n") else None
    return float(match[1]) if match else None


def _kept(line: bytes) -> float:
    kept = kept_at(line)
    return float("inf") if kept is None else kept
