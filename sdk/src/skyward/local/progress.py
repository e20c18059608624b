"""What a slow step tells the person who waits for it.

Everything here that may take longer than a second reports through a `Report`: which step, how far, how long.
The reporter decides about the looks; the code that works only says what is true.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SILENCE_SECONDS = 4.0
"""A step with nothing new to say repeats itself this often: ten seconds is the longest allowed silence."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of progress."""

    name: str
    """What is being done, in words that do not change while it lasts."""
    detail: str = ""
    """How far it is."""
    elapsed: float = 0.0
    """Seconds since this step began."""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        seconds = f" ({self.elapsed:.0f} s)" if self.elapsed >= 1 else ""
        return f"{self.name}{detail}{seconds}"


type Report = Callable[[Step], None]


def silent(_step: Step) -> None:
    """Report nothing, for callers with nobody to tell."""


class Progress:
    """One step under way; `say` what is new, at most once in `every` seconds."""

    def __init__(self, report: Report, name: str, *, every: float = 1.0) -> None:
        self._report = report
        self._name = name
        self._every = every
        self._begun = time.monotonic()
        self._said = float("-inf")
        self.detail = ""
        self._lock = threading.Lock()

    def say(self, detail: str, *, now: bool = False) -> None:
        """Tell how far the step is, if that is new and nothing was said a moment ago; at once with `now`."""
        with self._lock:
            is_new, self.detail = detail != self.detail, detail
            if now or (is_new and time.monotonic() - self._said >= self._every):
                self._tell()

    def repeat(self) -> None:
        """Say the newest detail again if nothing was said for a while."""
        with self._lock:
            if time.monotonic() - self._said >= SILENCE_SECONDS:
                self._tell()

    def _tell(self) -> None:
        self._said = time.monotonic()
        self._report(Step(self._name, self.detail, self._said - self._begun))


@contextmanager
def working(report: Report, name: str, detail: str = "") -> Iterator[Progress]:
    """Report a step for as long as the block runs, and never be silent for longer than `SILENCE_SECONDS`."""
    progress = Progress(report, name)
    progress.say(detail, now=True)
    finished = threading.Event()

    def keep_talking() -> None:
        while not finished.wait(SILENCE_SECONDS / 4):
            progress.repeat()

    talker = threading.Thread(target=keep_talking, name="skyward-progress", daemon=True)
    talker.start()
    try:
        yield progress
    finally:
        finished.set()
        talker.join()
