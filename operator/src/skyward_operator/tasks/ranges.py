"""The calls of a task that have ended: a set of indexes that grows one by one, and its text for the status.

A map of a million calls must not cost a million objects. Calls are handed out in index order, so the
finished ones form a few intervals; the set keeps those and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward.contract import ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Span:
    """`count` calls in a row, from `first` on."""

    first: int
    count: int = 1

    @property
    def last(self) -> int:
        """The last of them."""
        return self.first + self.count - 1


class IndexSet:
    """A mutable set of non-negative integers, kept as sorted, disjoint, non-adjacent intervals."""

    __slots__ = ("_ends", "_size", "_starts")

    def __init__(self, indexes: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # inclusive
        self._size = 0
        for index in indexes:
            self.add(index)

    def add(self, index: int) -> bool:
        """Add one index; False when it was there already."""
        return self.add_range(index, index) > 0

    def add_range(self, first: int, last: int) -> int:
        """Add `first..last`, both included; returns how many of them were new."""
        if first < 0 or last < first:
            raise ValueError(f"{first}-{last} is no range of indexes")
        starts, ends = self._starts, self._ends
        # Every interval that overlaps or touches [first, last] is merged into one.
        low = bisect_right(ends, first - 2) if first > 1 else 0
        while low < len(ends) and ends[low] < first - 1:
            low += 1
        high = bisect_right(starts, last + 1)
        covered = sum(ends[i] - starts[i] + 1 for i in range(low, high))
        begin = min(first, starts[low]) if low < high else first
        end = max(last, ends[high - 1]) if low < high else last
        starts[low:high] = [begin]
        ends[low:high] = [end]
        added = (end - begin + 1) - covered
        self._size += added
        return added

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        at = bisect_right(self._starts, index) - 1
        return at >= 0 and index <= self._ends[at]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        for first, last in zip(self._starts, self._ends, strict=True):
            yield from range(first, last + 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexSet):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __str__(self) -> str:
        return ranges.join(self.intervals())

    def text(self, limit: int) -> str:
        """The set as a status holds it; cut at a range, with `,…` at its end, where it would be longer."""
        return ranges.join(self.intervals(), limit)

    def __repr__(self) -> str:
        return f"IndexSet({str(self)!r})"

    def intervals(self) -> list[tuple[int, int]]:
        """First and last index of each interval."""
        return list(zip(self._starts, self._ends, strict=True))

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any index of `first..last` is in the set."""
        at = bisect_left(self._ends, first)
        return at < len(self._starts) and self._starts[at] <= last

    def gaps(self, first: int, last: int) -> Iterator[Span]:
        """What of `first..last` is not in the set, as it is now, lowest first."""
        low, high = bisect_left(self._ends, first), bisect_right(self._starts, last)
        for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True):
            if first < start:
                yield Span(first, start - first)
            first = end + 1
        if first <= last:
            yield Span(first, last - first + 1)
