"""What one machine costs: units, minimum, changes of price, and what is kept for its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from skyward.contract.node import ComputeNode
from skyward_operator.money.meter import Meter, Price, Terms, meter_of

BEGAN = datetime(2026, 11, 30, 23, 0, 0, tzinfo=UTC)
DOLLAR_A_SECOND = Decimal(3600)


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def meter(hourly: Decimal = DOLLAR_A_SECOND, **terms: Any) -> Meter:
    return Meter("n", "u", "p", Terms(hourly, **terms), BEGAN, BEGAN, prices=(Price(BEGAN, hourly),))


@pytest.mark.parametrize(
    ("unit", "minimum", "seconds", "paid"),
    [(1, 0, 0, 0), (1, 0, 10, 10), (60, 0, 61, 120), (1, 60, 10, 60), (60, 90, 30, 120), (3600, 0, 1, 3600)],
)
def test_units_are_whole_and_a_minimum_is_paid(unit: int, minimum: int, seconds: int, paid: int) -> None:
    assert meter(unit=unit, minimum=minimum).cost(after(seconds)) == paid


def test_money_is_exact_and_rounded_up_to_a_millionth() -> None:
    made = meter(Decimal("0.04"))
    assert made.cost(after(3600)) == Decimal("0.04")
    assert made.cost(after(1)) == Decimal("0.000012")
    assert made.cost(after(0.5)) == Decimal("0.000012")  # half a second is a second that has begun


def test_a_price_that_moves_counts_from_when_it_moved() -> None:
    twice = Price(after(10), DOLLAR_A_SECOND * 2)
    made = replace(meter(), prices=(Price(BEGAN, DOLLAR_A_SECOND), twice))
    assert [made.cost(after(seconds)) for seconds in (5, 10, 15)] == [5, 10, 20]
    assert made.hourly == DOLLAR_A_SECOND * 2


def test_a_machine_that_is_gone_costs_no_more() -> None:
    gone = replace(meter(), ended=after(30))
    assert gone.cost(after(1000)) == 30
    assert {gone.hourly, gone.on_demand, gone.reserve(after(1000))} == {Decimal(0)}


def test_the_reserve_is_what_it_costs_until_it_can_be_ended() -> None:
    made = meter(tail=100)
    assert made.reserve(after(10)) == 100
    assert made.cost(after(10)) + made.reserve(after(10)) == made.cost(after(110))
    hours = meter(tail=100, unit=3600)
    assert hours.cost(after(10)) + hours.reserve(after(10)) == 3600  # the end fits into the hour that is paid
    assert hours.cost(after(3550)) + hours.reserve(after(3550)) == 7200
    spot = meter(tail=100, on_demand=DOLLAR_A_SECOND * 3)
    assert spot.reserve(after(10)) == 300  # its price may rise in the end


def test_an_order_of_unknown_outcome_costs_nothing_and_reserves_as_if_it_was_bought() -> None:
    unknown = replace(meter(tail=100), began=None, prices=())
    assert unknown.cost(after(10)) == 0
    assert unknown.reserve(after(10)) == 110


def test_days_add_up_to_the_cost() -> None:
    made = meter(unit=7)
    parts = made.days(after(7200))
    assert list(parts) == ["2026-11-30", "2026-12-01"]
    assert sum(parts.values()) == made.cost(after(7200))
    december = datetime(2026, 12, 1, tzinfo=UTC)
    assert made.cost_since(december, after(7200)) == parts["2026-12-01"]


def test_saved_is_against_the_on_demand_price() -> None:
    made = meter(on_demand=DOLLAR_A_SECOND * 3)
    assert made.on_demand_cost(after(10)) - made.cost(after(10)) == 20
    assert meter().on_demand_cost(after(10)) == 10  # not known: nothing is saved


OFFER = {"hourlyPrice": "3.60", "onDemandPrice": "7.20", "billingMinimumSeconds": 60, "reservedSeconds": 100}
LAUNCH = {"offer": OFFER, "token": "t", "requestTime": "2026-11-30T23:00:00Z", "outcome": "Pending"}


def node(**status: Any) -> ComputeNode:
    spec = {
        "poolRef": {"name": "p", "uid": "pu"},
        "rank": 0,
        "incarnation": 0,
        "candidates": [{"name": "main", "provider": "sim"}],
        "image": {},
        "worker": {},
        "timeouts": {},
        "templateHash": "ab",
    }
    metadata = {"name": "p-0", "namespace": "ns", "uid": "u"}
    return ComputeNode.read({"metadata": metadata, "spec": spec, "status": status})


def test_a_node_has_a_meter_from_its_intent_on() -> None:
    assert meter_of(node()) is None
    assert meter_of(node(phase="Launching", launch=LAUNCH | {"outcome": "InsufficientCapacity"})) is None
    intended = meter_of(node(phase="Launching", launch=LAUNCH))
    assert intended is not None
    assert (intended.began, intended.terms.minimum, intended.terms.tail) == (None, 60, 100)
    assert intended.reserve(BEGAN) == Decimal("0.20")  # at the on-demand price


def test_the_meter_of_a_node_that_is_gone_keeps_its_interval() -> None:
    billing = {"startTime": "2026-11-30T23:00:00Z", "endTime": "2026-11-30T23:10:00Z", "hourlyPrice": "3.60"}
    rise = {"sinceTime": "2026-11-30T23:05:00Z", "hourlyPrice": "7.20"}
    made = meter_of(node(phase="Gone", launch=LAUNCH, billing=billing | {"prices": [rise]}))
    assert made is not None
    assert made.cost(after(10**6)) == Decimal("0.90")
    never = node(phase="Gone", launch=LAUNCH, billing={"endTime": "2026-11-30T23:10:00Z"})
    assert meter_of(never) is None  # it was proven that nothing was bought
