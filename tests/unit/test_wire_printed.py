"""Output between agent and operator: smaller where that is possible, and refused where it is damaged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.wire import printed
from skyward.wire.errors import FrameError

LINES = b"".join(b"step %d of training: loss 0.%d\n" % (number, number) for number in range(2000))


@given(st.binary(max_size=5000), st.integers(1, 50))
def test_output_arrives_as_it_was_printed(data: bytes, times: int) -> None:
    header, body = printed.pack(data * times)
    assert printed.unpack(header, body) == data * times
    assert len(body) <= len(data) * times


def test_lines_become_much_smaller() -> None:
    header, body = printed.pack(LINES)
    assert header == {"plain": len(LINES)}
    assert len(body) < len(LINES) / 3


@pytest.mark.parametrize("size", [0, -1, printed.LARGEST + 1, 1 << 62, "9", True, 1.5, len(LINES) - 1, 1])
def test_output_of_an_impossible_size_is_refused(size: Any) -> None:
    with pytest.raises(FrameError, match="output"):
        printed.unpack({"plain": size}, printed.pack(LINES)[1])


@given(st.binary(max_size=300), st.integers(1, printed.LARGEST))
def test_garbage_is_refused_or_has_the_size_that_it_says(body: bytes, size: int) -> None:
    try:
        data = printed.unpack({"plain": size}, body)
    except FrameError:
        return
    assert len(data) == size
