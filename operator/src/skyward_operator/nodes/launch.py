"""Which offer is bought, and under which token. Pure."""

from __future__ import annotations

import base64
import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.contract import Offer

MARKETS = {
    "on-demand": ("on-demand",),
    "spot": ("spot",),
    "spot-if-available": ("spot", "on-demand"),
    "cheapest": ("spot", "on-demand"),
}
UNKNOWN_PRICE = Decimal("Infinity")

type OfferKey = tuple[str, str, str, str]


def token(node_uid: str, attempt: int, offer: Offer) -> str:
    """The token of one attempt: 52 characters, since EC2 takes 64 at most.

    Attempt and offer are in it because a token asked for twice with other parameters is an error there.
    """
    identity = "/".join((node_uid, str(attempt), *key(offer))).encode()
    return base64.b32encode(hashlib.sha256(identity).digest()).decode().rstrip("=").lower()


def key(offer: Offer) -> OfferKey:
    """What makes two offers the same one, so that a refused one is not asked for again."""
    return offer.provider, offer.region, offer.instance_type, offer.market


def allowed(offer: Offer, candidate: Candidate) -> bool:
    """Whether an offer is in a market and below the price that its candidate allows."""
    if offer.market not in MARKETS[candidate.market]:
        return False
    cap = candidate.max_hourly_price
    return cap is None or (offer.hourly_price is not None and offer.hourly_price <= cap)


def in_order(offers: Iterable[Offer], candidates: Sequence[Candidate], selection: str) -> list[Offer]:
    """The offers, best first.

    `cheapest` compares prices over all candidates, `first` and `available` keep the order of the
    candidates. Within a candidate that prefers spot, spot comes first whatever it costs.
    """
    place = {candidate.name: number for number, candidate in enumerate(candidates)}
    markets = {candidate.name: candidate.market for candidate in candidates}

    def order(offer: Offer) -> tuple[int, int, Decimal, int]:
        price = UNKNOWN_PRICE if offer.hourly_price is None else offer.hourly_price
        prefers_spot = markets[offer.candidate] == "spot-if-available"
        fallback = int(prefers_spot and offer.market != "spot")
        return (
            0 if selection == "cheapest" else place[offer.candidate],
            fallback,
            price,
            place[offer.candidate],
        )

    return sorted(offers, key=order)
