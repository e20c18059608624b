"""Budgets of pools and namespaces, and what they allow. Pure.

A pool's budget stands in its spec, and whoever may edit the pool may edit it. A namespace's stands in
annotations of the Namespace object, which the roles of its users cannot write: Kubernetes' own `edit` and
`admin` cannot either.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from skyward.contract.names import (
    ANNOTATION_BUDGET_HOURLY,
    ANNOTATION_BUDGET_NODES,
    ANNOTATION_BUDGET_PERIOD,
    ANNOTATION_BUDGET_TOTAL,
    ANNOTATION_BUDGET_UNKNOWN,
)
from skyward.contract.reasons import NodeReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward.contract.pool import ComputePool
    from skyward_operator.money.meter import Terms

USEFUL_SECONDS: Final = 60
"""A machine that would have to be drained sooner after its order than this is not bought."""
PERIODS: Final = ("day", "month")


class Scope(StrEnum):
    """Whose budget it is."""

    POOL = "Pool"
    NAMESPACE = "Namespace"


class BadBudget(Exception):
    """A namespace's budget cannot be read: nothing is bought there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be spent by whom. None: no such limit."""

    scope: Scope
    name: str
    total: Decimal | None = None
    hourly: Decimal | None = None
    nodes: int | None = None
    unknown_allowed: bool = False
    period: str = ""
    """Which period the total is for, such as 2026-11; empty: for ever."""
    since: datetime | None = None
    """When that period began."""

    @property
    def label(self) -> str:
        """The budget as messages name it."""
        whose = f"the budget of {self.scope.lower()} {self.name}"
        return f"{whose} for {self.period}" if self.period else whose


@dataclass(frozen=True, slots=True)
class Account:
    """How much of a budget is gone."""

    spent: Decimal
    reserved: Decimal
    """What the machines that are there cost beyond that until they can be ended."""
    hourly: Decimal
    nodes: int
    """Machines that are there, or may be."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing may be bought."""

    reason: NodeReason
    message: str


def pool_limits(pool: ComputePool) -> Limits | None:
    """The budget of a pool."""
    budget = pool.spec.budget
    if budget is None:
        return None
    allowed = budget.unknown_price == "Allow"
    name = pool.metadata.name
    return Limits(Scope.POOL, name, budget.max_total, budget.max_hourly, unknown_allowed=allowed)


def namespace_limits(name: str, annotations: Mapping[str, str], now: datetime) -> Limits | None:
    """The budget of a namespace. Raises BadBudget, which names the annotation."""
    total = _money(name, annotations, ANNOTATION_BUDGET_TOTAL)
    hourly = _money(name, annotations, ANNOTATION_BUDGET_HOURLY)
    nodes = annotations.get(ANNOTATION_BUDGET_NODES)
    if nodes is not None and not (nodes.isascii() and nodes.isdecimal()):
        raise _bad(name, ANNOTATION_BUDGET_NODES, nodes, 'a whole number such as "20"')
    period = annotations.get(ANNOTATION_BUDGET_PERIOD)
    if period is not None and period not in PERIODS:
        raise _bad(name, ANNOTATION_BUDGET_PERIOD, period, f"one of {', '.join(PERIODS)}")
    unknown = annotations.get(ANNOTATION_BUDGET_UNKNOWN, "Deny")
    if unknown not in ("Deny", "Allow"):
        raise _bad(name, ANNOTATION_BUDGET_UNKNOWN, unknown, "Deny or Allow")
    if total is None and hourly is None and nodes is None:
        return None
    label, since = _period(period, now)
    return Limits(
        Scope.NAMESPACE,
        name,
        total,
        hourly,
        int(nodes) if nodes is not None else None,
        unknown_allowed=unknown == "Allow",
        period=label,
        since=since,
    )


def refuse(limits: Limits, account: Account, terms: Terms, price: Decimal | None) -> Refused | None:
    """Why a machine at these terms may not be bought now; None if it may. `price` is the most that it costs
    from its order until it could be ended, when that is decided after USEFUL_SECONDS."""
    if terms.hourly is None and not limits.unknown_allowed and (limits.total, limits.hourly) != (None, None):
        text = f"{limits.label} allows no machine whose price the provider does not tell"
        return Refused(NodeReason.PRICE_UNKNOWN, text)
    if limits.total is not None and price is not None:
        gone = account.spent + account.reserved + price
        if gone > limits.total:
            lasting = account.spent + price > limits.total
            text = (
                f"{limits.label} is ${_shown(limits.total)}: ${_shown(account.spent)} spent, "
                f"${_shown(account.reserved)} reserved for machines that run, "
                f"${_shown(price)} needed for one more at ${_shown(terms.hourly or Decimal(0))}/h"
            )
            return Refused(NodeReason.BUDGET_EXCEEDED if lasting else NodeReason.AWAITING_BUDGET, text)
    hourly = terms.hourly or Decimal(0)
    if limits.hourly is not None and account.hourly + hourly > limits.hourly:
        lasting = hourly > limits.hourly
        text = (
            f"{limits.label} is ${_shown(limits.hourly)}/h: "
            f"${_shown(account.hourly)}/h in use, ${_shown(hourly)}/h needed for one more machine"
        )
        return Refused(NodeReason.BUDGET_EXCEEDED if lasting else NodeReason.AWAITING_BUDGET, text)
    if limits.nodes is not None and account.nodes + 1 > limits.nodes:
        lasting = limits.nodes == 0
        text = f"{limits.label} allows {limits.nodes} machines at once, and there are {account.nodes}"
        return Refused(NodeReason.BUDGET_EXCEEDED if lasting else NodeReason.AWAITING_BUDGET, text)
    return None


def is_used_up(limits: Limits, account: Account) -> bool:
    """Whether what is left is needed to end the machines that are there."""
    return limits.total is not None and account.spent + account.reserved >= limits.total


def seconds_left(limits: Limits, account: Account) -> float | None:
    """Seconds until the budget is used up at the prices in force; None without end."""
    if limits.total is None or account.hourly <= 0:
        return None
    left = limits.total - account.spent - account.reserved
    return max(0.0, float(left / account.hourly * 3600))


def _period(period: str | None, now: datetime) -> tuple[str, datetime | None]:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            return f"{today:%Y-%m-%d}", today
        case "month":
            return f"{today:%Y-%m}", today.replace(day=1)
        case _:
            return "", None


def _money(namespace: str, annotations: Mapping[str, str], name: str) -> Decimal | None:
    text = annotations.get(name)
    if text is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise _bad(namespace, name, text, 'dollars such as "250.00"') from None
    if not value.is_finite() or value < 0:
        raise _bad(namespace, name, text, 'dollars such as "250.00"')
    return value


def _bad(namespace: str, name: str, text: str, wanted: str) -> BadBudget:
    return BadBudget(
        f"annotation {name} of namespace {namespace} is {text[:64]!r} and must be {wanted}: nothing is bought"
    )


def _shown(money: Decimal) -> str:
    """Money in a sentence: cents, and more where cents would say nothing."""
    cents = money.quantize(Decimal("0.01"))
    return f"{cents:f}" if cents == money or money >= 1 else f"{money.quantize(Decimal('0.000001')):f}"
