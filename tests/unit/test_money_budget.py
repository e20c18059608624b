"""What budgets allow and refuse, and what is written down of machines that are gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from skyward.contract import names
from skyward.contract.pool import ComputePool
from skyward.contract.rbac import USER_ROLES
from skyward.contract.reasons import NodeReason
from skyward_operator.money.balance import account_of, balance
from skyward_operator.money.budget import (
    Account,
    BadBudget,
    Limits,
    Scope,
    is_used_up,
    namespace_limits,
    refuse,
)
from skyward_operator.money.meter import Meter, Price, Terms
from skyward_operator.money.spending import DAYS_KEPT, Past, Spending

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
DOLLAR_A_SECOND = Decimal(3600)
TOTAL = Limits(Scope.POOL, "train", total=Decimal(100))


def terms(hourly: Decimal | None = DOLLAR_A_SECOND, tail: int = 10) -> Terms:
    return Terms(hourly, tail=tail)


def meter(uid: str, age: float, *, pool: str = "p", ended: float | None = None, tail: int = 10) -> Meter:
    began = NOW - timedelta(seconds=age)
    end = None if ended is None else NOW - timedelta(seconds=ended)
    return Meter(uid, uid, pool, terms(tail=tail), began, began, end, (Price(began, DOLLAR_A_SECOND),))


def account(spent: int = 0, reserved: int = 0, hourly: int = 0, nodes: int = 0) -> Account:
    return Account(Decimal(spent), Decimal(reserved), Decimal(hourly), nodes)


REFUSALS: list[tuple[Limits, Account, Decimal | None, NodeReason | None]] = [
    (TOTAL, account(), DOLLAR_A_SECOND, None),
    (TOTAL, account(spent=30, reserved=0), DOLLAR_A_SECOND, None),
    (TOTAL, account(spent=31), DOLLAR_A_SECOND, NodeReason.BUDGET_EXCEEDED),
    (TOTAL, account(spent=10, reserved=21), DOLLAR_A_SECOND, NodeReason.AWAITING_BUDGET),
    (TOTAL, account(), None, NodeReason.PRICE_UNKNOWN),
    (replace(TOTAL, unknown_allowed=True), account(), None, None),
    (Limits(Scope.POOL, "t", hourly=Decimal(7200)), account(hourly=3600), DOLLAR_A_SECOND, None),
    (Limits(Scope.POOL, "t", hourly=Decimal(7199)), account(hourly=3600), DOLLAR_A_SECOND,
     NodeReason.AWAITING_BUDGET),
    (Limits(Scope.POOL, "t", hourly=Decimal(3599)), account(), DOLLAR_A_SECOND, NodeReason.BUDGET_EXCEEDED),
    (Limits(Scope.NAMESPACE, "ns", nodes=2), account(nodes=1), None, None),
    (Limits(Scope.NAMESPACE, "ns", nodes=2), account(nodes=2), None, NodeReason.AWAITING_BUDGET),
    (Limits(Scope.NAMESPACE, "ns", nodes=0), account(), None, NodeReason.BUDGET_EXCEEDED),
]  # fmt: skip


@pytest.mark.parametrize(("limits", "gone", "hourly", "reason"), REFUSALS)
def test_what_a_budget_refuses(
    limits: Limits, gone: Account, hourly: Decimal | None, reason: NodeReason | None
) -> None:
    refused = refuse(limits, gone, terms(hourly), Decimal(70))
    assert (refused.reason if refused else None) == reason


def test_a_refusal_has_the_figures() -> None:
    refused = refuse(TOTAL, account(spent=31), terms(Decimal("1.50")), Decimal("70.125"))
    assert refused is not None
    assert refused.message == (
        "the budget of pool train is $100.00: $31.00 spent, $0.00 reserved for machines that run, $70.12 "
        "needed for one more at $1.50/h"
    )


ANNOTATIONS: list[tuple[dict[str, str], Limits | str | None]] = [
    ({}, None),
    ({names.ANNOTATION_BUDGET_PERIOD: "month"}, None),
    ({names.ANNOTATION_BUDGET_TOTAL: "12.50"}, Limits(Scope.NAMESPACE, "ns", Decimal("12.50"))),
    (
        {names.ANNOTATION_BUDGET_TOTAL: "12.50", names.ANNOTATION_BUDGET_PERIOD: "month"},
        Limits(Scope.NAMESPACE, "ns", Decimal("12.50"), period="2026-11",
               since=datetime(2026, 11, 1, tzinfo=UTC)),
    ),
    ({names.ANNOTATION_BUDGET_NODES: "3"}, Limits(Scope.NAMESPACE, "ns", nodes=3)),
    ({names.ANNOTATION_BUDGET_TOTAL: "12,50"}, names.ANNOTATION_BUDGET_TOTAL),
    ({names.ANNOTATION_BUDGET_TOTAL: "NaN"}, names.ANNOTATION_BUDGET_TOTAL),
    ({names.ANNOTATION_BUDGET_HOURLY: "-1"}, names.ANNOTATION_BUDGET_HOURLY),
    ({names.ANNOTATION_BUDGET_NODES: "many"}, names.ANNOTATION_BUDGET_NODES),
    ({names.ANNOTATION_BUDGET_TOTAL: "1", names.ANNOTATION_BUDGET_PERIOD: "year"},
     names.ANNOTATION_BUDGET_PERIOD),
]  # fmt: skip


@pytest.mark.parametrize(("annotations", "wanted"), ANNOTATIONS)
def test_the_budget_of_a_namespace(annotations: dict[str, str], wanted: Limits | str | None) -> None:
    if isinstance(wanted, str):
        with pytest.raises(BadBudget, match=wanted):
            namespace_limits("ns", annotations, NOW)
    else:
        assert namespace_limits("ns", annotations, NOW) == wanted


def test_a_machine_is_settled_once() -> None:
    gone = meter("u", 50, ended=20)
    once = Spending().settle([gone], NOW)
    assert once.total == once.pools["p"].cost == 30
    assert once.days == {"2026-11-25": 30}
    assert once.settle([gone], NOW) == once
    assert Spending.read(once.text()) == once


def test_names_of_what_is_gone_are_forgotten_and_its_cost_is_not() -> None:
    both = Spending().settle([meter("a", 50, ended=20), meter("b", 9, ended=0, pool="q")], NOW)
    left = both.forget({"b"}, {"q"})
    assert left.total == 39
    assert left.settled == {"b"}
    assert left.pools == {"q": Past(Decimal(9), Decimal(9))}


def test_days_are_bounded_and_the_total_is_not_lost() -> None:
    spending = Spending()
    for day in range(100):
        spending = spending.settle([meter(f"u{day}", 86_400 * day + 10, ended=86_400.0 * day)], NOW)
    assert len(spending.days) == DAYS_KEPT
    assert spending.total == 1000
    assert spending.since(datetime(2026, 11, 20, tzinfo=UTC)) == 60


def pool(status: dict[str, Any] | None = None, **budget: Any) -> ComputePool:
    spec: dict[str, Any] = {"candidates": [{"name": "c", "provider": "sim"}]}
    if budget:
        spec["budget"] = budget
    metadata = {"name": "train", "namespace": "ns", "uid": "p"}
    return ComputePool.read({"metadata": metadata, "spec": spec, "status": status or {}})


def test_what_is_settled_and_still_there_counts_once() -> None:
    gone = meter("a", 50, ended=20)
    settled = Spending().settle([gone], NOW)
    assert account_of(TOTAL, [gone], "p", settled, NOW).spent == 30
    assert balance(pool(), [gone], settled, None, NOW).accrued == 30


def test_a_pool_counts_its_own_machines_and_a_namespace_all() -> None:
    meters = [meter("a", 20), meter("b", 5, pool="q")]
    mine = account_of(TOTAL, meters, "p", Spending(), NOW)
    assert mine == Account(Decimal(20), Decimal(10), DOLLAR_A_SECOND, 1)
    all_of_it = account_of(Limits(Scope.NAMESPACE, "ns", Decimal(1)), meters, "p", Spending(), NOW)
    assert all_of_it == Account(Decimal(25), Decimal(20), DOLLAR_A_SECOND * 2, 2)


def test_a_budget_is_used_up_when_the_rest_is_needed_for_the_end() -> None:
    assert not is_used_up(TOTAL, account(spent=89, reserved=10))
    assert is_used_up(TOTAL, account(spent=90, reserved=10))
    seen = balance(pool(maxTotal="100"), [meter("a", 89)], Spending(), None, NOW)
    assert (seen.stop, seen.percent, seen.again) == (None, 80, 1.0)
    stop = balance(pool(maxTotal="100"), [meter("a", 90)], Spending(), None, NOW).stop
    assert stop is not None
    assert stop.message == (
        "the budget of pool train is $100 and used up: $90.000000 spent, and $10.000000 kept for the end of "
        "machines"
    )


def test_a_budget_that_was_used_up_stays_so_until_it_is_raised() -> None:
    """What the end of its machines left over buys no further one."""
    stopped = {"cost": {"stopped": {"scope": "Pool", "limit": "100"}}}
    spending = Spending().settle([meter("a", 95, ended=0)], NOW)
    assert balance(pool(stopped, maxTotal="100"), [], spending, None, NOW).stop is not None
    assert balance(pool(stopped, maxTotal="99"), [], spending, None, NOW).stop is not None
    assert balance(pool(stopped, maxTotal="101"), [], spending, None, NOW).stop is None
    assert balance(pool(stopped), [], spending, None, NOW).stop is None


def test_the_budget_of_a_month_begins_anew_with_the_next() -> None:
    november = Limits(Scope.NAMESPACE, "ns", Decimal(100), period="2026-11")
    december = replace(november, period="2026-12", since=datetime(2026, 12, 1, tzinfo=UTC))
    stopped = {"cost": {"stopped": {"scope": "Namespace", "limit": "100", "period": "2026-11"}}}
    spending = Spending().settle([meter("a", 95, ended=0)], NOW)
    assert balance(pool(stopped), [], spending, november, NOW).stop is not None
    later = datetime(2026, 12, 2, tzinfo=UTC)
    assert balance(pool(stopped), [], spending, december, later).stop is None
    assert account_of(december, [], "p", spending, later).spent == 0


def test_no_role_for_people_reaches_the_budget_of_a_namespace_or_what_was_spent() -> None:
    touched = {resource for role in USER_ROLES for rule in role.rules for resource in rule["resources"]}
    assert touched.isdisjoint({"namespaces", "configmaps", f"{names.POOL.plural}/status"})
