"""Frames: any cut of the byte stream gives the same frames back, and nothing else is ever accepted."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.wire.errors import FrameError
from skyward.wire.frames import MAX_FRAME, Decoder, Frame, FrameKind, encode, encode_parts

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
frames = st.builds(
    Frame,
    st.sampled_from(FrameKind),
    st.dictionaries(st.text(max_size=8), json_values, max_size=4),
    st.binary(max_size=300),
)


@given(st.lists(frames, max_size=6), st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    decoder = Decoder()
    got: list[Frame] = []
    for start, end in pairwise(sorted([0, *cuts, len(stream)])):
        got += decoder.feed(stream[start:end])
    assert got == sent
    assert decoder.pending == 0


@given(st.binary(max_size=400))
def test_garbage_gives_frames_or_an_error_and_never_another_exception(data: bytes) -> None:
    decoder = Decoder()
    try:
        for frame in decoder.feed(data):
            assert isinstance(frame.header, dict)
    except FrameError:
        with pytest.raises(FrameError):
            list(decoder.feed(b""))


@given(frames, st.data())
def test_frame_cut_short_waits(frame: Frame, data: st.DataObject) -> None:
    stream = encode(frame)
    cut = data.draw(st.integers(0, len(stream) - 1))
    decoder = Decoder()
    assert list(decoder.feed(stream[:cut])) == []
    assert list(decoder.feed(stream[cut:])) == [frame]


def test_frames_before_a_bad_one_are_delivered() -> None:
    good = Frame(FrameKind.PING, {"t": 1})
    decoder = Decoder()
    received = decoder.feed(encode(good) + b"\xff" * 20)
    assert next(received) == good
    with pytest.raises(FrameError, match="claims 4294967295 bytes"):
        next(received)


def test_frame_over_the_limit_is_not_encoded() -> None:
    with pytest.raises(FrameError, match="BLOB frame"):
        encode(Frame(FrameKind.BLOB, {}, bytes(MAX_FRAME)))


def test_frame_over_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(FrameError, match="are allowed"):
        list(Decoder().feed(struct.pack("!I", MAX_FRAME + 1)))


def test_body_is_not_copied_when_encoded_in_parts() -> None:
    body = memoryview(bytearray(1000))
    assert encode_parts(Frame(FrameKind.BLOB, {}, body))[1] is body


def test_frames_left_in_the_iterator_come_with_the_next_feed() -> None:
    decoder = Decoder()
    stream = b"".join(encode(Frame(FrameKind.PING, {"t": t})) for t in range(3))
    first = next(decoder.feed(stream))
    assert [frame.header["t"] for frame in (first, *decoder.feed(b""))] == [0, 1, 2]
