"""Which offer is bought first."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.contract.hardware import Candidate
from skyward_operator.placement.ordering import Standing, allowed, in_order
from skyward_operator.providers.contract import Offer


def offer(price: str | None, market: str = "on-demand", candidate: str = "a", region: str = "r") -> Offer:
    """An offer at a price."""
    cost = Decimal(price) if price is not None else None
    return Offer("p", region, "t", market, cost, cost, candidate=candidate)


def candidate(name: str = "a", **fields: Any) -> Candidate:
    """A candidate."""
    return Candidate(name=name, provider="p", **fields)


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


# `available`


def standing(**seen: Standing) -> Any:
    """What was seen of the offers of these regions."""
    return lambda each: seen.get(each.region, Standing())


def test_available_takes_what_was_not_refused_of_late_before_what_is_cheaper() -> None:
    refused, dearer = offer("1", region="east"), offer("2", region="west")
    order = in_order([refused, dearer], [candidate()], "available", standing(east=Standing(strikes=1)))
    assert order == [dearer, refused]


def test_available_takes_what_started_sooner_and_the_cheaper_of_equally_fast_ones() -> None:
    slow, fast, faster = offer("1", region="slow"), offer("3", region="fast"), offer("2", region="faster")
    seen = standing(
        slow=Standing(start_seconds=600), fast=Standing(start_seconds=61), faster=Standing(start_seconds=80)
    )
    assert in_order([slow, fast, faster], [candidate()], "available", seen) == [faster, fast, slow]


def test_available_moves_to_on_demand_where_spot_was_refused_of_late() -> None:
    spot, on_demand = offer("1", "spot", region="east"), offer("3", region="west")
    seen = standing(east=Standing(strikes=2))
    assert in_order([spot, on_demand], [candidate()], "available", seen) == [on_demand, spot]
    assert in_order([spot, on_demand], [candidate()], "cheapest", seen) == [spot, on_demand]


OFFERS = st.lists(
    st.builds(
        offer,
        st.sampled_from([None, "1", "2", "3"]),
        st.sampled_from(["spot", "on-demand"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["east", "west", "north"]),
    ),
    unique=True,
)
CANDIDATES = [candidate("a"), candidate("b", market="cheapest"), candidate("c", market="spot")]


@given(OFFERS, st.sampled_from(["cheapest", "first", "available"]), st.randoms())
def test_the_order_does_not_depend_on_how_a_provider_lists_its_offers(
    offers: list[Offer], selection: str, chance: Any
) -> None:
    seen = standing(east=Standing(strikes=1), west=Standing(start_seconds=20))
    shuffled = list(offers)
    chance.shuffle(shuffled)
    ordered = in_order(offers, CANDIDATES, selection, seen)
    assert ordered == in_order(shuffled, CANDIDATES, selection, seen)
    assert sorted(map(repr, ordered)) == sorted(map(repr, offers))


@given(OFFERS)
def test_no_cheaper_offer_of_the_same_candidate_and_market_comes_later(offers: list[Offer]) -> None:
    ordered = in_order(offers, CANDIDATES, "cheapest")
    for earlier, later in itertools.pairwise(ordered):
        if (earlier.candidate, earlier.market) == (later.candidate, later.market):
            assert earlier.hourly_price is not None or later.hourly_price is None
            if earlier.hourly_price is not None and later.hourly_price is not None:
                assert earlier.hourly_price <= later.hourly_price
