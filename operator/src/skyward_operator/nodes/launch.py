"""Under which token an offer is bought, and how a node records it. Pure."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from skyward_operator.placement.ordering import key
from skyward_operator.providers.contract import Offer

if TYPE_CHECKING:
    from skyward.contract.node import ComputeNode


def token(node_uid: str, attempt: int, offer: Offer) -> str:
    """The token of one attempt: 52 characters, since EC2 takes 64 at most.

    Attempt and offer are in it because a token asked for twice with other parameters is an error there.
    """
    identity = "/".join((node_uid, str(attempt), *key(offer))).encode()
    return base64.b32encode(hashlib.sha256(identity).digest()).decode().rstrip("=").lower()


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
