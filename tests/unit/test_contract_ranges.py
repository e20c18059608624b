"""Index ranges: what is written can be read again, in any order, within any limit."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.contract.ranges import contains, count, decode, encode, is_cut, spans

indexes = st.sets(st.integers(0, 999_999), max_size=200)
#: many neighbours, so that ranges form
dense = st.sets(st.integers(0, 60), max_size=60)


@given(indexes | dense)
def test_decode_gives_back_what_encode_wrote(wanted: set[int]) -> None:
    text = encode(wanted)
    assert list(decode(text)) == sorted(wanted)
    assert count(text) == len(wanted)
    assert not is_cut(text)


@given(dense)
def test_encode_is_the_shortest_form_whatever_the_order(wanted: set[int]) -> None:
    assert encode(sorted(wanted, reverse=True)) == encode(wanted)
    ranges = spans(encode(wanted))
    assert all(after.start > before.stop for before, after in pairwise(ranges))


@given(indexes | dense, st.integers(1, 400))
def test_encode_keeps_to_its_limit_and_says_that_it_cut(wanted: set[int], limit: int) -> None:
    text = encode(wanted, limit)
    assert len(text) <= limit
    held = list(decode(text))
    assert held == sorted(wanted)[: len(held)]
    assert is_cut(text) == (len(held) < len(wanted))


@given(dense, st.integers(0, 70))
def test_contains_agrees_with_the_set(wanted: set[int], index: int) -> None:
    assert contains(spans(encode(wanted)), index) == (index in wanted)


def test_encode_writes_the_format_of_kubernetes_jobs() -> None:
    assert encode([*range(42), 43]) == "0-41,43"


@pytest.mark.parametrize("nothing", ["", None])
def test_no_text_means_no_index(nothing: str | None) -> None:
    assert spans(nothing) == ()


@pytest.mark.parametrize("wrong", ["a", "1,,2", "3-1", "5,4", "0-4,4", "1-", "-1", "1;2", "²"])
def test_spans_refuses_what_is_not_in_the_format(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"ranges? of indexes"):
        spans(wrong)
