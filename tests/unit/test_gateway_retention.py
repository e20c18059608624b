"""What of the output on disk is kept, and what goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skyward_operator.gateway.retention import NOTE_BYTES, Kept, Kind, Limits, decide
from skyward_operator.settings import LEAST_OUTPUT_BYTES

DAY = 86_400.0
NOW = 1000 * DAY
MIB = 1 << 20


def kept(name: str, size: int, days_ago: float, *, ended: bool = True, wanted: bool = True) -> Kept:
    return Kept(Kind.TASK, "default", name, size, NOW - days_ago * DAY, ended, wanted)


def removed(found: list[Kept], limits: Limits) -> list[tuple[str, str]]:
    return [(each.kept.name, each.why) for each in decide(found, limits, NOW).remove]


def test_nothing_goes_within_the_limits() -> None:
    found = [kept("a", MIB, 29.0), kept("b", MIB, 300.0, ended=False)]
    decision = decide(found, Limits(MIB, 2 * MIB, 30.0), NOW)
    assert (decision.remove, decision.shrink.kept, decision.shrink.limit) == ((), (), MIB)


def test_what_ended_long_ago_goes_and_a_note_of_it_stays_while_somebody_may_read_it() -> None:
    found = [
        kept("old", MIB, 31.0),
        kept("note", NOTE_BYTES, 31.0),
        kept("note of nobody", NOTE_BYTES, 31.0, wanted=False),
        kept("runs", MIB, 31.0, ended=False),
    ]
    names = [name for name, _ in removed(found, Limits(MIB, 9 * MIB, 30.0))]
    assert sorted(names) == ["note of nobody", "old"]


def test_the_oldest_that_has_ended_goes_first_and_only_as_many_as_needed() -> None:
    found = [
        kept("c", MIB, 1.0),
        kept("a", MIB, 3.0),
        kept("b", MIB, 2.0),
        kept("runs", MIB, 9.0, ended=False),
    ]
    assert removed(found, Limits(MIB, 2 * MIB, 30.0)) == [
        ("a", "all output together was more than 2,097,152 bytes"),
        ("b", "all output together was more than 2,097,152 bytes"),
    ]


def test_tasks_that_run_share_the_room_when_nothing_else_can_go() -> None:
    found = [kept("a", 8 * MIB, 0.0, ended=False), kept("b", MIB, 0.0, ended=False), kept("c", MIB, 9.0)]
    shrink = decide(found, Limits(64 * MIB, 4 * MIB, 30.0), NOW).shrink
    assert ([each.name for each in shrink.kept], shrink.limit) == (["a"], 2 * MIB)
    many = [kept(str(number), 2 * MIB, 0.0, ended=False) for number in range(100)]
    assert decide(many, Limits(64 * MIB, 4 * MIB, 30.0), NOW).shrink.limit == LEAST_OUTPUT_BYTES


@given(
    st.lists(st.tuples(st.integers(0, 9 * MIB), st.floats(0, 60), st.booleans()), max_size=20),
    st.integers(MIB, 40 * MIB),
)
def test_what_is_left_is_within_the_limits_and_stays(
    sizes: list[tuple[int, float, bool]], total: int
) -> None:
    found = [kept(str(n), size, days, ended=ended) for n, (size, days, ended) in enumerate(sizes)]
    limits = Limits(8 * MIB, total, 30.0)
    decision = decide(found, limits, NOW)
    gone = {each.kept for each in decision.remove}
    assert all(each.ended for each in gone)
    left = [each for each in found if each not in gone]
    ended = sum(each.size for each in left if each.ended and each.size > NOTE_BYTES)
    running = sum(each.size for each in left if not each.ended)
    notes = sum(each.size for each in left if each.ended and each.size <= NOTE_BYTES)
    assert ended == 0 or ended + running + notes <= total
    assert decide(left, limits, NOW).remove == ()
