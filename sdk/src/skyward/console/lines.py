"""Whole lines out of output that arrives in pieces, cut anywhere."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

type Source = tuple[str | None, Any, str, Literal["stdout", "stderr"]]
"""Task, call, prefix of its lines, stream."""

STATE_SECONDS = 1.0
"""A line that is overwritten again and again, such as a progress bar, is shown this often, and at its end."""

LONGEST_LINE = 1 << 20
"""Characters. A longer line is shown in pieces of this size: it may have no end at all."""


@dataclass(slots=True)
class _Line:
    """The line that a source has not ended yet; it begins with its newest state that was not shown."""

    pieces: list[str] = field(default_factory=list)
    """Put together only when one of them ends or overwrites something: a line may come in a million."""
    size: int = 0
    shown_at: float | None = None
    overwrites: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def add(self, text: str) -> None:
        self.pieces.append(text)
        self.size += len(text)

    def become(self, text: str) -> None:
        self.pieces, self.size, self.overwrites = [text], len(text), "\r" in text


class LineAssembler:
    """Puts pieces of several sources together, each source apart. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[Source, _Line] = {}
        self._lock = threading.Lock()

    def feed(self, source: Source, text: str, *, draws: bool = False) -> list[str]:
        """The lines that `text` completes, and now and then the state of one that overwrites itself.

        Whoever `draws` asks for that state instead, and gets such a line once it is complete.
        """
        with self._lock:
            line = self._open.pop(source, _Line())
            line.add(text)
            lines: list[str] = []
            if "\n" in text or "\r" in text:
                *ended, rest = line.text.replace("\r\n", "\n").split("\n")
                for each in ended:
                    final = _state(each)
                    if final or line.shown_at is None:
                        lines += _pieces(final)
                    line = _Line()
                line.become(rest)
                if state := self._due(line, draws):
                    lines.append(state)
            if line.size > LONGEST_LINE:
                lines += self._cut(line)
            if line.size:
                self._open[source] = line
            return lines

    def state(self, source: Source) -> str:
        """What a line that overwrites itself shows now; nothing for one that does not."""
        with self._lock:
            line = self._open.get(source)
            return _state(line.text) if line is not None and line.overwrites else ""

    def rest(self, source: Source) -> str:
        """What was printed without an end of line; it is handed out once."""
        with self._lock:
            return _state(self._open.pop(source, _Line()).text)

    def sources(self) -> list[Source]:
        """The sources that have an unfinished line."""
        with self._lock:
            return list(self._open)

    def _due(self, line: _Line, draws: bool) -> str:
        """The newest state of an unfinished line, if it is time to show one; older states are forgotten."""
        text = line.text
        body = text.removesuffix("\r")  # the next piece may make it an end of line
        overwritten, _, newest = body.rpartition("\r")
        newest += text[len(body) :]
        state, now = _state(overwritten), self._clock()
        if state and not draws and (line.shown_at is None or now - line.shown_at >= STATE_SECONDS):
            line.become(newest)
            line.shown_at = now
            return state
        line.become(f"{state}\r{newest}" if state else newest)
        return ""

    def _cut(self, line: _Line) -> list[str]:
        """Of an unfinished line that got too long, what can be shown; the rest of it stays."""
        *whole, rest = _pieces(line.text.rpartition("\r")[2])
        line.become(rest)
        line.shown_at = self._clock()
        return whole


def _state(line: str) -> str:
    """What can be read at last of a line that carriage returns overwrite."""
    return next((state for state in reversed(line.split("\r")) if state), "")


def _pieces(line: str) -> list[str]:
    """A line, in pieces where it is too long for one."""
    return [line[start : start + LONGEST_LINE] for start in range(0, max(1, len(line)), LONGEST_LINE)]
