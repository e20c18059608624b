"""Elastic pools over hours of demand: they do not oscillate, and what they buy is near to the ideal.

The ratio of each case is printed (`pytest -rP`).
"""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.unit.pool_simulation import Arrival, Bill, Cloud, Machines, Simulation, ideal, play

BOOT = 90.0
EXACT = Machines(boot=BOOT, spread=0.0)


def ratio(bill: Bill, arrivals: list[Arrival], *, slots: int = 1, most: int, boot: float = BOOT) -> float:
    best = ideal(arrivals, boot, slots, most)
    found = bill.seconds / best.seconds
    waited = sum(bill.waits) / len(bill.waits)
    print(
        f"{len(arrivals)} tasks: {found:.2f} of the ideal seconds, {bill.bought} machines bought (ideal: "
        f"{best.bought}), {len(bill.decisions)} decisions, {bill.turns} turns, a call waits {waited:.0f} s"
    )
    return found


def steady(tasks: int, every: float, seconds: float, seed: int) -> list[Arrival]:
    """Tasks as people send them who know nothing of each other."""
    chance, at, made = random.Random(seed), 0.0, []
    for _ in range(tasks):
        at += chance.expovariate(1 / every)
        made.append(Arrival(at, 1, chance.lognormvariate(math.log(seconds) - 0.5, 1.0)))
    return made


def bursts(tasks: int, every: float, calls: int, seconds: float, seed: int) -> list[Arrival]:
    """Maps with pauses between them."""
    chance, at, made = random.Random(seed), 0.0, []
    for _ in range(tasks):
        at += chance.uniform(0.5, 1.5) * every
        made.append(Arrival(at, chance.randint(1, calls), chance.uniform(0.5, 1.5) * seconds))
    return made


def day(tasks: int, seed: int) -> list[Arrival]:
    """A working day of eight hours: nobody at first, most before noon, a pause, some in the evening."""
    chance = random.Random(seed)
    hours = chance.choices(range(8), weights=(1, 6, 9, 8, 2, 7, 6, 3), k=tasks)
    return [
        Arrival(3600 * (hour + chance.random()), chance.choice((1, 1, 1, 4)), chance.uniform(5, 240))
        for hour in hours
    ]


def test_two_pools_and_a_thousand_tasks_do_not_oscillate() -> None:
    """They share a cloud that has less than both could use at once."""
    first, second = steady(500, 12, 60, seed=1), bursts(500, 20, 12, 20, seed=2)
    cloud = Cloud(free=20)
    one = Simulation(first, Machines(BOOT), max=16, seed=3, cloud=cloud)
    two = Simulation(second, Machines(BOOT), max=16, seed=4, cloud=cloud)
    bills = play(one, two)
    for bill, arrivals in zip(bills, (first, second), strict=True):
        assert ratio(bill, arrivals, most=16) < 1.2
        hours = max(at for at, _ in bill.decisions) / 3600
        assert bill.turns <= 25 * hours  # 60 would be possible: a turn takes the idle time at least
    assert cloud.free == 20


