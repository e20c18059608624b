"""A pool's money at one moment: what it costs, how much of a budget is gone, whether it has to stop. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from skyward_operator.money.budget import (
    Account,
    Limits,
    Scope,
    is_used_up,
    pool_limits,
    seconds_left,
)
from skyward_operator.money.meter import NOTHING
from skyward_operator.money.spending import Past

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from decimal import Decimal

    from skyward.contract.pool import ComputePool
    from skyward_operator.money.meter import Meter
    from skyward_operator.money.spending import Spending

STEPS: Final = (50, 80, 100)
"""Percentages of a budget that are told."""
WRITE_SECONDS: Final = 60.0
"""A cost that only grows with the time is written down this often."""
LOOK_SECONDS: Final = 5.0
"""A pool with a budget and machines is looked at this often, and sooner where less is left."""
LEAST_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Stop:
    """A budget that is used up. It stays so until it is raised: what the end of machines left over buys no
    further one."""

    scope: Scope
    limit: Decimal
    period: str
    message: str


@dataclass(frozen=True, slots=True)
class Balance:
    """One pool."""

    hourly: Decimal = NOTHING
    on_demand_hourly: Decimal = NOTHING
    accrued: Decimal = NOTHING
    on_demand: Decimal = NOTHING
    """What the same machines would have cost on demand."""
    remaining: Decimal | None = None
    """What is left of the tightest budget; None without one."""
    percent: int = 0
    """The highest of STEPS that a budget has reached."""
    told: str = ""
    """That step in a sentence."""
    stop: Stop | None = None
    again: float | None = None
    """Seconds after which to look again."""

    @property
    def saved(self) -> Decimal:
        """Saved against on-demand rates."""
        return max(NOTHING, self.on_demand - self.accrued)


EMPTY: Final = Balance()
"""Nothing was bought, and nothing is limited."""


def account_of(
    limits: Limits, meters: Iterable[Meter], pool_uid: str, spending: Spending, now: datetime
) -> Account:
    """How much of a budget is gone. `meters` are all of the namespace; what is settled is left out."""
    own = limits.scope is Scope.POOL
    spent = spending.pools.get(pool_uid, Past()).cost if own else spending.since(limits.since)
    reserved = hourly = NOTHING
    nodes = 0
    for meter in meters:
        if meter.uid in spending.settled or (own and meter.pool_uid != pool_uid):
            continue
        spent += meter.cost_since(limits.since, now)
        reserved += meter.reserve(now)
        hourly += meter.hourly
        nodes += meter.ended is None
    return Account(spent, reserved, hourly, nodes)


def balance(
    pool: ComputePool,
    meters: Sequence[Meter],
    spending: Spending,
    namespace: Limits | None,
    now: datetime,
) -> Balance:
    """The balance of a pool. `meters` are all of its namespace."""
    uid = pool.metadata.uid or ""
    own = [each for each in meters if each.pool_uid == uid and each.uid not in spending.settled]
    past = spending.pools.get(uid, Past())
    running = [each for each in own if each.began is not None]
    budgets = [
        (limits, account_of(limits, meters, uid, spending, now))
        for limits in (pool_limits(pool), namespace)
        if limits is not None
    ]
    totals = [(limits, account) for limits, account in budgets if limits.total is not None]
    stop = _stop(pool, totals, holds=any(each.ended is None for each in own))
    percent, told = _progress(totals, stop)
    return Balance(
        hourly=sum((each.hourly for each in running), NOTHING),
        on_demand_hourly=sum((each.on_demand for each in running), NOTHING),
        accrued=past.cost + sum((each.cost(now) for each in own), NOTHING),
        on_demand=past.on_demand + sum((each.on_demand_cost(now) for each in own), NOTHING),
        remaining=min(
            (max(NOTHING, (limits.total or NOTHING) - account.spent) for limits, account in totals),
            default=None,
        ),
        percent=percent,
        told=told,
        stop=stop,
        again=_again(totals, own, stop),
    )


def _stop(pool: ComputePool, totals: Sequence[tuple[Limits, Account]], *, holds: bool) -> Stop | None:
    written = pool.status.cost.stopped if pool.status.cost else None
    for limits, account in totals:
        total = limits.total or NOTHING
        latched = (
            written is not None
            and (written.scope, written.period or "") == (limits.scope, limits.period)
            and written.limit is not None
            and total <= written.limit
        )
        if latched or (holds and is_used_up(limits, account)):
            text = f"{limits.label} is ${total:f} and used up: ${account.spent:f} spent"
            if account.reserved:
                text = f"{text}, and ${account.reserved:f} kept for the end of machines"
            return Stop(limits.scope, total, limits.period, text)
    return None


def _progress(totals: Sequence[tuple[Limits, Account]], stop: Stop | None) -> tuple[int, str]:
    if stop is not None:
        return 100, stop.message
    best, told = 0, ""
    for limits, account in totals:
        if not limits.total:
            continue
        step = max((each for each in STEPS if account.spent * 100 >= limits.total * each), default=0)
        if step > best:
            best = step
            told = f"{step} % of {limits.label} is spent: ${account.spent:f} of ${limits.total:f}"
    return best, told


def _again(totals: Sequence[tuple[Limits, Account]], own: Sequence[Meter], stop: Stop | None) -> float | None:
    live = [each for each in own if each.ended is None]
    if not live or not any(each.hourly for each in live):
        return None
    if not totals or stop is not None:
        return WRITE_SECONDS
    left = [each for limits, account in totals if (each := seconds_left(limits, account)) is not None]
    return max(LEAST_LOOK_SECONDS, min(LOOK_SECONDS, *left) if left else LOOK_SECONDS)
