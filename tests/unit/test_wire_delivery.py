"""Deliveries: cut anywhere and continued, they bring each outcome once, and never less than all unnoticed."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.wire.delivery import Arrivals, End, beat, data_part, end_part
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.errors import PackageError
from skyward.wire.outcomes import Outcome, digest_outcomes, pack_outcomes

SENT = [
    Outcome(0, True, b""),
    Outcome(2, False, b"\x80error", ErrorInfo("ValueError", "no"), "n1", 1, "uid.2.3"),
    Outcome(1, True, b"x" * 300, value=7),
]
RECORDS = pack_outcomes(SENT)
END = end_part(End(len(RECORDS), digest_outcomes(BytesIO(RECORDS))))


def stream(records: bytes, pieces: list[int]) -> bytes:
    """Records in parts of these sizes, with beats between them."""
    parts, at = [], 0
    for size in [*pieces, len(records)]:
        parts += [data_part(records[at : at + size]), beat()]
        at += size
    return b"".join(parts)


@given(st.lists(st.integers(1, 120), max_size=8), st.lists(st.integers(1, 50), max_size=30))
def test_parts_and_pieces_of_any_size_bring_the_same_outcomes(pieces: list[int], reads: list[int]) -> None:
    arrivals, sent, got = Arrivals(), stream(RECORDS, pieces) + END, list[Outcome]()
    for size in [*reads, len(sent)]:
        got += arrivals.feed(sent[:size])
        sent = sent[size:]
    assert got == SENT
    assert arrivals.is_whole


@given(st.lists(st.integers(0, len(RECORDS) + 60), max_size=5), st.integers(1, 90))
def test_a_delivery_that_breaks_goes_on_where_it_was(breaks: list[int], piece: int) -> None:
    arrivals, got = Arrivals(), list[Outcome]()
    for cut in [*breaks, 10_000]:
        arrivals.reconnected()
        rest = RECORDS[arrivals.offset :]
        got += arrivals.feed((stream(rest, [piece] * 4) + END)[:cut])
        if arrivals.is_whole:
            break
    assert got == SENT
    assert arrivals.is_whole


def test_bodies_can_be_written_to() -> None:
    """Arrays that are made of them are the caller's own."""
    arrivals = Arrivals()
    (outcome,) = arrivals.take(pack_outcomes([Outcome(0, True, b"abc")]))
    assert isinstance(outcome.body, bytearray)


@pytest.mark.parametrize(
    "sent",
    [
        stream(RECORDS, []) + end_part(End(len(RECORDS) + 1)),
        stream(RECORDS[:-1], []) + end_part(End(len(RECORDS) - 1)),
        stream(RECORDS, []) + end_part(End(len(RECORDS), "0" * 64)),
        data_part(b"nonsense" * 9),
        b"\x07\x00\x00\x00\x00",
        b"\x01\xff\xff\xff\xff",
        b"\x03\x00\x00\x00\x02[]",
    ],
)
def test_what_is_missing_or_damaged_is_noticed(sent: bytes) -> None:
    arrivals = Arrivals()
    with pytest.raises(PackageError):
        list(arrivals.feed(sent))
    assert not arrivals.is_whole


@given(st.data())
def test_a_damaged_delivery_is_an_error_or_is_not_whole(data: st.DataObject) -> None:
    sent = bytearray(stream(RECORDS, [100]) + END)
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    arrivals = Arrivals()
    try:
        got = list(arrivals.feed(sent))
    except PackageError:
        return
    assert not arrivals.is_whole or got == SENT
