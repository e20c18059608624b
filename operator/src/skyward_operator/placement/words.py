"""Offers and refusals in words. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from skyward_operator.placement.ordering import key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.nodes.observation import Refusal
    from skyward_operator.providers.contract import Offer

SHOWN: Final = 4
"""Refusals that a message tells one by one."""


def words(offer: Offer) -> str:
    """An offer in words."""
    return f"{offer.instance_type} {offer.market} in {offer.region}"


def price_words(offer: Offer) -> str:
    """A price in words."""
    return "an unknown price" if offer.hourly_price is None else f"${offer.hourly_price:f}/h"


def too_dear(candidate: Candidate, offers: Iterable[Offer]) -> str:
    """Words for a price cap that is below every offer."""
    known = [(offer.hourly_price, key(offer), offer) for offer in offers if offer.hourly_price is not None]
    if not known:
        return f"candidate {candidate.name}: the provider tells no price, and maxHourlyPrice is set"
    _, _, cheapest = min(known)
    return (
        f"candidate {candidate.name}: the cheapest offer is {words(cheapest)} at {price_words(cheapest)}, "
        f"more than maxHourlyPrice ${candidate.max_hourly_price:f}/h"
    )


def summary(refusals: Sequence[Refusal]) -> str:
    """Several refusals in one message: the same ones once, and no more than a person reads."""
    told = list(Counter(refusal.message for refusal in refusals if refusal.message))
    more = len(told) - SHOWN
    return "; ".join(told[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
