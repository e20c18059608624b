"""Damaged bytes give an error of ours or another value: no hang, no stray exception, no endless memory."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import lz4.frame
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.wire.codec import dumps, loads
from skyward.wire.errors import FrameError, NotDeserializable, PackageError
from skyward.wire.frames import MAX_FRAME, Decoder, Frame, FrameKind, encode
from skyward.wire.outcomes import Outcome, iter_outcomes, pack_outcomes
from skyward.wire.package import CallPackage, pack_calls

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 2000
MIB = 1024 * 1024
ENVELOPE = struct.Struct("!4sI")
PART = struct.Struct("!QQQB")
RECORD = struct.Struct("!4sIQ")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """The body may never hold more than `size` bytes beyond what there was."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= size, f"{peak:,} bytes were held at once"


def damaged(dice: random.Random, whole: bytes) -> bytes:
    """The bytes with a few of the things done to them that disks and networks do."""
    data = bytearray(whole)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0 if data:
                data[place % len(data)] ^= 1 << dice.randrange(8)
            case 1:
                del data[place:]
            case 2:
                data[place:place] = dice.randbytes(dice.randint(1, 16))
            case 3:
                del data[place : place + dice.randint(1, 16)]
            case _:
                data[place : place + 8] = dice.choice((b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7))
    return bytes(data)


def test_decoder_fed_with_damaged_streams_holds_one_frame_at_most() -> None:
    dice = random.Random(1)
    kinds = list(FrameKind)
    for _ in range(ROUNDS):
        frames = [
            Frame(dice.choice(kinds), {"attempt": "a.0.1", "offset": n}, dice.randbytes(dice.randint(0, 300)))
            for n in range(dice.randint(1, 5))
        ]
        stream = damaged(dice, b"".join(map(encode, frames)))
        decoder = Decoder()
        with suppress(FrameError):
            while stream:
                size = dice.randint(1, 200)
                for frame in decoder.feed(stream[:size]):
                    assert isinstance(frame.header, dict)
                stream = stream[size:]
                assert decoder.pending <= MAX_FRAME + 4


def test_header_that_is_all_brackets_takes_a_bounded_multiple_of_its_frame() -> None:
    header = b'{"a":[' + b"[]," * (MAX_FRAME // 3 - 100) + b"[]]}"
    stream = struct.pack("!IBI", 5 + len(header), FrameKind.CALL, len(header)) + header
    with at_most(48 * MAX_FRAME):
        assert len(list(Decoder().feed(stream))) == 1


def test_header_nested_without_end_is_an_error() -> None:
    header = b'{"a":' + b"[" * 1_000_000
    stream = struct.pack("!IBI", 5 + len(header), FrameKind.CALL, len(header)) + header
    with pytest.raises(FrameError):
        list(Decoder().feed(stream))


def test_damaged_packages_are_errors_or_other_packages() -> None:
    dice = random.Random(2)
    whole = pack_calls([b"f" * 50, b"g" * 9], [(n % 2, dice.randbytes(n)) for n in range(20)])
    with at_most(MIB):
        for _ in range(ROUNDS):
            with suppress(PackageError):
                package = CallPackage(damaged(dice, whole))
                assert len(package.functions) <= len(whole)
                for index in range(package.count):
                    package.call(index)


def test_damaged_outcomes_are_errors_or_other_outcomes() -> None:
    dice = random.Random(3)
    outcomes = [Outcome(n, True, dice.randbytes(40), node="n", attempt=f"u.{n}.1") for n in range(5)]
    whole = pack_outcomes(outcomes)
    with at_most(MIB):
        for _ in range(ROUNDS):
            with suppress(PackageError):
                for outcome in iter_outcomes(damaged(dice, whole)):
                    assert isinstance(outcome.index, int)


@pytest.mark.parametrize(
    "header",
    [
        b'{"index":Infinity,"ok":true}',
        b'{"index":1e999,"ok":true}',
        b'{"index":' + b"[" * 100_000,
        b'{"index":' + b"9" * 5000 + b',"ok":true}',
        b'[1]',
        b'{"index":0,"ok":true,"error":7}',
        b"\xff\xfe",
    ],
)  # fmt: skip
def test_outcome_with_an_absurd_header_is_an_error(header: bytes) -> None:
    with pytest.raises(PackageError):
        list(iter_outcomes(RECORD.pack(b"SKYO", len(header), 0) + header))


def test_damaged_payloads_are_errors_or_other_values() -> None:
    """The pickle stays whole: what it says is code anyway, and its digest is checked before it is opened."""
    dice = random.Random(4)
    whole = dumps([np.zeros(40_000), dice.randbytes(20_000)])
    table = ENVELOPE.size + 3 * PART.size
    for _ in range(ROUNDS):
        # a lone table entry that promises the moon must not be believed
        with suppress(NotDeserializable):
            head = damaged(dice, whole[4:table])
            loads(whole[:4] + head[: table - 4].ljust(table - 4, b"\0") + whole[table:])


def envelope(stored: bytes, raw: int) -> bytes:
    """A payload whose pickle is a compressed part that is said to have `raw` bytes."""
    offset = ENVELOPE.size + PART.size
    return ENVELOPE.pack(b"\x01SKY", 1) + PART.pack(len(stored), raw, offset, 1) + stored


def test_part_that_unpacks_to_more_than_it_says_is_not_unpacked() -> None:
    bomb = lz4.frame.compress(bytes(256 * MIB), store_size=False)
    with at_most(16 * MIB), pytest.raises(NotDeserializable):
        loads(envelope(bomb, 100))


def test_part_that_says_more_than_its_bytes_can_hold_gets_no_memory() -> None:
    stored = lz4.frame.compress(b"x" * 1000, store_size=False)
    with at_most(16 * MIB), pytest.raises(NotDeserializable):
        loads(envelope(stored, 1 << 40))


def test_part_whose_own_header_lies_about_its_size_gets_no_memory() -> None:
    stored = bytearray(lz4.frame.compress(b"x" * 1000, store_size=True))
    stored[6:14] = struct.pack("<Q", 1 << 36)
    with at_most(16 * MIB), pytest.raises(NotDeserializable):
        loads(envelope(bytes(stored), 1 << 36))


@given(st.binary(max_size=200))
def test_garbage_behind_the_mark_of_a_payload_is_an_error(data: bytes) -> None:
    with suppress(NotDeserializable):
        loads(b"\x01SKY" + data)


def test_headers_are_read_as_they_were_written() -> None:
    header: dict[str, Any] = {"text": "ü\u2028\ud83d\ude00", "n": 1e308, "big": 2**80, "null": None}
    (frame,) = Decoder().feed(encode(Frame(FrameKind.NOTICE, header)))
    assert json.dumps(frame.header) == json.dumps(header)
