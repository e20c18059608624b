"""The attempts of one task that are on nodes: one object for each slice, however many calls it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skyward.wire.envelopes import attempt_id, parse_attempt

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt at a call, or at each of `count` calls in a row, that is on a node.

    It is named by its first call without an end: `id` and `index` move on as they end.
    """

    id: str
    index: int
    number: int
    node: str
    rank: int
    sent: float
    started: float | None = None
    refusals: int = 0
    boot: str = ""
    """The life of the agent that it was sent to, where that is known."""
    count: int = 1
    size: int = 1
    """How many calls it had when it was sent."""
    heard: float | None = None
    """When the agent last said how far it is."""
    recalled: bool = False
    """The agent was asked for what has not begun."""

    @property
    def last(self) -> int:
        """Its last call."""
        return self.index + self.count - 1

    def piece(self, index: int, count: int = 1) -> Attempt:
        """The attempt at some of its calls alone."""
        return replace(self, id=self._name(index), index=index, count=count)

    def move(self, count: int) -> None:
        """Leave its first `count` calls out, and keep others."""
        self.id = self._name(self.index + count)
        self.index += count
        self.count -= count

    def cut(self, *places: int) -> list[Attempt]:
        """Attempts at its calls up to each of these places, and itself with what is behind the last."""
        pieces = []
        for place in places:
            if self.index < place <= self.last:
                pieces.append(self.piece(self.index, place - self.index))
                self.move(place - self.index)
        return [*pieces, self]

    def _name(self, index: int) -> str:
        uid, _, number = parse_attempt(self.id)
        return attempt_id(uid, index, number)


class Flights:
    """Attempts by their first call. What is on a node is in here exactly once."""

    __slots__ = ("_by_first", "calls")

    def __init__(self) -> None:
        self._by_first: dict[int, Attempt] = {}
        self.calls = 0
        """How many calls are on nodes."""

    def __len__(self) -> int:
        return len(self._by_first)

    def __iter__(self) -> Iterator[Attempt]:
        """All of them, as they are now."""
        return iter(list(self._by_first.values()))

    def get(self, first: int) -> Attempt | None:
        """The attempt whose first call this is."""
        return self._by_first.get(first)

    def at(self, index: int) -> Attempt | None:
        """The attempt that this call is in. Looks at all of them unless it is the first call of one."""
        found = self._by_first.get(index)
        if found is None:
            found = next((each for each in self._by_first.values() if each.index <= index <= each.last), None)
        return found

    def within(self, first: int, last: int) -> list[Attempt]:
        """The attempts that have a call of `first..last`, lowest first. Looks at all of them."""
        found = [each for each in self._by_first.values() if each.index <= last and first <= each.last]
        return sorted(found, key=lambda each: each.index)

    def holds(self, attempt: Attempt) -> bool:
        """Whether it is on its node still."""
        return self._by_first.get(attempt.index) is attempt

    def add(self, attempt: Attempt) -> None:
        """An attempt boards."""
        self._by_first[attempt.index] = attempt
        self.calls += attempt.count

    def remove(self, attempt: Attempt) -> None:
        """None of its calls is on a node any more."""
        if self.holds(attempt):
            del self._by_first[attempt.index]
            self.calls -= attempt.count

    def advance(self, attempt: Attempt, count: int) -> None:
        """Its first `count` calls have ended, and others have not."""
        del self._by_first[attempt.index]
        attempt.move(count)
        self._by_first[attempt.index] = attempt
        self.calls -= count

    def shorten(self, attempt: Attempt, count: int) -> None:
        """Its last `count` calls are not on the node any more, and others are."""
        attempt.count -= count
        self.calls -= count
