"""Calls through the whole system, each beside the least that could be done for it."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from benchmarks import agent_bench, floor
from benchmarks.figures import quantile, rarer, slower, timed
from benchmarks.starts import echo, one_node

if TYPE_CHECKING:
    import skyward as sky
    from skyward.local.endpoint import Endpoint

ROUNDS = 5
CALLS = 100
ITEMS = 2000


def one_call(endpoint: Endpoint) -> None:
    """`echo(number) >> pool`, one after the other, in turn with as many of the floor."""
    taken: list[float] = []
    bare: list[float] = []
    with one_node() as pool:
        assert [echo(number) >> pool for number in range(20)] == list(range(20))
        for _ in range(ROUNDS):
            for number in range(CALLS):
                with timed(taken):
                    assert echo(number) >> pool == number
            bare += floor.round_trips(endpoint, CALLS)
    for percent in (50, 99):
        name = "create, watch, SSH, status, watch"
        slower(f"one call, p{percent}", quantile(taken, percent), quantile(bare, percent), name)


def maps() -> None:
    """A map of 2,000 no-ops over one slot, in turn with an executor and with an agent alone."""
    rates: list[float] = []
    executor_rates: list[float] = []
    agent_rates: list[float] = []
    with one_node() as pool, ProcessPoolExecutor(1) as executor, agent_bench.agent(slots=1) as link:
        executor.submit(abs, 1).result()
        echo(0) >> pool
        for _ in range(ROUNDS):
            rates.append(_map_rate(pool))
            executor_rates.append(_executor_rate(executor))
            agent_rates.append(agent_bench.calls_per_second(link, ITEMS))
    rate = statistics.median(rates)
    rarer("map of 2,000 no-ops", rate, statistics.median(agent_rates), "the agent alone, by its socket")
    rarer("map of 2,000 no-ops", rate, statistics.median(executor_rates), "ProcessPoolExecutor, no network")


def _map_rate(pool: sky.Pool) -> float:
    begin = time.perf_counter()
    assert pool.map(echo, range(ITEMS)) == list(range(ITEMS))
    return ITEMS / (time.perf_counter() - begin)


def _executor_rate(executor: ProcessPoolExecutor) -> float:
    begin = time.perf_counter()
    assert list(executor.map(abs, range(ITEMS))) == list(range(ITEMS))
    return ITEMS / (time.perf_counter() - begin)
