"""Who sells what to a node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward_operator.nodes.book import Account

if TYPE_CHECKING:
    from skyward.contract.hardware import Candidate
    from skyward.contract.node import ComputeNode
    from skyward_operator.providers.contract import Offer


@dataclass(frozen=True, slots=True)
class Seller:
    """The candidate that an offer answers, and its account."""

    candidate: Candidate
    account: Account


def seller_of(node: ComputeNode, offer: Offer) -> Seller:
    """Who made this offer: the candidate that it answers, never another one of the node."""
    candidate = next((each for each in node.spec.candidates if each.name == offer.candidate), None)
    if candidate is None or candidate.provider != offer.provider:
        raise RuntimeError(
            f"node {node.metadata.name} has no candidate {offer.candidate} of {offer.provider}"
        )
    return Seller(candidate, Account.of(node.metadata.namespace or "", candidate))
