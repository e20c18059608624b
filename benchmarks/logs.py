"""Lines from a function to the caller's stdout, and what they cost a call beside it.

The program under measurement is this module in a process of its own, so that its stdout is a pipe that
something reads, as with `| cat`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import skyward as sky
from benchmarks.figures import rarer, slower, timed
from benchmarks.row import Bound, Within
from benchmarks.starts import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.row import Row
    from benchmarks.stage import Stage

LINES: Final = 300_000
CALLS: Final = 150
ROUNDS: Final = 3
_BEGIN: Final = b"begin\n"
_LINE: Final = "line {} of a function that prints much"


@sky.function
def chatty(lines: int) -> None:
    """Print so many lines, as fast as it goes."""
    for number in range(lines):
        print(_LINE.format(number))


@sky.function
def busy(seconds: float) -> None:
    """Use as much of a processor as a chatty function, and print nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _LINE.format(0)


def lines(stage: Stage) -> Iterator[Row]:
    """Lines per second at whoever reads the program's stdout, beside the same loop without us."""
    assert stage.endpoint
    printed, limits = [], []
    for _ in range(stage.amount(ROUNDS, 1)):
        printed.append(_rate("pool"))
        limits.append(_rate("alone"))
    yield rarer(
        "lines of a chatty function to the caller",
        statistics.median(printed),
        statistics.median(limits),
        "print, pipe",
        Bound(100_000),
    )


def beside(stage: Stage) -> Iterator[Row]:
    """A no-op call beside a chatty function, beside one that computes, and alone."""
    assert stage.endpoint
    taken: dict[str, list[float]] = {"alone": [], "busy": [], "chatty": []}
    null = os.open(os.devnull, os.O_WRONLY)
    kept = os.dup(1)
    sys.stdout.flush()
    os.dup2(null, 1)  # the lines themselves are of no interest here
    try:
        options = sky.Options(worker=sky.Worker(concurrency=2), console="silent")
        with sky.Compute(provider=sky.Local(), nodes=1, options=options) as pool:
            assert echo(1) >> pool == 1
            for _ in range(stage.amount(ROUNDS, 1)):
                _calls(pool, taken["alone"])
                for name, other in (("busy", busy(3600.0)), ("chatty", chatty(1 << 40))):
                    future = other > pool
                    time.sleep(1.0)
                    _calls(pool, taken[name])
                    future.cancel()
                    time.sleep(1.0)
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
    median = {name: statistics.median(seconds) for name, seconds in taken.items()}
    yield slower("one call beside a busy function", median["busy"], median["alone"], "alone")
    yield slower(
        "one call beside a chatty function",
        median["chatty"],
        median["busy"],
        "beside a busy one",
        Within(1.1),
    )


def _calls(pool: sky.Pool, taken: list[float]) -> None:
    for number in range(CALLS):
        with timed(taken):
            assert echo(number) >> pool == number


def _rate(how: str) -> float:
    command = [sys.executable, "-m", "benchmarks.logs", how]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        data = os.read(process.stdout.fileno(), 1 << 16)
        assert data.startswith(_BEGIN)
        count, begin, last = data.count(b"\n") - 1, time.perf_counter(), 0.0
        while data := os.read(process.stdout.fileno(), 1 << 16):
            last = time.perf_counter()
            count += data.count(b"\n")
    assert count == LINES, f"{count} lines of {LINES}"
    return count / (last - begin)


def _print(how: str) -> None:
    if how == "alone":
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        os.write(1, _BEGIN)
        chatty.local(LINES)
        return
    with sky.Compute(provider=sky.Local(), nodes=1) as pool:
        assert echo(1) >> pool == 1
        os.write(1, _BEGIN)  # from here the call itself counts as well
        chatty(LINES) >> pool


if __name__ == "__main__":
    _print(sys.argv[1])
