"""The state behind every console: what is under way, since when, and when it was last told.

One thread ticks while anything is under way, so that whoever waits need not. Invariant: while a visible row
exists, no more than `SILENCE_SECONDS` pass without a sign of life.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

SILENCE_SECONDS = 8.0
"""Ten seconds is the longest silence allowed; a tick and a slow terminal must fit in."""
CHANGE_SECONDS = 1.0
"""A row that changes all the time is told this often."""

type Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a row is about: ("node", "0") of a pool, ("task", "train-1f2e")."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@dataclass(slots=True)
class Row:
    """One thing that is under way."""

    subject: Subject
    text: str
    began: float
    visible_from: float
    told: str = ""
    told_at: float = field(default=float("-inf"))


class Console(ABC):
    """Keeps the rows; subclasses draw them. Thread-safe."""

    tick_seconds = 0.25

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[Subject, Row] = {}
        self._lock = threading.RLock()
        self._busy = threading.Event()
        self._closed = False
        self._ticker: threading.Thread | None = None

    def update(self, subject: Subject, text: str, *, after: float = 0.0) -> None:
        """`subject` is under way and `text` says how far; shown from `after` seconds on."""
        with self._lock:
            now = self._clock()
            row = self._rows.get(subject)
            if row is None:
                self._rows[subject] = Row(subject, text, now, now + after)
            elif row.text != text:
                row.text = text
            else:
                return
            self._start()
            self.refresh(now)

    def done(self, subject: Subject, text: str = "") -> None:
        """`subject` has ended; `text`, if any, is told for good with the time that it took."""
        with self._lock:
            row = self._rows.pop(subject, None)
            now = self._clock()
            if not self._rows:
                self._busy.clear()
            self.refresh(now)
            if text:
                seconds = elapsed(now - row.began) if row is not None else ""
                self.tell(subject, f"{text} ({seconds})" if seconds else text)

    def clear(self, text: str | None = None) -> None:
        """Nothing is under way any more."""
        with self._lock:
            for subject in list(self._rows):
                self.done(subject)
            if text:
                self.say(text)

    def elapsed(self, subject: Subject) -> float:
        """Seconds since `subject` got under way."""
        with self._lock:
            row = self._rows.get(subject)
            return self._clock() - row.began if row is not None else 0.0

    def close(self) -> None:
        """Draw nothing any more."""
        self.clear()
        self._closed = True
        self._busy.set()

    @abstractmethod
    def refresh(self, now: float) -> None:
        """Draw what is due. Called with the lock held, on each change and on each tick."""

    @abstractmethod
    def tell(self, subject: Subject, text: str) -> None:
        """One line for good about `subject`."""

    @abstractmethod
    def say(self, text: str) -> None:
        """One line for good."""

    @abstractmethod
    def remote(self, prefix: str, text: str, stream: Stream) -> None:
        """One line that a function printed on a node."""

    def remote_lines(self, prefix: str, lines: Sequence[str], stream: Stream) -> None:
        """Several lines that a function printed, one after the other; nothing comes in between."""
        self.remote(
            prefix,
            "\n".join(line if not n or not prefix else f"{prefix} {line}" for n, line in enumerate(lines)),
            stream,
        )

    def draws(self, stream: Stream) -> bool:
        """Whether lines of a stream that overwrite themselves are to be shown with `progress`."""
        return False

    def progress(self, source: object, prefix: str, text: str) -> None:  # noqa: B027 - most cannot draw
        """What the unfinished line of a source shows now; with no text it is over."""

    def visible(self, now: float) -> list[Row]:
        """The rows that have lasted long enough to be shown."""
        return [row for row in self._rows.values() if row.visible_from <= now]

    def _start(self) -> None:
        self._busy.set()
        if self._ticker is None and self.tick_seconds > 0:
            self._ticker = threading.Thread(target=self._tick, name="skyward-console", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        pause = threading.Event()
        while not self._closed:
            self._busy.wait()
            with self._lock:
                if self._closed:
                    return
                self.refresh(self._clock())
            pause.wait(self.tick_seconds)


def count(number: int, noun: str) -> str:
    """`1 node`, `2,000 nodes`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def elapsed(seconds: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
