"""Outcomes back in the order of their calls: what came before its turn is kept, in memory or on disk.

One slow call at the front must not make the memory hold everything behind it.
"""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import BinaryIO

from skyward.wire.outcomes import Outcome, iter_outcomes, pack_outcomes

WINDOW = 64 * 1024 * 1024
"""Bytes of outcomes that wait in memory; what comes on top of that waits in a temporary file."""
_OVERHEAD = 512


def in_order(outcomes: Iterable[Outcome], window: int = WINDOW) -> Iterator[Outcome]:
    """The same outcomes by index, each as soon as it and those before it are there; the rest at the end."""
    early = _Early(window)
    turn = 0
    try:
        for outcome in outcomes:
            if outcome.index != turn:
                early.put(outcome)
                continue
            yield outcome
            turn += 1
            while (waiting := early.take(turn)) is not None:
                yield waiting
                turn += 1
        for index in early.indexes():  # calls that never ran leave gaps
            if (waiting := early.take(index)) is not None:
                yield waiting
    finally:
        early.close()


class _Early:
    """Outcomes by index."""

    def __init__(self, window: int) -> None:
        self._room = window
        self._here: dict[int, Outcome] = {}
        self._places = array("Q")  # by index: where its record begins in the file, plus one
        self._file: BinaryIO | None = None

    def put(self, outcome: Outcome) -> None:
        size = len(outcome.body) + _OVERHEAD
        if size <= self._room:
            self._room -= size
            self._here[outcome.index] = outcome
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="skyward-results-")  # noqa: SIM115 - see close()
        missing = outcome.index + 1 - len(self._places)
        if missing > 0:
            self._places.frombytes(bytes(missing * self._places.itemsize))
        self._places[outcome.index] = self._file.seek(0, 2) + 1
        self._file.write(pack_outcomes([outcome]))

    def take(self, index: int) -> Outcome | None:
        if (outcome := self._here.pop(index, None)) is not None:
            self._room += len(outcome.body) + _OVERHEAD
            return outcome
        if self._file is None or index >= len(self._places) or not self._places[index]:
            return None
        self._file.seek(self._places[index] - 1)
        self._places[index] = 0
        return next(islice(iter_outcomes(self._file), 1))

    def indexes(self) -> list[int]:
        kept = (index for index, place in enumerate(self._places) if place)
        return sorted([*self._here, *kept])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
