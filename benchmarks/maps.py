"""Maps of no-ops on two slots, from 2,000 to 1,000,000 items: the rate, and what the operator grows by."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

import skyward as sky
from benchmarks import agent_bench
from benchmarks.figures import rarer
from benchmarks.memory import growth, pid_of
from benchmarks.row import Ahead, Bound, Row, Unit, Within
from benchmarks.stage import NotMeasured
from benchmarks.starts import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.stage import Stage

ROUNDS: Final = 5
NARROW: Final = 2_000
WIDE: Final = 100_000
WIDEST: Final = 1_000_000
_PATIENCE_SECONDS: Final = 150
_FLAT_MIB: Final = 64


def narrow(stage: Stage) -> Iterator[Row]:
    """A map of 2,000 in turn with an executor and with an agent alone."""
    assert stage.endpoint
    rates: list[float] = []
    executor_rates: list[float] = []
    agent_rates: list[float] = []
    with two_slots() as pool, ProcessPoolExecutor(2) as executor, agent_bench.agent(slots=2) as link:
        executor.submit(abs, 1).result()
        assert echo(0) >> pool == 0
        for _ in range(stage.amount(ROUNDS, 1)):
            rates.append(_map_rate(pool, NARROW))
            executor_rates.append(_executor_rate(executor, NARROW))
            agent_rates.append(agent_bench.calls_per_second(link, NARROW))
    rate = statistics.median(rates)
    yield rarer(
        _path(NARROW),
        rate,
        statistics.median(executor_rates),
        "ProcessPoolExecutor(2)",
        Within(1.0),
        Ahead(("ray",)),
        peer=f"map {NARROW}",
    )
    yield rarer(
        f"{_path(NARROW)}, calls", rate, statistics.median(agent_rates), "the agent alone, by its socket"
    )


def wide(stage: Stage) -> Iterator[Row]:
    """Maps of 100,000 and 1,000,000, beside one of 2,000 on the same pool."""
    assert stage.endpoint
    with two_slots() as pool:
        assert echo(0) >> pool == 0
        base = max(_map_rate(pool, NARROW) for _ in range(stage.amount(ROUNDS, 2)))
        rate = base
        for width in (WIDE, WIDEST) if not stage.quick else (WIDE // 10,):
            if width / rate > _PATIENCE_SECONDS:
                raise NotMeasured(
                    f"{_path(width)} would take {width / rate:.0f} s at {rate:,.0f}/s, "
                    f"and {_PATIENCE_SECONDS} s are there for it"
                )
            with growth({"operator": pid_of("operator")}) as memory:
                rate = _map_rate(pool, width)
            goals = (Ahead(("processes", "ray")),) if width == WIDE else (Within(0.8),)
            yield rarer(_path(width), rate, base, f"{_path(NARROW)}", *goals, peer=f"map {width}")
            if width == WIDE:  # no goal: those who cut a map into eight chunks account for eight things
                yield Row(f"{_path(width)}, theirs in chunks", rate, Unit.RATE, peer=f"map in chunks {width}")
            name = f"operator's growth in a {_path(width)}"
            yield Row(name, memory.of("operator"), Unit.MEMORY, goals=(Bound(_FLAT_MIB),))


def two_slots() -> sky.Pool:
    """A pool of one machine with two slots."""
    options = sky.Options(worker=sky.Worker(concurrency=2), console="silent")
    return sky.Compute(provider=sky.Local(), nodes=1, options=options)


def _path(width: int) -> str:
    return f"map of {width:,}"


def _map_rate(pool: sky.Pool, width: int) -> float:
    begin = time.perf_counter()
    assert pool.map(echo, range(width)) == list(range(width))
    return width / (time.perf_counter() - begin)


def _executor_rate(executor: ProcessPoolExecutor, width: int) -> float:
    begin = time.perf_counter()
    assert list(executor.map(abs, range(width), chunksize=1)) == list(range(width))
    return width / (time.perf_counter() - begin)
