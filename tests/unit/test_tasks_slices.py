"""Slices of a map: how large they are, how they are cut, what is called back and what is remembered."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.wire.envelopes import SLICE_ITEMS
from skyward_operator.tasks import decide, stealing
from skyward_operator.tasks.flights import Attempt, Flights
from skyward_operator.tasks.ledger import FRESH, LiveTask, Past
from skyward_operator.tasks.ranges import Span
from skyward_operator.tasks.results import ResultFile
from skyward_operator.tasks.work import Retry, Work


def attempt(first: int, count: int = 1, **more: Any) -> Attempt:
    return Attempt(f"uid.{first}.1", first, 1, more.pop("node", "n0"), 0, 100.0, count=count, **more)


def live_map(count: int = 100, tmp_path: Any = None, **more: Any) -> LiveTask:
    work = Work("default", "map", "uid", "pool", 0.0, count=count, package="x", **more)
    return LiveTask(work, ResultFile(tmp_path))


@pytest.mark.parametrize(
    ("mean", "largest", "size"),
    [
        (None, 1, 1),
        (0.001, 1, 8),
        (0.001, 8, 64),
        (0.001, 64, 75),
        (0.00001, 1024, SLICE_ITEMS),
        (0.0, 1024, SLICE_ITEMS),
        (0.05, 64, 1),
        (10.0, 64, 1),
    ],
)
def test_slices_grow_step_by_step_up_to_a_bit_of_work(mean: float | None, largest: int, size: int) -> None:
    assert decide.slices(mean, largest, 0, several=True).size == size
    assert decide.slices(mean, largest, 0, several=False).size == 1


def test_slots_keep_a_few_slices_of_short_calls_and_none_of_long_ones() -> None:
    assert decide.slices(0.001, 75, 0, several=True).buffer == 2
    assert decide.slices(0.001, 1, 0, several=True).buffer == 2  # they will be larger soon
    assert decide.slices(3.0, 1, 0, several=True).buffer == 0
    assert decide.slices(3.0, 1, 5, several=True).buffer == 5


@pytest.mark.parametrize(
    ("mean", "largest", "least"), [(0.0001, 64, 40), (0.0001, 1, 8), (0.01, 64, 1), (3.0, 1, 1)]
)
def test_last_slices_are_worth_a_frame_and_no_long_calls_share_one(
    mean: float, largest: int, least: int
) -> None:
    assert decide.slices(mean, largest, 0, several=True).least == least


@pytest.mark.parametrize(
    ("more", "several"),
    [
        ({}, True),
        ({"retry": Retry(on_interruption=0)}, False),
        ({"mode": "All"}, False),
        ({"mode": "Head"}, False),
        ({"open": True}, False),
        ({"count": 1}, False),
    ],
)
def test_calls_are_sliced_only_where_any_node_may_run_them_again(more: dict[str, Any], several: bool) -> None:
    assert live_map(**more).in_slices is several


@given(st.sets(st.integers(0, 30)), st.integers(0, 20), st.integers(1, 20))
def test_cut_attempt_keeps_all_its_calls_in_order(places: set[int], first: int, count: int) -> None:
    pieces = attempt(first, count).cut(*sorted(places))
    assert [i for piece in pieces for i in range(piece.index, piece.last + 1)] == list(
        range(first, first + count)
    )
    assert [piece.id for piece in pieces] == [f"uid.{piece.index}.1" for piece in pieces]
    assert {piece.index for piece in pieces} == {first} | {p for p in places if first < p < first + count}


def test_flights_count_calls_and_find_them_inside_of_slices() -> None:
    flights = Flights()
    one, two = attempt(0, 10), attempt(10, 5)
    flights.add(one)
    flights.add(two)
    flights.advance(one, 4)
    assert (one.index, one.count, one.id) == (4, 6, "uid.4.1")
    assert flights.get(0) is None
    assert flights.at(7) is one
    assert flights.within(9, 10) == [one, two]
    assert flights.calls == 11
    flights.remove(one)
    flights.remove(one)
    assert (flights.calls, len(flights)) == (5, 1)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10), st.integers(1, 3))))
def test_calls_to_hand_out_are_all_that_are_left_and_alike(history: list[tuple[int, int, int]]) -> None:
    live = live_map(50)
    done: Counter[int] = Counter()
    for first, count, number in history:
        if number == 3:
            live.succeeded.add_range(first, first + count - 1)
            live.forget(first, first + count - 1)
        else:
            for span in live.without_end(first, first + count - 1):
                live.remember(span, Past(number))
    spans = list(live.unhandled())
    for span in spans:
        done.update(range(span.first, span.last + 1))
        assert len({live.past.get(index, FRESH) for index in range(span.first, span.last + 1)}) == 1
    assert sorted(done) == [index for index in range(50) if not live.has_ended(index)]
    assert set(done.values()) <= {1}
    assert not any(live.has_ended(index) for index in live.past)


def test_slice_with_the_most_work_that_has_not_begun_is_called_back() -> None:
    fast = attempt(0, 100, started=1.0, heard=99.99)
    slow = attempt(100, 40, started=1.0, heard=99.99, node="n1")
    paces = {"n0": 0.001, "n1": 0.01}
    assert stealing.choose([fast, slow], paces, 100.0) is slow
    slow.recalled = True
    assert stealing.choose([fast, slow], paces, 100.0) is fast


@pytest.mark.parametrize(
    "held",
    [
        attempt(0, 1, started=1.0, heard=1.0),  # it runs
        attempt(0, 10, started=1.0, heard=99.999),  # ends sooner than it moves
        attempt(0, 100, heard=99.99),  # about to begin
        attempt(0, 100, started=1.0, heard=1.0, recalled=True),
    ],
)
def test_slice_is_left_where_nothing_is_worth_to_be_moved(held: Attempt) -> None:
    assert stealing.choose([held], {"n0": 0.001}, 100.0) is None


def test_calls_behind_one_that_takes_long_are_called_back() -> None:
    held = attempt(0, 3, started=1.0, heard=99.0)
    assert stealing.choose([held], {"n0": 0.001}, 100.0) is held
    waits = attempt(3, 1, heard=99.0)
    assert stealing.choose([waits], {}, 100.0) is waits


def test_history_of_a_span_is_told_in_parts_that_are_alike() -> None:
    live = live_map(10)
    assert list(live.alike(Span(0, 10))) == [(Span(0, 10), FRESH)]
    live.remember(Span(2, 3), Past(1, exceptions=1))
    live.remember(Span(5, 1), Past(2, interruptions=1))
    assert list(live.alike(Span(0, 7))) == [
        (Span(0, 2), FRESH),
        (Span(2, 3), Past(1, exceptions=1)),
        (Span(5, 1), Past(2, interruptions=1)),
        (Span(6, 1), FRESH),
    ]
