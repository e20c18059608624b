"""Which connections stay when there are too many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from skyward_operator.gateway.connections import Bounds, Connections
from skyward_operator.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL = Bounds(connections=20, unproven=6, unproven_per_address=3, requests_per_ticket=2)


@dataclass(eq=False)
class Fake:
    """A connection."""

    address: str
    is_idle: bool = True
    ended: int = 0
    book: Connections | None = field(default=None, repr=False)

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def book() -> Connections:
    return Connections(SMALL, Metrics())


def come(book: Connections, *addresses: str) -> list[Fake]:
    made = [Fake(address) for address in addresses]
    for each in made:
        assert book.came(each)
    return made


def ended(connections: Iterable[Fake]) -> list[int]:
    return [index for index, each in enumerate(connections) if each.ended]


def test_many_of_one_address_push_each_other_out_and_nobody_else(book: Connections) -> None:
    other = come(book, "b")
    many = come(book, *["a"] * 10)
    assert ended(many) == list(range(7))
    assert ended(other) == []
    assert len(book) == 4


def test_many_of_many_addresses_push_out_the_oldest(book: Connections) -> None:
    many = come(book, *(f"a{number}" for number in range(10)))
    assert ended(many) == [0, 1, 2, 3]


def test_who_has_shown_a_ticket_is_pushed_out_by_none_who_has_not(book: Connections) -> None:
    (mine,) = come(book, "a")
    book.proved(mine)
    come(book, *["a"] * 100, *(f"a{number}" for number in range(100)))
    assert not mine.ended


def test_a_full_gateway_lets_go_of_who_does_nothing_the_longest(book: Connections) -> None:
    proven = come(book, *(f"a{number}" for number in range(6)))
    for each in proven:
        book.proved(each)
    for number in range(14):
        (each,) = come(book, f"b{number}")
        book.proved(each)
        proven.append(each)
    assert len(book) == 20
    proven[0].is_idle = False
    book.proved(proven[1])  # it was in use just now
    come(book, "c")
    assert ended(proven) == [2]


def test_a_gateway_that_is_full_of_work_takes_nobody_in(book: Connections) -> None:
    for number in range(20):
        (each,) = come(book, f"a{number}")
        each.is_idle = False
        book.proved(each)
    late = Fake("b")
    assert not book.came(late)
    assert not late.ended  # whoever asked ends it
    assert len(book) == 20


def test_what_has_left_is_not_counted(book: Connections) -> None:
    for _ in range(10):
        one, two = come(book, "a", "a")
        book.proved(one)
        book.left(one)
        book.left(two)
        book.left(two)
        book.proved(two)
    assert len(book) == 0
    assert ended(come(book, *["a"] * 3)) == []


def test_requests_of_one_ticket_are_counted_while_they_last(book: Connections) -> None:
    assert book.begin("mine")
    assert book.begin("mine")
    assert not book.begin("mine")
    assert book.begin("yours")
    book.finish("mine")
    assert book.begin("mine")


def test_there_are_never_more_than_the_process_may_have_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    assert Bounds().most == 128
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert Bounds().most == 4096
