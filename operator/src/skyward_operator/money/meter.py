"""The billing interval of one machine, and what follows from it. Pure, with exact decimals.

A machine is paid for from its order until its provider proved that it is gone, in units of `unit` seconds and
for `minimum` seconds at least. Costs are rounded up to a millionth of a dollar, once for each sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_UP, Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from skyward_operator.nodes.wind_down import holds_machine

if TYPE_CHECKING:
    from skyward.contract.node import ComputeNode

HOUR: Final = Decimal(3600)
MILLIONTH: Final = Decimal("0.000001")
NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Price:
    """So much per hour from then on."""

    since: datetime
    hourly: Decimal


@dataclass(frozen=True, slots=True)
class Terms:
    """How a machine is sold, and how long its end may take; known before it is ordered."""

    hourly: Decimal | None
    """None: the provider does not say."""
    on_demand: Decimal | None = None
    unit: int = 1
    minimum: int = 0
    tail: int = 0
    """Seconds from the decision to end it until it is surely gone."""

    @property
    def ceiling(self) -> Decimal:
        """The most per hour that its price is taken to rise to while it ends."""
        return max(self.hourly or NOTHING, self.on_demand or NOTHING)

    def billed(self, seconds: Decimal) -> Decimal:
        """The seconds that are paid for a machine that was there for so many."""
        units, begun = divmod(max(seconds, Decimal(self.minimum)), self.unit)
        return (units + (begun > 0)) * self.unit


@dataclass(frozen=True, slots=True)
class Meter:
    """The machine of one node."""

    node: str
    uid: str
    pool_uid: str
    terms: Terms
    ordered: datetime
    """When its intent was written: it cannot have been there before."""
    began: datetime | None = None
    """When its billing began; None while it is not known whether it was bought."""
    ended: datetime | None = None
    prices: tuple[Price, ...] = ()
    """The price when it began, and its changes, oldest first."""

    @property
    def hourly(self) -> Decimal:
        """Its price per hour now; nothing once it is gone."""
        if self.ended is not None:
            return NOTHING
        return self.prices[-1].hourly if self.prices else self.terms.hourly or NOTHING

    @property
    def on_demand(self) -> Decimal:
        """What the same machine would cost per hour on demand, as far as that is known."""
        if self.ended is not None:
            return NOTHING
        known = self.terms.on_demand
        return self.hourly if known is None else known

    def cost(self, now: datetime) -> Decimal:
        """What it has cost until now."""
        return NOTHING if self.began is None else self._cost(self.began, now)

    def on_demand_cost(self, now: datetime) -> Decimal:
        """What it would have cost on demand."""
        if self.began is None or self.terms.on_demand is None:
            return self.cost(now)
        seconds = self._seconds(self.began, now)
        return dollars(self.terms.billed(seconds) * self.terms.on_demand) if seconds is not None else NOTHING

    def cost_since(self, start: datetime | None, now: datetime) -> Decimal:
        """The part of its cost that falls into the time from `start` on."""
        return self.cost(now) - (self.cost(start) if start is not None else NOTHING)

    def reserve(self, now: datetime) -> Decimal:
        """What it will cost beyond `cost(now)` until it is gone, if its end is decided now."""
        if self.ended is not None:
            return NOTHING
        began = self.began or self.ordered
        later = now + timedelta(seconds=self.terms.tail)
        seconds = self._seconds(began, later)
        if seconds is None:
            return NOTHING
        until_now = self._weighted(began, now)
        there = self._seconds(began, now) or NOTHING
        most = max(self.hourly, self.terms.ceiling)
        whole = dollars(until_now + (self.terms.billed(seconds) - there) * most)
        return max(NOTHING, whole - self.cost(now))

    def days(self, now: datetime) -> dict[str, Decimal]:
        """Its cost by day (UTC); the parts add up to `cost(now)`."""
        if self.began is None:
            return {}
        parts: dict[str, Decimal] = {}
        day, last = self.began.astimezone(UTC).date(), (self.ended or now).astimezone(UTC).date()
        before = NOTHING
        while day <= last:
            midnight = datetime.combine(day + timedelta(days=1), time(), UTC)
            until = self.cost(now) if day == last else self.cost(midnight)
            if until != before:
                parts[day.isoformat()] = until - before
            before, day = until, day + timedelta(days=1)
        return parts

    def _cost(self, began: datetime, now: datetime) -> Decimal:
        seconds = self._seconds(began, now)
        if seconds is None:
            return NOTHING
        end = now if self.ended is None else min(now, self.ended)
        last = next((each.hourly for each in reversed(self.prices) if each.since <= end), NOTHING)
        return dollars(self._weighted(began, now) + (self.terms.billed(seconds) - seconds) * last)

    def _seconds(self, began: datetime, now: datetime) -> Decimal | None:
        """How long it has been there; None if it was not yet."""
        end = now if self.ended is None else min(now, self.ended)
        return None if end < began else decimal_seconds(end - began)

    def _weighted(self, began: datetime, now: datetime) -> Decimal:
        """Seconds times price per hour, over its prices."""
        end = now if self.ended is None else min(now, self.ended)
        prices = self.prices or (Price(began, self.terms.hourly or NOTHING),)
        bounds = [began, *(each.since for each in prices[1:]), end]
        spans = zip(pairwise(bounds), prices, strict=True)
        total = NOTHING
        for (start, stop), price in spans:
            lasted = min(stop, end) - min(start, end)
            total += max(NOTHING, decimal_seconds(lasted)) * price.hourly
        return total


def dollars(weighted: Decimal) -> Decimal:
    """Seconds times price per hour as money, rounded up."""
    return (weighted / HOUR).quantize(MILLIONTH, ROUND_UP)


def decimal_seconds(span: timedelta) -> Decimal:
    """A span of time, exactly."""
    return Decimal(span.days * 86_400 + span.seconds) + Decimal(span.microseconds) / 1_000_000


def meter_of(node: ComputeNode) -> Meter | None:
    """The meter of a node's machine; None if nothing was ever ordered for it, or nothing came of it."""
    launch, billing = node.status.launch, node.status.billing
    if launch is None or launch.offer is None:
        return None
    if not holds_machine(node) and (billing is None or billing.start_time is None):
        return None
    offer = launch.offer
    ordered = launch.request_time or node.metadata.creation_timestamp
    began = billing.start_time if billing else None
    if ordered is None:
        return None
    changes = billing.prices if billing else ()
    first = (Price(began, (billing.hourly_price if billing else None) or NOTHING),) if began else ()
    return Meter(
        node=node.metadata.name,
        uid=node.metadata.uid or "",
        pool_uid=node.spec.pool_ref.uid,
        terms=Terms(
            hourly=offer.hourly_price,
            on_demand=offer.on_demand_price,
            unit=offer.billing_unit_seconds or 1,
            minimum=offer.billing_minimum_seconds or 0,
            tail=offer.reserved_seconds or 0,
        ),
        ordered=ordered,
        began=began,
        ended=billing.end_time if billing else None,
        prices=first
        + tuple(
            Price(each.since_time, each.hourly_price)
            for each in changes
            if each.since_time is not None and each.hourly_price is not None
        ),
    )
