"""Whole lines out of output that arrives in pieces, cut anywhere."""

import re
import threading
from typing import Any, Literal

type Source = tuple[str | None, Any, str, Literal["stdout", "stderr"]]
"""Task, call, prefix of its lines, stream."""

# A carriage return ends a line as well: a progress bar shows its steps one below the other.
_END = re.compile(r"\r\n|\n|\r(?!\n|$)")


class LineAssembler:
    """Puts pieces of several sources together, each source apart. Thread-safe."""

    def __init__(self) -> None:
        self._rests: dict[Source, str] = {}
        self._lock = threading.Lock()

    def feed(self, source: Source, text: str) -> list[str]:
        """The lines that `text` completes."""
        with self._lock:
            *lines, rest = _END.split(self._rests.pop(source, "") + text)
            if rest:
                self._rests[source] = rest
            return lines

    def rest(self, source: Source) -> str:
        """What was printed without an end of line; it is handed out once."""
        with self._lock:
            return self._rests.pop(source, "").rstrip("\r")

    def sources(self) -> list[Source]:
        """The sources that have an unfinished line."""
        with self._lock:
            return list(self._rests)
