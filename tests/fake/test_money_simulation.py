"""Whatever prices, lives and kills: the bill never exceeds a budget, and what is written down is the bill."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fake.money_simulation import ON_DEMAND, ROUND, SEEN, Simulation

from skyward_operator.money.purse import AWAY_SECONDS

STEP = 20
"""Seconds within which a node is looked at, nearly always."""


async def played(seed: int, seconds: float = 900) -> Simulation:
    """A simulation until everything is given back."""
    with TemporaryDirectory() as folder:
        simulation = Simulation(seed, Path(folder))
        await simulation.prepare()
        await simulation.play(seconds)
    return simulation


def tolerance(simulation: Simulation) -> Decimal:
    """By how much what is written down may exceed the bill: of each machine, two seconds of rounding, a unit,
    and the time until its end is seen, which takes as long as the operator may be away; and a rise of its
    price is counted from the last look at it."""
    unit = simulation.how.billing_unit_seconds
    blind = Decimal(2 + unit + SEEN + STEP + 60)
    return sum(
        ((blind + Decimal(ROUND + 60) * len(each.prices)) * ON_DEMAND[each.kind] / 3600
         for each in simulation.machines.values()),
        Decimal(0),
    )  # fmt: skip


def unseen(simulation: Simulation) -> Decimal:
    """By how much the bill may exceed what is written down: of a price that has moved twice between two
    looks, the first move is not seen."""
    lasts = Decimal(ROUND + AWAY_SECONDS) / 3600
    twice = [each for each in simulation.machines.values() if len(each.prices) > 2]
    lowest = {id(each): min(price for _, price in each.prices) for each in twice}
    return sum(((ON_DEMAND[each.kind] - lowest[id(each)]) * lasts for each in twice), Decimal(0))


@pytest.mark.timeout(600)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
async def test_no_budget_is_exceeded_and_nothing_is_counted_twice_or_lost(seed: int) -> None:
    simulation = await played(seed)
    written, bill = simulation.spending().total, simulation.bill()
    assert bill - unseen(simulation) <= written <= bill + tolerance(simulation)


async def test_the_simulation_buys_kills_and_reaches_budgets() -> None:
    """It would prove nothing otherwise."""
    runs = [await played(seed) for seed in range(6)]
    assert sum(run.bought for run in runs) > 12
    assert sum(run.kills for run in runs) > 30
    near = [max(run.bill() / run.whole, *(run.bill(n) / t for n, t in run.budgets.items())) for run in runs]
    assert max(near) > Decimal("0.7")
