"""Records of many sources as one sequence, by time.

A source is opened when its turn comes and closed when it is read: a pool may have thousands of tasks, but few
of them print at the same time.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward_operator.gateway.records import in_pieces, kept_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Source:
    """Records of one task or node, in their order; none is older than `begins`."""

    begins: float
    records: Callable[[], Iterator[tuple[float, bytes]]]


def merged(sources: Sequence[Source]) -> Iterator[bytes]:
    """All records, by time, in pieces. Each source keeps its own order, whatever its clock says."""
    return in_pieces(_by_time(sources))


def timed(pieces: Iterable[bytes]) -> Iterator[tuple[float, bytes]]:
    """Records of one task with the times when they were kept; what has none stays with the one before."""
    when = 0.0
    for piece in pieces:
        for line in piece.splitlines(keepends=True):
            when = kept_at(line) or when
            yield when, line


def _by_time(sources: Sequence[Source]) -> Iterator[bytes]:
    opened: dict[int, Iterator[tuple[float, bytes]]] = {}
    waiting: list[tuple[float, int, bytes | None]] = [
        (source.begins, number, None) for number, source in enumerate(sources)
    ]
    heapq.heapify(waiting)
    while waiting:
        when, number, line = heapq.heappop(waiting)
        if line is None:
            opened[number] = sources[number].records()
        else:
            yield line
        following = next(opened[number], None)
        if following is None:
            del opened[number]
        else:
            heapq.heappush(waiting, (max(when, following[0]), number, following[1]))
