"""What was asked for and how that ended, for each pool's status: bounded, the same things together.

A refusal costs no write of its own. What is new waits some seconds for more of it, and goes out with the
pool's status; a new operator reads there what an earlier one kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.meta import clip
from skyward_operator.engine.clock import timestamp

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from skyward.contract.pool import ComputePool
    from skyward.contract.pool_status import OfferTried
    from skyward_operator.engine.clock import Clock
    from skyward_operator.providers.contract import Offer

MOST: Final = 32
"""As many as the status holds."""
TOGETHER_SECONDS: Final = 5.0
"""So long what is new waits for more, after the last that was shown."""
MESSAGE_CHARACTERS: Final = 500
LAUNCHED: Final = "Launched"

type EntryKey = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One offer (or a whole candidate, without an instance type), and how asking for it ended."""

    candidate: str
    provider: str
    outcome: str
    message: str
    time: datetime
    region: str = ""
    instance_type: str = ""
    market: str = ""
    hourly_price: Decimal | None = None
    count: int = 1
    retry: datetime | None = None
    """When it may be asked for again."""

    @property
    def key(self) -> EntryKey:
        """What is counted together."""
        return (
            self.candidate,
            self.provider,
            self.region,
            self.instance_type,
            self.market,
            self.outcome,
        )

    def document(self) -> dict[str, Any]:
        """As the status has it."""
        fields = {
            "candidate": self.candidate,
            "provider": self.provider,
            "region": self.region,
            "instanceType": self.instance_type,
            "market": self.market,
            "hourlyPrice": f"{self.hourly_price:f}" if self.hourly_price is not None else "",
            "outcome": self.outcome,
            "message": clip(self.message, MESSAGE_CHARACTERS),
            "time": timestamp(self.time),
            "retryTime": timestamp(self.retry) if self.retry else "",
        }
        return {name: value for name, value in fields.items() if value} | {"count": self.count}


@dataclass(slots=True)
class _Record:
    entries: dict[EntryKey, Entry] = field(default_factory=dict)
    waiting: dict[str, datetime] = field(default_factory=dict)
    """By node that has nothing to ask for: when there is something again."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    shown_at: float = float("-inf")
    is_read: bool = False
    """Whether what the status held at the start of this process is in it."""


class Tried:
    """The records of all pools, by uid."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def note(self, pool: str, entry: Entry, *, again: bool = True) -> None:
        """Keep that something was asked for; with `again` false it was not, and only the state is told."""
        entries = self._records.setdefault(pool, _Record()).entries
        before = entries.get(entry.key)
        if before is None:
            if not again and len(entries) >= MOST:
                return  # what was really asked for is worth more
            entries[entry.key] = entry
        elif again:
            entries[entry.key] = replace(entry, count=before.count + 1)
        elif entry.retry is not None and (before.retry is None or entry.retry > before.retry):
            entries[entry.key] = replace(before, retry=entry.retry)
        while len(entries) > MOST:
            del entries[min(entries, key=lambda each: entries[each].time)]

    def waits(self, pool: str, node: str, until: datetime | None) -> None:
        """A node has nothing to ask for until then; None: it has."""
        if until is not None:
            self._records.setdefault(pool, _Record()).waiting[node] = until
        elif (record := self._records.get(pool)) is not None:
            record.waiting.pop(node, None)

    def next_try(self, pool: str) -> datetime | None:
        """When the next of the pool's nodes that wait asks again; None where none waits."""
        record = self._records.get(pool)
        return min(record.waiting.values()) if record is not None and record.waiting else None

    def has_launched(self, pool: str) -> bool:
        """Whether a machine was made for this pool, as far as that is kept."""
        record = self._records.get(pool)
        return record is not None and any(each.outcome == LAUNCHED for each in record.entries.values())

    def shown(self, pool: ComputePool) -> list[dict[str, Any]]:
        """What the pool's status says, newest first."""
        record = self._records.setdefault(pool.metadata.uid or "", _Record())
        if not record.is_read:
            record.is_read = True
            for kept in pool.status.offers_tried:
                entry = read(kept)
                if entry is not None:
                    record.entries.setdefault(entry.key, entry)
        if self._clock.monotonic() - record.shown_at >= TOGETHER_SECONDS:
            newest = sorted(record.entries.values(), key=lambda each: (each.time, each.key), reverse=True)
            documents = [entry.document() for entry in newest[:MOST]]
            if documents != record.shown:
                record.shown, record.shown_at = documents, self._clock.monotonic()
        return record.shown

    def again(self, pool: str) -> float | None:
        """Seconds after which there is more to show; None where all is shown."""
        record = self._records.get(pool)
        if record is None or len(record.entries) == len(record.shown) == 0:
            return None
        due = record.shown_at + TOGETHER_SECONDS - self._clock.monotonic()
        return max(0.0, due) if due > 0 else None

    def forget(self, pool: str) -> None:
        """The pool is gone."""
        self._records.pop(pool, None)


def of_offer(
    candidate: str, offer: Offer, outcome: str, message: str, time: datetime, retry: datetime | None = None
) -> Entry:
    """What became of asking for an offer."""
    return Entry(
        candidate=candidate,
        provider=offer.provider,
        outcome=outcome,
        message=message,
        time=time,
        region=offer.region,
        instance_type=offer.instance_type,
        market=offer.market,
        hourly_price=offer.hourly_price,
        retry=retry,
    )


def read(kept: OfferTried) -> Entry | None:
    """An entry from a status; None for one that says nothing."""
    if kept.outcome is None or kept.time is None:
        return None
    return Entry(
        candidate=kept.candidate or "",
        provider=kept.provider or "",
        outcome=kept.outcome,
        message=kept.message or "",
        time=kept.time,
        region=kept.region or "",
        instance_type=kept.instance_type or "",
        market=kept.market or "",
        hourly_price=kept.hourly_price,
        count=kept.count or 1,
        retry=kept.retry_time,
    )
