"""What the machines of one namespace have cost that are gone. Pure.

Each machine is added once, known by the UID of its node: the UID stays as long as the node's object does,
which goes only after the record that holds its cost is durable. Whoever dies in between finds the UID, and
adds nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Self

from skyward_operator.money.meter import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set
    from datetime import datetime

    from skyward_operator.money.meter import Meter

DAYS_KEPT: Final = 62
"""Enough for the month that runs and the one before it."""


@dataclass(frozen=True, slots=True)
class Past:
    """What the machines of one pool have cost that are gone."""

    cost: Decimal = NOTHING
    on_demand: Decimal = NOTHING


@dataclass(frozen=True, slots=True)
class Spending:
    """One namespace."""

    total: Decimal = NOTHING
    days: Mapping[str, Decimal] = field(default_factory=dict)
    """By day (UTC)."""
    pools: Mapping[str, Past] = field(default_factory=dict)
    """By UID, pools that are still there."""
    settled: frozenset[str] = frozenset()
    """UIDs of nodes that are in all of this, and may still be there."""

    @classmethod
    def read(cls, text: str) -> Self:
        """From its JSON."""
        document: dict[str, Any] = json.loads(text)
        return cls(
            Decimal(document["total"]),
            {day: Decimal(amount) for day, amount in document["days"].items()},
            {uid: Past(Decimal(a), Decimal(b)) for uid, (a, b) in document["pools"].items()},
            frozenset(document["settled"]),
        )

    def text(self) -> str:
        """As JSON, the same for the same."""
        document = {
            "total": f"{self.total:f}",
            "days": {day: f"{amount:f}" for day, amount in sorted(self.days.items())},
            "pools": {uid: [f"{p.cost:f}", f"{p.on_demand:f}"] for uid, p in sorted(self.pools.items())},
            "settled": sorted(self.settled),
        }
        return json.dumps(document, separators=(",", ":"))

    def settle(self, meters: Iterable[Meter], now: datetime) -> Spending:
        """With these machines, as far as they are not in it."""
        total, days, pools, settled = self.total, dict(self.days), dict(self.pools), set(self.settled)
        for meter in meters:
            if meter.uid in settled:
                continue
            settled.add(meter.uid)
            cost, past = meter.cost(now), pools.get(meter.pool_uid, Past())
            total += cost
            for day, part in meter.days(now).items():
                days[day] = days.get(day, NOTHING) + part
            pools[meter.pool_uid] = Past(past.cost + cost, past.on_demand + meter.on_demand_cost(now))
        kept = sorted(days)[-DAYS_KEPT:]
        return Spending(total, {day: days[day] for day in kept}, pools, frozenset(settled))

    def forget(self, nodes: Set[str], pools: Set[str]) -> Spending:
        """Without the names of nodes and pools that are gone for good; these are still there."""
        return Spending(
            self.total,
            self.days,
            {uid: past for uid, past in self.pools.items() if uid in pools},
            self.settled & frozenset(nodes),
        )

    def since(self, start: datetime | None) -> Decimal:
        """What was spent from a day on, or ever."""
        if start is None:
            return self.total
        first = start.date().isoformat()
        return sum((amount for day, amount in self.days.items() if day >= first), NOTHING)
