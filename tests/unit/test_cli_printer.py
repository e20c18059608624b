"""Records of output as `skyward logs` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skyward.cli.printer import Printer
from skyward.cli.selection import Selection
from skyward.contract.names import POOL, TASK

if TYPE_CHECKING:
    from skyward.console.lines import Source


def record(text: str, **more: Any) -> dict[str, Any]:
    return {"task": "t", "index": 0, "attempt": 1, "rank": 0, "stream": "stdout", "text": text, **more}


def test_a_progress_bar_is_drawn_and_written_once() -> None:
    written: list[str] = []
    drawn: list[str] = []

    def draw(source: Source, text: str) -> None:
        if not drawn or drawn[-1] != text:
            drawn.append(text)

    printer = Printer(TASK, Selection(), written.extend, progress=draw)
    for text in ("\r1%", "\r50%", "\r100%", "\r\n", "done\n"):
        printer.take(record(text))
    assert written == ["[node 0] 100%", "[node 0] done"]
    assert drawn == ["", "[node 0] 50%", "[node 0] 100%", ""]


def test_calls_and_attempts_stay_apart_and_the_end_of_a_task_ends_its_lines() -> None:
    written: list[str] = []
    printer = Printer(POOL, Selection(), written.extend)
    printer.take(record("half"))
    printer.take(record("other\n", attempt=2))
    printer.take(record("open", task="u"))
    assert written == ["[t node 0] other"]
    printer.take({"task": "t", "done": True})
    assert written == ["[t node 0] other", "[t node 0] half"]
    printer.finish()
    assert written[2:] == ["[u node 0] open"]


def test_what_comes_behind_a_gap_is_not_the_rest_of_the_line_before_it() -> None:
    written: list[str] = []
    printer = Printer(TASK, Selection(), written.extend)
    printer.take(record("half"))
    printer.take({"task": "t", "stream": "stderr", "gap": True, "text": "(output was dropped here)\n"})
    printer.take(record("the rest of another\n"))
    assert written == ["[node 0] half", "(output was dropped here)", "[node 0] the rest of another"]
