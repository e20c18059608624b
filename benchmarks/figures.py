"""How a figure is taken: times, percentiles, and the usual two kinds of row."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.row import Row, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.row import Goal


@contextmanager
def timed(samples: list[float]) -> Iterator[None]:
    """Add the seconds that the block takes to `samples`."""
    begin = time.perf_counter()
    yield
    samples.append(time.perf_counter() - begin)


def quantile(samples: Sequence[float], percent: int) -> float:
    """A percentile of the samples."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def slower(path: str, seconds: float, limit: float, name: str, *goals: Goal, peer: str = "") -> Row:
    """A row of durations, beside the least that it could take."""
    return Row(path, seconds, Unit.SECONDS, limit, name, peer, goals)


def rarer(path: str, rate: float, limit: float, name: str, *goals: Goal, peer: str = "") -> Row:
    """A row of rates, beside what could be done in the same time."""
    return Row(path, rate, Unit.RATE, limit, name, peer, goals)
