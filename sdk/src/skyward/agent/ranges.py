"""Attempts by name, alone or as a run of items that one name stands for, found by any name in it."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from skyward.wire.envelopes import parse_attempt


class Ranges:
    """Names in the order in which they came, each for a number of items. They do not overlap."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
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
            insort(self._runs.setdefault(key, []), (index, count, name))

    def discard(self, name: str) -> None:
        """Forget what came under this name."""
        count = self._counts.pop(name, None)
        if count is None or (place := _place(name)) is None:
            return
        key, index = place
        runs = self._runs[key]
        del runs[bisect_left(runs, (index, count, name))]
        if not runs:
            del self._runs[key]

    def discard_oldest(self) -> None:
        """Forget what came first."""
        self.discard(next(iter(self._counts)))

    def find(self, name: str, count: int = 1) -> str | None:
        """The first name known that has an item in common with the `count` items from `name` on."""
        if name in self._counts:
            return name
        if not self._runs or (place := _place(name)) is None:
            return None
        key, index = place
        runs = self._runs.get(key)
        if not runs:
            return None
        after = bisect_right(runs, index, key=_begin)
        if after and (run := runs[after - 1])[0] + run[1] > index:
            return run[2]
        if after < len(runs) and runs[after][0] < index + count:
            return runs[after][2]
        return None


def _begin(run: tuple[int, int, str]) -> int:
    return run[0]


def _place(name: str) -> tuple[tuple[str, int], int] | None:
    try:
        uid, index, number = parse_attempt(name)
    except ValueError:
        return None
    return (uid, number), index
