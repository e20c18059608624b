"""Records of calls: what the heads of outcomes say, in few bytes, whatever the outcomes carry."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from skyward.records import CallError, CallRecord, records_of
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_record_says_what_the_outcome_says() -> None:
    info = ErrorInfo("DatabaseError", "no such table", "psycopg", "Traceback …", "User")
    outcome = Outcome(7, False, b"\x80never opened", info, "demo-1", 1, "uid.7.3", 1_700_000_000.0, 2.5)
    assert list(records_of([outcome], ordered=True)) == [
        CallRecord(
            7,
            False,
            3,
            "demo-1",
            1,
            datetime.fromtimestamp(1_700_000_000, UTC),
            2.5,
            CallError("psycopg.DatabaseError", "no such table", "UserException", "Traceback …"),
        )
    ]


def test_a_call_that_was_never_begun_has_no_attempt_and_no_start() -> None:
    info = ErrorInfo("NotPicklable", "a lock", kind="System", reason="NotPicklable")
    (record,) = records_of([Outcome(0, False, b"", info)], ordered=False)
    assert (record.attempts, record.started, record.node) == (0, None, "")


@pytest.mark.parametrize("ordered", [False, True])
def test_records_of_many_large_outcomes_are_few_bytes(ordered: bool) -> None:
    def outcomes() -> Iterator[Outcome]:
        for index in range(199, -1, -1):
            yield Outcome(index, True, bytes(1_000_000), attempt=f"uid.{index}.1")

    tracemalloc.start()
    try:
        indexes = [record.index for record in records_of(outcomes(), ordered=ordered)]
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert indexes == sorted(indexes, reverse=not ordered)
