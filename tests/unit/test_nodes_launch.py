"""Under which token an offer is bought."""

from __future__ import annotations

from decimal import Decimal

from skyward_operator.nodes.launch import token
from skyward_operator.providers.contract import Offer


def offer(price: str, region: str = "r") -> Offer:
    """An offer at a price."""
    return Offer("p", region, "t", "on-demand", Decimal(price), Decimal(price), candidate="a")


def test_a_token_is_short_and_differs_by_node_attempt_and_offer() -> None:
    tokens = {
        token(uid, attempt, offer("1", region=region))
        for uid in ("u", "v")
        for attempt in (1, 2)
        for region in ("r", "s")
    }
    assert len(tokens) == 8
    assert all(len(each) <= 64 and each.isascii() and each.isalnum() for each in tokens)


def test_a_token_does_not_depend_on_the_price() -> None:
    assert token("u", 1, offer("1")) == token("u", 1, offer("2"))
