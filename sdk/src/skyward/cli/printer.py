"""Records of output as lines for people, or as one JSON object per line for programs.

Both show whole lines: a record is whatever was printed in a moment, cut anywhere.
"""

import json
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from skyward.cli.selection import Selection, timestamp
from skyward.console.lines import LineAssembler, Source
from skyward.contract.names import POOL, Kind

_SHOWN = ("time", "namespace", "pool", "task", "index", "attempt", "node", "rank", "stream", "gap")


class Form(StrEnum):
    """How lines are written."""

    TEXT = "text"
    JSON = "json"


class Printer:
    """Takes records, and hands whole lines of those that are wanted to `write`.

    With `tail`, only so many of the lines before `caught_up` are written. `progress`, where lines can be
    redrawn, is told what a line that overwrites itself shows now, and nothing once that is written.
    """

    def __init__(
        self,
        kind: Kind,
        wanted: Selection,
        write: Callable[[list[str]], None],
        *,
        form: Form = Form.TEXT,
        timestamps: bool = False,
        tail: int | None = None,
        progress: Callable[[Source, str], None] | None = None,
    ) -> None:
        self._kind = kind
        self._wanted = wanted
        self._write = write
        self._form = form
        self._progress = progress
        self._timestamps = timestamps
        self._lines = LineAssembler()
        self._latest: dict[Source, dict[str, Any]] = {}
        """The latest record of each source with an unfinished line: says of which call that is."""
        self._tail: deque[str] | None = deque(maxlen=tail) if tail is not None else None

    def take(self, record: dict[str, Any]) -> None:
        """One record. One that says that a task has ended ends its unfinished lines."""
        if "done" in record:
            self._end_lines(str(record.get("task")))
        elif self._wanted.takes(record):
            if "gap" in record and "rank" not in record:  # what comes next is not the rest of a line
                self._end_lines(record.get("task"))
            source = _source(record)
            text = str(record.get("text", ""))
            draws = self._progress is not None
            lines = self._lines.feed(source, text if "rank" in record else f"{text.rstrip()}\n", draws=draws)
            self._latest[source] = record
            self._put([self._shown(record, line) for line in lines])
            self._draw(source)

    def caught_up(self) -> None:
        """What comes from here on is new."""
        if self._tail is not None:
            kept, self._tail = list(self._tail), None
            self._put(kept)

    def finish(self) -> None:
        """Nothing more comes."""
        self._end_lines()
        self.caught_up()

    def _end_lines(self, task: str | None = None) -> None:
        for source in self._lines.sources():
            if task in (None, source[0]) and (last := self._lines.rest(source)):
                self._draw(source)
                self._put([self._shown(self._latest[source], last)])

    def _draw(self, source: Source) -> None:
        if self._progress is not None and self._tail is None:
            state = self._lines.state(source)
            self._progress(source, self._shown(self._latest[source], state) if state else "")

    def _put(self, lines: list[str]) -> None:
        if self._tail is not None:
            self._tail.extend(lines)
        elif lines:
            self._write(lines)

    def _shown(self, record: dict[str, Any], line: str) -> str:
        if self._form is Form.JSON:
            fields = {name: record[name] for name in _SHOWN if name in record}
            return json.dumps({**fields, "text": line}, ensure_ascii=False)
        when = f"{timestamp(record['time'])} " if self._timestamps and "time" in record else ""
        return f"{when}{self._prefix(record)}{line}"

    def _prefix(self, record: dict[str, Any]) -> str:
        if "rank" not in record:
            return f"[{record['node']}] " if self._kind is POOL and "node" in record else ""
        task = f"{record.get('task')} " if self._kind is POOL else ""
        return f"[{task}node {record['rank']}] "


def _source(record: dict[str, Any]) -> Source:
    call = (record.get("index"), record.get("attempt"))
    return record.get("task"), call, str(record.get("node", "")), record.get("stream", "stdout")
