"""How a figure is taken and shown: percentiles, and ratios to a limit that was measured in the same run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Latency:
    """A sample of durations in seconds."""

    samples: Sequence[float]

    @property
    def p50(self) -> float:
        """Median, in milliseconds."""
        return statistics.median(self.samples) * 1000

    @property
    def p99(self) -> float:
        """99th percentile, in milliseconds."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))] * 1000


def row(what: str, measured: str, limit: str = "", ratio: str = "") -> None:
    """Print one line of the table."""
    print(f"{what:<44} {measured:>22} {limit:>22} {ratio:>8}", flush=True)


def header() -> None:
    """Print the head of the table."""
    row("what", "measured", "limit in this run", "ratio")
    print("-" * 99, flush=True)


def times(measured: float, limit: float) -> str:
    """`measured / limit` as text, e.g. `1.84x`."""
    return f"{measured / limit:.2f}x"
