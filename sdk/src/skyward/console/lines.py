"""Whole lines out of output that arrives in pieces, cut anywhere."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

type Source = tuple[str | None, Any, str, Literal["stdout", "stderr"]]
"""Task, call, prefix of its lines, stream."""

STATE_SECONDS = 1.0
"""A line that is overwritten again and again, such as a progress bar, is shown this often, and at its end."""


@dataclass(slots=True)
class _Line:
    """The line that a source has not ended yet; `text` begins with its newest state that was not shown."""

    text: str = ""
    shown_at: float | None = None


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
            *ended, rest = (line.text + text).replace("\r\n", "\n").split("\n")
            lines = []
            for each in ended:
                final = _state(each)
                if final or line.shown_at is None:
                    lines.append(final)
                line = _Line()
            line.text = rest
            if state := self._due(line, draws):
                lines.append(state)
            if line.text:
                self._open[source] = line
            return lines

    def state(self, source: Source) -> str:
        """What a line that overwrites itself shows now; nothing for one that does not."""
        with self._lock:
            text = self._open.get(source, _Line()).text
            return _state(text) if "\r" in text else ""

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
        body = line.text.removesuffix("\r")  # the next piece may make it an end of line
        overwritten, _, newest = body.rpartition("\r")
        newest += line.text[len(body) :]
        state, now = _state(overwritten), self._clock()
        if state and not draws and (line.shown_at is None or now - line.shown_at >= STATE_SECONDS):
            line.text, line.shown_at = newest, now
            return state
        line.text = f"{state}\r{newest}" if state else newest
        return ""


def _state(line: str) -> str:
    """What can be read at last of a line that carriage returns overwrite."""
    return next((state for state in reversed(line.split("\r")) if state), "")
