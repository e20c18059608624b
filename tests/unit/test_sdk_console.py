"""The console: never silent for ten seconds, never noisy, the same words everywhere."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest

from skyward.console import PlainConsole, SilentConsole, Subject, open_console
from skyward.console.board import Console, elapsed
from skyward.console.live import LiveConsole
from skyward.tasks import TaskHandle

if TYPE_CHECKING:
    from collections.abc import Callable

POOL = Subject("pool", "demo")


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plain(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> PlainConsole:
    monkeypatch.setattr(PlainConsole, "tick_seconds", 0.0)
    return PlainConsole(io.StringIO(), clock)


def _lines(console: Console) -> list[str]:
    text = console._stream.getvalue()  # type: ignore[attr-defined]
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in text.splitlines()]


def _ticker(console: Console, clock: Clock) -> Callable[[float], None]:
    def advance(seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            clock.now += 0.25
            with console._lock:
                console.refresh(clock.now)

    return advance


def test_each_line_has_the_time_and_a_stable_key(plain: PlainConsole) -> None:
    plain.update(POOL, "Provisioning: 0 of 2 nodes ready")
    text = plain._stream.getvalue()  # type: ignore[attr-defined]
    assert re.fullmatch(r"\d\d:\d\d:\d\d pool=demo Provisioning: 0 of 2 nodes ready\n", text)


def test_no_ten_seconds_of_silence_while_something_is_under_way(plain: PlainConsole, clock: Clock) -> None:
    tick = _ticker(plain, clock)
    plain.update(POOL, "Provisioning")
    spoke = [clock.now]
    for _ in range(200):
        before = len(_lines(plain))
        tick(0.25)
        if len(_lines(plain)) > before:
            assert clock.now - spoke[-1] < 10
            spoke.append(clock.now)
    assert len(spoke) >= 5
    assert _lines(plain)[-1].startswith("pool=demo Provisioning (")


def test_nothing_is_repeated_when_nothing_is_under_way(plain: PlainConsole, clock: Clock) -> None:
    plain.update(POOL, "x")
    plain.done(POOL, "ready")
    count = len(_lines(plain))
    _ticker(plain, clock)(60)
    assert len(_lines(plain)) == count


def test_what_is_short_is_not_worth_a_line(plain: PlainConsole, clock: Clock) -> None:
    task = Subject("task", "quick")
    plain.update(task, "Running", after=1.0)
    _ticker(plain, clock)(0.5)
    plain.done(task)
    assert _lines(plain) == []


def test_what_changes_all_the_time_is_told_once_a_second(plain: PlainConsole, clock: Clock) -> None:
    tick = _ticker(plain, clock)
    for done in range(40):
        plain.update(POOL, f"{done} of 40")
        tick(0.25)
    assert 8 <= len(_lines(plain)) <= 12


def test_the_end_tells_how_long_it_took(plain: PlainConsole, clock: Clock) -> None:
    plain.update(POOL, "Provisioning")
    clock.now += 3
    plain.done(POOL, "ready")
    assert _lines(plain)[-1] == "pool=demo ready (3.0 s)"


def test_remote_output_keeps_its_stream(plain: PlainConsole, capsys: pytest.CaptureFixture[str]) -> None:
    plain.remote("[node 0]", "hello", "stdout")
    plain.remote("[node 1]", "oops", "stderr")
    out, err = capsys.readouterr()
    assert (out, err) == ("[node 0] hello\n", "[node 1] oops\n")


def test_a_narrow_encoding_or_a_closed_stream_is_no_error() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    PlainConsole(ascii_only).say("✔ done")
    closed = io.StringIO()
    closed.close()
    PlainConsole(closed).say("late")
    ascii_only.seek(0)
    assert ascii_only.read().endswith("? done\n")


def test_silent_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console = SilentConsole()
    console.update(POOL, "x")
    console.remote("[node 0]", "hello", "stdout")
    console.clear("done")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_live_lines_and_keeps_what_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(LiveConsole, "tick_seconds", 0.0)
    stream = Terminal()
    console = LiveConsole(stream)
    console.update(POOL, "Provisioning: 0 of 2 nodes ready")
    console.remote("[node 0]", "[not markup] hello", "stderr")
    console.done(POOL, "ready")
    console.close()
    text = re.sub(r"\x1b\[[012]m", "", stream.getvalue())
    assert "Provisioning: 0 of 2 nodes ready" in text
    assert "[node 0] [not markup] hello" in text
    assert "✔ pool demo ready" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text), "NO_COLOR forbids colour"


def test_lines_that_overwrite_themselves_are_redrawn_below_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(LiveConsole, "tick_seconds", 0.0)
    stream = Terminal()
    console = LiveConsole(stream)
    console.progress("a", "[node 0]", "10%|#    |")
    console.progress("b", "[node 1]", "[not markup] 70%")
    console.refresh(0.0)
    first = stream.getvalue()
    assert "[node 0] 10%|#    |" in first
    assert "[node 1] [not markup] 70%" in first
    console.progress("a", "[node 0]", "20%|##   |")
    console.refresh(0.1)
    drawn = stream.getvalue()[len(first) :]
    assert "\x1b[1A" in drawn, "the lines are drawn over themselves"
    assert "[node 0] 20%|##   |" in drawn
    console.progress("a", "[node 0]", "")
    console.progress("b", "[node 1]", "")
    end = len(stream.getvalue())
    console.refresh(0.2)
    assert not console.has_progress
    assert "[node" not in stream.getvalue()[end:]
    console.close()


def test_what_a_function_prints_keeps_its_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    LiveConsole(stream).remote("[node 0]", "plain \x1b[31mred\x1b[0m", "stderr")
    assert stream.getvalue() == "\x1b[36m[node 0] \x1b[0mplain \x1b[31mred\x1b[0m\n"


@pytest.mark.parametrize(
    ("mode", "environment", "kind"),
    [
        (True, {}, LiveConsole),
        (True, {"TERM": "dumb"}, PlainConsole),
        (True, {"CI": "1"}, PlainConsole),
        ("log", {}, PlainConsole),
        ("minimal", {}, PlainConsole),
        ("silent", {}, SilentConsole),
        (False, {}, SilentConsole),
    ],
)
def test_the_console_fits_the_stream(
    mode: bool | str, environment: dict[str, str], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert type(open_console(mode, Terminal())) is kind
    if mode is True:
        assert type(open_console(mode, io.StringIO())) is PlainConsole


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (12.4, "12 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text


def _handle(console: PlainConsole) -> TaskHandle:
    return TaskHandle("train-1", "team", 1, console, lambda *_: b"", lambda _: None, lambda *_: iter(()))


def test_a_task_that_has_printed_is_not_said_to_be_queued(plain: PlainConsole, clock: Clock) -> None:
    handle = _handle(plain)
    handle.submitted()
    handle.on_output()
    _ticker(plain, clock)(2.0)
    (line,) = _lines(plain)
    assert "task=train-1 Running" in line


def test_a_task_whose_end_is_known_before_its_creation_is_answered_leaves_no_line(
    plain: PlainConsole, clock: Clock
) -> None:
    handle = _handle(plain)
    handle.on_object({"metadata": {"name": "train-1"}, "status": {"phase": "Succeeded"}})
    handle.submitted()
    handle.on_output()
    _ticker(plain, clock)(20.0)
    assert _lines(plain) == []
