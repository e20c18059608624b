"""Which offer is bought, under which token."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from skyward.contract.hardware import Candidate
from skyward_operator.nodes.launch import allowed, in_order, token
from skyward_operator.providers.contract import Offer


def offer(price: str | None, market: str = "on-demand", candidate: str = "a", region: str = "r") -> Offer:
    """An offer at a price."""
    cost = Decimal(price) if price is not None else None
    return Offer("p", region, "t", market, cost, cost, candidate=candidate)


def candidate(name: str = "a", **fields: Any) -> Candidate:
    """A candidate."""
    return Candidate(name=name, provider="p", **fields)


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


@pytest.mark.parametrize(
    ("market", "offered", "expected"),
    [
        ("spot", "spot", True),
        ("spot", "on-demand", False),
        ("on-demand", "spot", False),
        ("spot-if-available", "on-demand", True),
        ("cheapest", "spot", True),
    ],
)
def test_an_offer_must_be_in_an_allowed_market(market: Any, offered: str, expected: bool) -> None:
    assert allowed(offer("1", offered), candidate(market=market)) is expected


@pytest.mark.parametrize(("price", "expected"), [("2", True), ("2.01", False), (None, False)])
def test_an_offer_must_be_within_the_price_cap(price: str | None, expected: bool) -> None:
    assert allowed(offer(price), candidate(max_hourly_price=Decimal(2))) is expected


def test_cheapest_compares_over_candidates_and_first_keeps_their_order() -> None:
    dear, cheap = offer("3", candidate="a"), offer("1", candidate="b")
    both = [candidate("a"), candidate("b")]
    assert in_order([dear, cheap], both, "cheapest") == [cheap, dear]
    assert in_order([dear, cheap], both, "first") == [dear, cheap]


def test_an_unknown_price_is_the_dearest() -> None:
    unknown, known = offer(None), offer("9")
    assert in_order([unknown, known], [candidate()], "cheapest") == [known, unknown]


def test_preferred_spot_comes_before_cheaper_on_demand() -> None:
    spot, on_demand = offer("2", "spot"), offer("1")
    assert in_order([on_demand, spot], [candidate()], "cheapest") == [spot, on_demand]
    cheapest = [candidate(market="cheapest")]
    assert in_order([on_demand, spot], cheapest, "cheapest") == [on_demand, spot]
