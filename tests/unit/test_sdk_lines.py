"""Output that arrives in pieces becomes whole lines."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from skyward.console.lines import LONGEST_LINE, LineAssembler, _Line

if TYPE_CHECKING:
    import pytest

    from skyward.console.lines import Source

ONE: Source = ("t", 0, "[node 0]", "stdout")
OTHER: Source = ("t", 1, "[node 1]", "stdout")


@given(lines=st.lists(st.text("ab c\u00e9", max_size=5), max_size=8), cuts=st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_where_the_output_was_cut(lines: list[str], cuts: list[int]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assembler = LineAssembler()
    found: list[str] = []
    for start, end in itertools.pairwise(places):
        found += assembler.feed(ONE, text[start:end])
    assert found == lines
    assert assembler.sources() == []


def test_sources_stay_apart_and_rests_are_handed_out_once() -> None:
    assembler = LineAssembler()
    assert assembler.feed(ONE, "half") == []
    assert assembler.feed(OTHER, "a\nb") == ["a"]
    assert assembler.feed(ONE, " a line\n\n") == ["half a line", ""]
    assert assembler.sources() == [OTHER]
    assert (assembler.rest(OTHER), assembler.rest(OTHER)) == ("b", "")


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_progress_bar_is_shown_once_a_second_and_at_its_end() -> None:
    clock = Clock()
    assembler = LineAssembler(clock)
    found: list[str] = []
    for step in range(1, 101):
        found += assembler.feed(ONE, f"\r{step}%")
        clock.now += 0.04
    found += assembler.feed(ONE, "\r\n")
    assert found == ["1%", "26%", "51%", "76%", "100%"]
    assert assembler.sources() == []


def test_who_draws_asks_for_the_state_and_gets_the_line_when_it_is_complete() -> None:
    assembler = LineAssembler(Clock())
    for step in range(1, 101):
        assert assembler.feed(ONE, f"\r{step}%", draws=True) == []
        assert assembler.state(ONE) in ("", f"{step}%")
    assert assembler.state(ONE) == "100%"
    assert assembler.feed(ONE, "\r", draws=True) == []
    assert assembler.state(ONE) == "100%"
    assert assembler.feed(ONE, "\nhalf a line", draws=True) == ["100%"]
    assert (assembler.state(ONE), assembler.state(OTHER)) == ("", "")


def test_a_state_that_was_shown_is_not_shown_again_at_the_end_of_its_line() -> None:
    assembler = LineAssembler(Clock())
    assert assembler.feed(ONE, "10%\r20%\r") == ["10%"]
    assert assembler.feed(ONE, "\n30%\r\n\n") == ["20%", "30%", ""]
    assert assembler.feed(ONE, "half\r ") == ["half"]
    assert assembler.feed(ONE, "\r40%\r50%\r") == []
    assert (assembler.rest(ONE), assembler.rest(ONE)) == ("50%", "")


def test_a_line_without_an_end_is_shown_in_pieces_and_put_together_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[int] = []
    join = _Line.text.fget  # type: ignore[attr-defined]

    def counted(line: _Line) -> str:
        joined.append(line.size)
        return str(join(line))

    monkeypatch.setattr(_Line, "text", property(counted))
    assembler = LineAssembler()
    found: list[str] = []
    for _ in range(3 * LONGEST_LINE // 64 + 1):
        found += assembler.feed(ONE, "0123456789abcdef" * 4)
    assert [len(piece) for piece in found] == [LONGEST_LINE] * 3
    assert sum(joined) <= 4 * LONGEST_LINE
    found += assembler.feed(ONE, "\nnext\n")
    assert found[-1] == "next"
    assert "".join(found[:-1]) == "0123456789abcdef" * (len("".join(found[:-1])) // 16)
    assert assembler.sources() == []


def test_a_long_line_is_cut_alike_however_it_comes() -> None:
    text = "x" * (2 * LONGEST_LINE) + "\n" + "y" * (LONGEST_LINE + 1) + "\n\n"
    at_once = LineAssembler().feed(ONE, text)
    assert [len(piece) for piece in at_once] == [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 1, 0]
    assembler = LineAssembler()
    cut = [text[start : start + 60_000] for start in range(0, len(text), 60_000)]
    assert [line for piece in cut for line in assembler.feed(ONE, piece)] == at_once


def test_a_line_that_overwrites_itself_and_then_never_ends_is_cut_too() -> None:
    assembler = LineAssembler(Clock())
    assert assembler.feed(ONE, "10%\r20%\r") == ["10%"]
    found: list[str] = []
    for _ in range(20):
        found += assembler.feed(ONE, "z" * (LONGEST_LINE // 8))
    assert [len(piece) for piece in found] == [LONGEST_LINE] * 2
    assert len(assembler.rest(ONE)) == 20 * (LONGEST_LINE // 8) - 2 * LONGEST_LINE
