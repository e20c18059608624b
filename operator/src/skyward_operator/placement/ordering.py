"""Which offer is bought first. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.contract import Offer

MARKETS = {
    "on-demand": ("on-demand",),
    "spot": ("spot",),
    "spot-if-available": ("spot", "on-demand"),
    "cheapest": ("spot", "on-demand"),
}
UNKNOWN_PRICE = Decimal("Infinity")
UNKNOWN_START_SECONDS = 180.0
"""What a machine that nobody has started yet is taken to need, where `available` compares."""
START_STEP_SECONDS = 30.0
"""Differences of starting times below this are chance, and the price decides."""

type OfferKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What this operator has seen of an offer: how often it was refused of late, and how long a machine of
    it took to take calls."""

    strikes: int = 0
    start_seconds: float | None = None


def key(offer: Offer) -> OfferKey:
    """What makes two offers the same one."""
    return offer.provider, offer.region, offer.instance_type, offer.market


def allowed(offer: Offer, candidate: Candidate) -> bool:
    """Whether an offer is in a market and below the price that its candidate allows."""
    return offer.market in MARKETS[candidate.market] and is_affordable(offer, candidate.max_hourly_price)


def is_affordable(offer: Offer, cap: Decimal | None) -> bool:
    """Whether an offer costs no more than a cap. A price that is not known is above every cap."""
    return cap is None or (offer.hourly_price is not None and offer.hourly_price <= cap)


def in_order(
    offers: Iterable[Offer],
    candidates: Sequence[Candidate],
    selection: str,
    standing: Callable[[Offer], Standing] = lambda _: Standing(),
) -> list[Offer]:
    """The offers, best first; equal ones in the order of their names, so that it is the same each time.

    `cheapest` compares prices over all candidates, `first` keeps the order of the candidates, `available`
    takes first what was not refused of late, then what started soonest. Within a candidate that prefers
    spot, spot comes first whatever it costs, but with `available` not when it was refused of late.
    """
    place = {candidate.name: number for number, candidate in enumerate(candidates)}
    markets = {candidate.name: candidate.market for candidate in candidates}

    def order(offer: Offer) -> tuple[float | Decimal | OfferKey, ...]:
        price = UNKNOWN_PRICE if offer.hourly_price is None else offer.hourly_price
        fallback = int(markets[offer.candidate] == "spot-if-available" and offer.market != "spot")
        within: tuple[float | Decimal | OfferKey, ...] = (price, place[offer.candidate], key(offer))
        match selection:
            case "cheapest":
                return (fallback, *within)
            case "available":
                seen = standing(offer)
                known = seen.start_seconds
                start = UNKNOWN_START_SECONDS if known is None else known
                return (
                    int(seen.strikes > 0),
                    fallback,
                    start // START_STEP_SECONDS,
                    place[offer.candidate],
                    *within,
                )
            case _:
                return place[offer.candidate], fallback, *within

    return sorted(offers, key=order)
