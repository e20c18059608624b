"""Index sets against plain sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from skyward.contract.ranges import decode
from skyward_operator.tasks.ranges import IndexSet

indexes = st.sets(st.integers(0, 60))


@given(indexes)
def test_index_set_equals_plain_set(wanted: set[int]) -> None:
    found = IndexSet(sorted(wanted, key=lambda i: (i * 7919) % 61))
    assert list(found) == sorted(wanted)
    assert len(found) == len(wanted)
    assert {i for i in range(70) if i in found} == wanted


@given(indexes)
def test_index_set_text_round_trips(wanted: set[int]) -> None:
    assert list(decode(str(IndexSet(wanted)))) == sorted(wanted)


@given(indexes, st.integers(0, 70), st.integers(1, 20))
def test_gaps_are_the_complement(wanted: set[int], first: int, length: int) -> None:
    found, looked_at = IndexSet(wanted), range(first, first + length)
    gaps = list(found.gaps(first, first + length - 1))
    assert [i for gap in gaps for i in range(gap.first, gap.last + 1)] == [
        i for i in looked_at if i not in wanted
    ]
    assert all(before.last + 1 < after.first for before, after in pairwise(gaps))
    assert found.overlaps(first, first + length - 1) == any(i in wanted for i in looked_at)


@given(indexes, st.integers(0, 60), st.integers(0, 20))
def test_add_range_counts_what_is_new(wanted: set[int], first: int, length: int) -> None:
    found = IndexSet(wanted)
    added = found.add_range(first, first + length)
    assert set(found) == wanted | set(range(first, first + length + 1))
    assert added == len(found) - len(wanted)


def test_index_set_text_when_written_as_kubernetes_does() -> None:
    assert str(IndexSet([0, 1, 2, 3, 5, 7, 8])) == "0-3,5,7-8"
    assert str(IndexSet()) == ""


def test_text_when_too_long_is_cut_at_a_range() -> None:
    text = IndexSet(range(0, 100, 2)).text(20)
    assert len(text) <= 20
    assert text.endswith(",…")
    kept = list(decode(text))
    assert kept == list(range(0, 100, 2))[: len(kept)]
    assert len(kept) > 5
