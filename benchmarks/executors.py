"""Calls over a standing `sky.Executor`, beside a bare SSH round trip and a `ProcessPoolExecutor`."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import TYPE_CHECKING

import skyward as sky
from benchmarks import floor
from benchmarks.figures import quantile, rarer, slower, timed
from benchmarks.row import Ahead, Within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.row import Row
    from benchmarks.stage import Stage

ROUNDS = 5
CALLS = 200
TOGETHER = 1000
WARM = 50


def executors(stage: Stage) -> Iterator[Row]:
    """One call after the other, then a thousand at once, on two slots each."""
    one: list[float] = []
    trips: list[float] = []
    rates: list[float] = []
    process_rates: list[float] = []
    assert stage.endpoint
    options = sky.Options(console="silent")
    with (
        sky.Compute(provider=sky.Local(), nodes=2, options=options) as pool,
        sky.Executor(pool) as executor,
        ProcessPoolExecutor(2) as processes,
    ):
        for each in (executor, processes):
            _together(each, WARM)
        for _ in range(stage.amount(ROUNDS, 1)):
            for number in range(CALLS):
                with timed(one):
                    assert executor.submit(abs, number).result() == number
            trips += floor.ssh_trips(CALLS)
            rates.append(_together(executor, TOGETHER))
            process_rates.append(_together(processes, TOGETHER))
    yield slower(
        "one call of an executor, p50",
        quantile(one, 50),
        quantile(trips, 50),
        "SSH round trip",
        Within(3),
        Ahead(("ray",), 0.5),
        peer="one call, p50",
    )
    yield rarer(
        "1,000 calls of an executor at once",
        statistics.median(rates),
        statistics.median(process_rates),
        "ProcessPoolExecutor, no network",
        Ahead(("ray",)),
        peer="together",
    )


def _together(executor: Executor, calls: int) -> float:
    """Calls in a second, from the first submit to the last result."""
    begin = time.perf_counter()
    futures = [executor.submit(abs, number) for number in range(calls)]
    assert [future.result() for future in futures] == list(range(calls))
    return calls / (time.perf_counter() - begin)
