"""How a figure is taken and shown: percentiles, and ratios to a limit that was measured in the same run."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def timed(samples: list[float]) -> Iterator[None]:
    """Add the seconds that the block takes to `samples`."""
    begin = time.perf_counter()
    yield
    samples.append(time.perf_counter() - begin)


def quantile(samples: Sequence[float], percent: int) -> float:
    """A percentile of the samples."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def head() -> None:
    """Print the head of the table."""
    _row("what", "measured", "limit in this run", "ratio")
    print("-" * 100, flush=True)


def slower(what: str, seconds: float, limit: float, name: str) -> None:
    """A row of durations: how many times as long as its limit."""
    unit, scale = ("s", 1) if limit > 0.5 else ("ms", 1000)
    limit_text = f"{limit * scale:,.2f} {unit}  {name}"
    _row(what, f"{seconds * scale:,.2f} {unit}", limit_text, f"{seconds / limit:.2f}x")


def rarer(what: str, rate: float, limit: float, name: str) -> None:
    """A row of rates: how many times as many its limit does in the same time."""
    _row(what, f"{rate:,.0f} /s", f"{limit:,.0f} /s  {name}", f"{limit / rate:.2f}x")


def _row(what: str, measured: str, limit: str, ratio: str) -> None:
    print(f"{what:<40} {measured:>12}   {limit:<36} {ratio:>7}", flush=True)