CASES = {
    # name: arrivals, slots, idle, most that may be paid over the ideal
    "steady": (steady(1000, 10, 60, seed=11), 1, 60, 1.2),
    "steady on four slots": (steady(1000, 3, 60, seed=12), 4, 60, 1.3),
    "maps": (bursts(200, 120, 24, 20, seed=13), 1, 60, 1.3),
    "rare maps": (bursts(60, 900, 16, 60, seed=14), 1, 60, 1.5),
    "a working day": (day(1000, seed=15), 1, 60, 1.2),
    "a working day, patient": (day(1000, seed=15), 1, 300, 1.5),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_bought_is_near_to_the_ideal(name: str) -> None:
    arrivals, slots, idle, bound = CASES[name]
    (bill,) = play(Simulation(arrivals, Machines(BOOT), slots=slots, idle=idle, max=32, seed=5))
    assert ratio(bill, arrivals, slots=slots, most=32) < bound


def test_no_call_waits_longer_than_a_machine_takes() -> None:
    """Growing at once is what the money is for: where `max` is no limit, a call waits for one boot."""
    arrivals = bursts(50, 600, 16, 60, seed=21)
    (bill,) = play(Simulation(arrivals, EXACT, max=64))
    assert max(bill.waits) <= BOOT


def test_demand_that_wavers_within_the_idle_time_changes_nothing() -> None:
    """Seven calls, then one, then seven: by turns, for an hour."""
    arrivals = [Arrival(40.0 * n, 7 if n % 2 else 1, 25.0) for n in range(1, 91)]
    (bill,) = play(Simulation(arrivals, EXACT, max=8))
    grown = [level for _, level in bill.decisions]
    assert bill.turns == 0
    assert max(grown) == 8  # the second lot came while there was no machine for the first
    assert bill.bought == 8


def test_demand_that_wavers_slowly_turns_as_often_as_the_idle_time_lets_it() -> None:
    arrivals = [Arrival(600.0 * n, 4, 30.0) for n in range(20)]
    (bill,) = play(Simulation(arrivals, EXACT, max=4))
    assert (bill.turns, bill.bought) == (19, 80)


def test_a_long_call_keeps_its_machine_and_no_other() -> None:
    arrivals = [Arrival(0, 6, 30.0), Arrival(1, 1, 5 * 3600.0)]
    (bill,) = play(Simulation(arrivals, EXACT, max=8))
    assert bill.bought == 7
    assert bill.seconds < 5 * 3600.0 * 2 + 7 * (BOOT + 30 + 61 + 1)


def test_machines_on_their_way_count() -> None:
    """A boot of half an hour, and a look every second: nothing is bought twice."""
    (bill,) = play(Simulation([Arrival(0, 5, 10.0)], Machines(1800.0), max=100))
    assert bill.bought == 5


def test_slow_and_failing_machines_are_not_bought_without_pause() -> None:
    """One of seven fails on its way: each failure waits before the next try, and all calls end."""
    arrivals = steady(200, 60, 120, seed=31)
    machines = Machines(boot=60, failures=0.15)
    (bill,) = play(Simulation(arrivals, machines, max=16, seed=32))
    assert ratio(bill, arrivals, most=16, boot=60) < 1.3


def test_machines_that_are_taken_away_are_replaced_and_their_calls_end() -> None:
    arrivals = steady(300, 20, 60, seed=41)
    machines = Machines(BOOT, lifetime=900.0)
    (bill,) = play(Simulation(arrivals, machines, max=16, seed=42))
    assert bill.lost > 10
    assert ratio(bill, arrivals, most=16) < 1.4


@settings(max_examples=30, deadline=None)
@given(
    tasks=some.lists(
        some.builds(
            Arrival,
            at=some.integers(0, 3600).map(float),
            calls=some.integers(1, 12),
            seconds=some.integers(1, 600).map(float),
        ),
        min_size=1,
        max_size=25,
    ),
    slots=some.integers(1, 4),
    idle=some.integers(0, 300),
    floor=some.integers(0, 3),
    most=some.integers(3, 9),
    boot=some.integers(1, 900),
    lifetime=some.sampled_from([0.0, 0.0, 600.0]),
    seed=some.integers(0, 9),
)
def test_any_demand_comes_to_rest_within_its_bounds(
    tasks: list[Arrival],
    slots: int,
    idle: int,
    floor: int,
    most: int,
    boot: int,
    lifetime: float,
    seed: int,
) -> None:
    """What the simulation asserts at each step: no more than `max`, no running call cut off, the head
    last; every call ends, and what is left is the floor. A turn takes the idle time at least."""
    machines = Machines(float(boot), lifetime=lifetime)
    pool = Simulation(tasks, machines, slots=slots, idle=idle, seed=seed, desired=floor, max=most)
    (bill,) = play(pool)
    raised = [at for at, level in bill.decisions if level > floor]
    assert not raised or bill.turns <= (max(raised) - min(raised)) / max(idle, 1) + 1
