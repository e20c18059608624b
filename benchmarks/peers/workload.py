"""What every peer is asked to do, so that one figure means the same in each column.

This module and the `measure.py` of each peer run in the peer's own environment: standard library only.
A figure is left out, and never made up, where a peer has no such thing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LARGE = 128 * 1000 * 1000
WARM = 50


class System(Protocol):
    """One system with two slots on this computer, which runs already."""

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """One call and its result."""
        ...

    def together(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Each argument as a call of its own, all submitted before the first result is asked for."""
        ...

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """The map of the system's own pool, each item handed out by itself."""
        ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; `maps` are the widths that the system does in reasonable time."""

    calls: int
    rounds: int
    together: int
    maps: tuple[int, ...]


def sizes(maps: tuple[int, ...] = (2_000, 100_000)) -> Sizes:
    """What the command line asks for: all of it, or with `--quick` enough to see that it works."""
    parser = argparse.ArgumentParser(description="Measure one peer and print JSON.")
    parser.add_argument("--quick", action="store_true")
    if parser.parse_args().quick:
        return Sizes(calls=50, rounds=1, together=1_000, maps=maps[:1])
    return Sizes(calls=300, rounds=3, together=1_000, maps=maps)


def echo(value: int) -> int:
    """The argument."""
    return value


def length(data: bytes) -> int:
    """How much of a large argument arrived."""
    return len(data)


def produce(size: int) -> bytes:
    """Bytes that do not compress."""
    return os.urandom(1 << 20) * (size >> 20)


def measure(
    system: System,
    wanted: Sizes,
    *,
    start: float | None = None,
    map_in_chunks: Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]] | None = None,
) -> None:
    """Measure and print one line of JSON: times in seconds, rates per second, bytes in MB/s.

    `map_in_chunks`: the map of a system that hands out a fixed number of chunks unless told otherwise.
    """
    assert system.together(echo, range(WARM)) == list(range(WARM))
    figures: dict[str, float] = {}
    if start is not None:
        figures["start"] = start
    calls = [_timed(partial(system.call, echo, number)) for number in range(wanted.calls)]
    figures["one call, p50"] = statistics.median(calls)
    figures["one call, p99"] = statistics.quantiles(calls, n=100, method="inclusive")[98]
    figures["together"] = _rate(system.together, wanted.together, wanted.rounds)
    for width in wanted.maps:
        figures[f"map {width}"] = _rate(system.map, width, wanted.rounds if width <= 2_000 else 1)
        if map_in_chunks is not None:
            figures[f"map in chunks {width}"] = _rate(map_in_chunks, width, 1)
    data = produce(LARGE)
    figures["128 MB argument"] = _bytes(partial(system.call, length, data), len(data), wanted.rounds)
    figures["128 MB result"] = _bytes(partial(system.call, produce, LARGE), len(data), wanted.rounds)
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def _timed(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _rate(run: Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]], width: int, rounds: int) -> float:
    rates = []
    for _ in range(rounds):
        begin = time.perf_counter()
        assert run(echo, range(width)) == list(range(width))
        rates.append(width / (time.perf_counter() - begin))
    return statistics.median(rates)


def _bytes(action: Callable[[], Any], size: int, rounds: int) -> float:
    """The median in MB/s."""
    return statistics.median(size / 1e6 / _timed(action) for _ in range(rounds))
