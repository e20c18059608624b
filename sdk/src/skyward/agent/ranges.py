"""Attempts by name, alone or as a run of items that one name stands for, found by any name in it."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict
from collections.abc import Iterator
from functools import lru_cache

from skyward.wire.envelopes import attempt_id, parse_attempt

_LAST = 1 << 62
"""No count is as large."""


class Ranges:
    """Names in the order in which they came, each for a number of items. They do not overlap.

    A name on its own costs a dict's time, however many there are.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()  # a dict is slow to say what came first
        self._single: Counter[tuple[str, int]] = Counter()
        """How many names of one item there are of each task and number."""
        self._runs: dict[tuple[str, int], list[tuple[int, int, str]]] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, name: str) -> bool:
        return name in self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def add(self, name: str, count: int = 1) -> None:
        """`count` items from `name` on. A name of another form than an item's stands for itself."""
        self.discard(name)
        self._counts[name] = count
        if (place := _place(name)) is not None:
            key, index = place
            if count == 1:
                self._single[key] += 1
            else:
                insort(self._runs.setdefault(key, []), (index, count, name))

    def discard(self, name: str) -> None:
        """Forget what came under this name."""
        count = self._counts.pop(name, None)
        if count is None or (place := _place(name)) is None:
            return
        key, index = place
        if count == 1:
            self._single[key] -= 1
            if not self._single[key]:
                del self._single[key]
            return
        runs = self._runs[key]
        del runs[bisect_left(runs, (index, count, name))]
        if not runs:
            del self._runs[key]

    def discard_oldest(self) -> None:
        """Forget what came first."""
        self.discard(next(iter(self._counts)))

    def find(self, name: str, count: int = 1) -> str | None:
        """A name known that has an item in common with the `count` items from `name` on."""
        if name in self._counts:
            return name
        if (count == 1 and not self._runs) or (place := _place(name)) is None:
            return None
        key, index = place
        if count > 1 and key in self._single:
            uid, number = key
            names = (attempt_id(uid, each, number) for each in range(index, index + count))
            if (single := next((each for each in names if each in self._counts), None)) is not None:
                return single
        return self._find_run(key, index, count)

    def _find_run(self, key: tuple[str, int], index: int, count: int) -> str | None:
        runs = self._runs.get(key)
        if not runs:
            return None
        after = bisect_right(runs, (index, _LAST, ""))
        if after and (run := runs[after - 1])[0] + run[1] > index:
            return run[2]
        if after < len(runs) and runs[after][0] < index + count:
            return runs[after][2]
        return None


@lru_cache(maxsize=4096)  # each name is looked up several times between its CALL and its ACK
def _place(name: str) -> tuple[tuple[str, int], int] | None:
    try:
        uid, index, number = parse_attempt(name)
    except ValueError:
        return None
    return (uid, number), index
