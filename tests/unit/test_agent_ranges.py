"""Attempts found by any name in a run of them, against the plain way."""

from hypothesis import given
from hypothesis import strategies as st

from skyward.agent.ranges import Ranges
from skyward.wire.envelopes import attempt_id

steps = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "oldest"]), st.integers(0, 30), st.integers(1, 6)),
    max_size=40,
)


@given(steps, st.integers(0, 32), st.integers(1, 8), st.sampled_from([1, 2]))
def test_what_overlaps_is_found_and_nothing_else(
    history: list[tuple[str, int, int]], index: int, count: int, number: int
) -> None:
    ranges, known = Ranges(), dict[str, range]()
    for what, first, size in history:
        name = attempt_id("uid", first, 1)
        taken = {each for run in known.values() for each in run}
        if what == "add" and name not in known and taken.isdisjoint(range(first, first + size)):
            ranges.add(name, size)
            known[name] = range(first, first + size)
        elif what == "discard":
            ranges.discard(name)
            known.pop(name, None)
        elif what == "oldest" and known:
            ranges.discard_oldest()
            del known[next(iter(known))]
    assert list(ranges) == list(known)
    assert len(ranges) == len(known)
    asked = set(range(index, index + count))
    hits = {name for name, run in known.items() if number == 1 and (asked & set(run) or run.start == index)}
    found = ranges.find(attempt_id("uid", index, number), count)
    assert found in hits if hits else found is None


def test_name_of_another_form_stands_for_itself() -> None:
    ranges = Ranges()
    ranges.add("anything at all")
    assert ranges.find("anything at all") == "anything at all"
    assert ranges.find("something else", 5) is None
    ranges.discard("anything at all")
    assert not len(ranges)
