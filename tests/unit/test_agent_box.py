"""The box that a worker and its agent share: both sides, and what stands in it when one is gone."""

import os
from dataclasses import dataclass
from io import BytesIO

import pytest

from skyward.agent.box import ROOM, Box, new_box
from skyward.wire.outcomes import Heads, Outcome, outcome_head, scan_outcomes


@dataclass
class Pair:
    worker: Box
    agent: Box


@pytest.fixture
def pair() -> Pair:
    descriptor = new_box()
    pair = Pair(Box(descriptor), Box(descriptor))
    os.close(descriptor)
    pair.agent.prepare(0)
    return pair


def record(index: int, body: bytes = b"x") -> tuple[bytes, bytes]:
    return Heads("node-a", 1).head(index, f"uid.{index}.1", 1.5, 0.25, len(body)), body


def test_outcomes_are_seen_by_the_other_side_until_they_were_sent(pair: Pair) -> None:
    for place in range(3):
        pair.worker.begin(place, 10.0 + place)
        assert pair.worker.keep(*record(place))
    bad = Outcome(3, False, b"oh", attempt="uid.3.1")
    assert pair.worker.keep(outcome_head(bad, 2), b"oh")
    assert [(index, ok) for index, ok, _ in pair.agent.outcomes()] == [
        (0, True),
        (1, True),
        (2, True),
        (3, False),
    ]
    assert b"".join(data for _, _, data in pair.agent.outcomes()) == pair.worker.contents()
    assert (pair.agent.begun, pair.agent.since) == (3, 12.0)
    pair.worker.empty()
    pair.worker.rest()
    assert list(pair.agent.outcomes()) == []
    assert pair.agent.since == float("inf")


def test_record_that_does_not_fit_changes_nothing(pair: Pair) -> None:
    assert pair.worker.keep(*record(0))
    before = pair.worker.contents()
    assert not pair.worker.keep(*record(1, bytes(ROOM)))
    assert pair.worker.contents() == before
    head, _ = record(1)
    pair.worker.empty()
    assert pair.worker.keep(head, bytes(ROOM - len(head)))


def test_record_that_was_being_written_at_the_end_is_not_there(pair: Pair) -> None:
    assert pair.worker.keep(*record(0))
    used = len(pair.worker.contents())
    pair.worker._records[used : used + 20] = record(1)[0][:20]
    assert [index for index, _, _ in pair.agent.outcomes()] == [0]


def test_garbage_in_a_box_ends_what_is_read_of_it(pair: Pair) -> None:
    for place in range(3):
        assert pair.worker.keep(*record(place))
    size = len(pair.worker.contents()) // 3
    pair.worker._records[size : size + 4] = b"oops"
    assert [index for index, _, _ in pair.agent.outcomes()] == [0]
    pair.worker._words[1] = 1 << 60
    assert [index for index, _, _ in pair.agent.outcomes()] == [0]


def test_condemned_is_one_item_or_whatever_runs(pair: Pair) -> None:
    assert not pair.worker.is_condemned(0)
    assert not pair.worker.is_meant_for_another(0)
    pair.agent.condemn(2)
    assert [pair.worker.is_condemned(place) for place in (1, 2, 3)] == [False, True, False]
    assert [pair.worker.is_meant_for_another(place) for place in (1, 2, 3)] == [True, False, True]
    assert not pair.worker.is_closed
    pair.agent.condemn(None)
    assert pair.worker.is_condemned(3)
    assert not pair.worker.is_meant_for_another(3)
    assert pair.worker.is_closed
    pair.agent.prepare(4)
    assert not pair.worker.is_condemned(4)
    assert pair.agent.begun == 4


def test_heads_are_those_of_outcomes() -> None:
    quick = Heads('node "a"\n', 4).head(7, "uid.7.2", 1764080000.123456, 0.000123456, 5)
    slow = outcome_head(
        Outcome(7, True, b"", None, 'node "a"\n', 4, "uid.7.2", 1764080000.123456, 0.000123456), 5
    )
    (first,), (second,) = (list(scan_outcomes(BytesIO(head + b"12345"))) for head in (quick, slow))
    assert first.outcome == second.outcome
    assert (first.size, first.head) == (5, quick)
