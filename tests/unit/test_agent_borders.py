"""Marks in a worker's pipes: what goes in by item comes out by item, wherever the stream is cut."""

import io
import os

from hypothesis import given
from hypothesis import strategies as st

from skyward.agent.borders import MarkedPipe, Splitter, new_mark

prints = st.lists(
    st.tuples(
        st.integers(0, 1023),
        st.one_of(st.binary(max_size=40), st.just(b"\0"), st.just(b"\0skyward "), st.just(b"line\n")),
    ),
    max_size=12,
)


def told(splitter: Splitter, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """What comes out, with neighbours of one item put together."""
    out: list[tuple[int, bytes]] = []
    for found in (*(each for piece in pieces for each in splitter.feed(piece)), *splitter.finish()):
        if out and out[-1][0] == found[0]:
            out[-1] = found[0], out[-1][1] + found[1]
        else:
            out.append(found)
    return [each for each in out if each[1]]


@given(prints, st.lists(st.integers(1, 20), max_size=30))
def test_output_comes_out_under_its_item_wherever_it_is_cut(
    printed: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    mark = new_mark()
    stream = b"".join(f"{mark}{place}\0".encode() + text for place, text in printed)
    pieces: list[bytes] = []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    expected = told(Splitter("never", 0), [])
    for place, text in printed:
        if text and expected and expected[-1][0] == place:
            expected[-1] = place, expected[-1][1] + text
        elif text:
            expected.append((place, text))
    assert told(Splitter(mark, 7), [*pieces, stream]) == expected


def test_mark_that_is_not_one_is_output() -> None:
    mark = new_mark()
    for almost in (f"{mark}x\0", f"{mark}{'1' * 30}\0", f"{mark}\0", f"{mark}12"):
        assert told(Splitter(mark, 3), [almost.encode()]) == [(3, almost.encode())]


def test_output_before_any_mark_is_that_of_the_first_item() -> None:
    assert list(Splitter(new_mark(), 5).feed(b"early")) == [(5, b"early")]


def test_pipe_writes_a_mark_once_and_only_before_output() -> None:
    read, write = os.pipe()
    pipe = MarkedPipe(write, "wb")
    stream = io.TextIOWrapper(io.BufferedWriter(pipe), "utf-8", line_buffering=True)
    pipe.due = b"[1]"
    pipe.due = b"[2]"
    print("two", file=stream)
    print("two again", file=stream)
    pipe.due = b"[3]"
    print("three", end="", file=stream)
    stream.flush()
    pipe.due = b"[4]"
    pipe.mark()
    pipe.mark()
    pipe.due = b""
    stream.close()
    with os.fdopen(read, "rb") as reader:
        assert reader.read() == b"[2]two\ntwo again\n[3]three[4]"


def test_pipe_says_how_much_of_the_output_was_written() -> None:
    read, write = os.pipe()
    with MarkedPipe(write, "wb") as pipe, os.fdopen(read, "rb"):
        pipe.due = b"[1]"
        assert pipe.write(memoryview(b"12345")) == 5
        assert pipe.write(b"67") == 2
