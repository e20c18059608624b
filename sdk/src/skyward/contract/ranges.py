"""Sets of call indexes as text, in the format of Kubernetes' Job: `0-41,43`.

A map of many calls keeps its progress this way. Calls start in order of their index, so the text stays short;
where it would not, it is cut at a range and ends with `,…`, and the counts beside it stay exact.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CUT = "…"


def encode(indexes: Iterable[int], limit: int | None = None) -> str:
    """Text of the indexes, which may come in any order and repeat; at most `limit` characters."""
    return join(((span[0], span[-1]) for span in _spans_of(sorted(set(indexes)))), limit)


def join(intervals: Iterable[tuple[int, int]], limit: int | None = None) -> str:
    """Text of ascending intervals, each by its first and last index; at most `limit` characters."""
    parts: list[str] = []
    length = 0
    for first, last in intervals:
        part = str(first) if first == last else f"{first}-{last}"
        length += len(part) + bool(parts)
        parts.append(part)
        if limit is not None and length > limit:
            return _cut(parts, length, limit)
    return ",".join(parts)


def spans(text: str | None) -> tuple[range, ...]:
    """The ranges of a text, ascending; a cut text gives those that it holds.

    Raises:
        ValueError: the text is not in the format, or its ranges overlap or descend.
    """
    found: list[range] = []
    whole = (text or "").removesuffix(CUT).removesuffix(",")
    for part in whole.split(",") if whole else ():
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise ValueError(f"not a range of indexes such as 0-41 or 43: {part!r}")
        span = range(int(first), int(last if dash else first) + 1)
        if not span or (found and span.start < found[-1].stop):
            raise ValueError(f"ranges of indexes have to ascend: {part!r}")
        found.append(span)
    return tuple(found)


def decode(text: str | None) -> Iterator[int]:
    """The indexes of a text, ascending."""
    for span in spans(text):
        yield from span


def count(text: str | None) -> int:
    """Number of indexes in a text."""
    return sum(map(len, spans(text)))


def is_cut(text: str | None) -> bool:
    """True when the text did not fit and holds only the first ranges."""
    return (text or "").endswith(CUT)


def contains(ranges: tuple[range, ...], index: int) -> bool:
    """Whether an index lies in the ranges of `spans`."""
    place = bisect_right(ranges, index, key=lambda span: span.start)
    return place > 0 and index in ranges[place - 1]


def _spans_of(ordered: list[int]) -> Iterator[range]:
    start = 0
    for place in range(1, len(ordered) + 1):
        if place == len(ordered) or ordered[place] != ordered[place - 1] + 1:
            yield range(ordered[start], ordered[place - 1] + 1)
            start = place


def _cut(parts: list[str], length: int, limit: int) -> str:
    """Drop ranges from the end until the rest and the mark fit."""
    while parts and length + len(f",{CUT}") > limit:
        length -= len(parts.pop()) + bool(parts)
    return ",".join([*parts, CUT])
