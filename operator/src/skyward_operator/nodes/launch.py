"""Which offer is bought, under which token, and how a node records it. Pure."""

from __future__ import annotations

import base64
import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.contract import Offer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from skyward.contract.hardware import Candidate
    from skyward.contract.node import ComputeNode

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


def offer_document(offer: Offer) -> dict[str, Any]:
    """An offer as the status keeps it."""
    return {
        "provider": offer.provider,
        "region": offer.region,
        "instanceType": offer.instance_type,
        "market": offer.market,
        "hourlyPrice": f"{offer.hourly_price:f}" if offer.hourly_price is not None else None,
        "onDemandPrice": f"{offer.on_demand_price:f}" if offer.on_demand_price is not None else None,
    }


def recorded_offer(node: ComputeNode) -> Offer:
    """The offer of the recorded intent."""
    launch = node.status.launch
    kept = launch.offer if launch else None
    if launch is None or kept is None:
        raise RuntimeError(f"node {node.metadata.name} has no recorded offer")
    return Offer(
        provider=kept.provider or "",
        region=kept.region or "",
        instance_type=kept.instance_type or "",
        market=kept.market or "",
        hourly_price=kept.hourly_price,
        on_demand_price=kept.on_demand_price,
        candidate=launch.candidate or "",
    )
