"""What was refused is left alone for a while: for how long, for whom, and what ends it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.observation import Refusal
from skyward_operator.placement.unavailable import FIRST_AND_LONGEST, REMEMBERED_SECONDS, Unavailable
from skyward_operator.providers.contract import Accelerator, Offer

ACCOUNT, OTHER = Account("p"), Account("p", "ns", "other")
SPOT = Offer("p", "east", "small", "spot", Decimal(1), Decimal(3), candidate="a")
H100 = replace(SPOT, instance_type="h100", accelerator=Accelerator("H100", Decimal(1)))
EIGHT = replace(SPOT, instance_type="h100-8", accelerator=Accelerator("H100", Decimal(8)))


def refusal(reason: NodeReason = NodeReason.INSUFFICIENT_CAPACITY) -> Refusal:
    """A refusal."""
    return Refusal(reason, str(reason), permanent=False)


def refused(offer: Offer | None, reason: NodeReason = NodeReason.INSUFFICIENT_CAPACITY) -> Unavailable:
    """A memory of one refusal at time 0."""
    memory = Unavailable()
    memory.refuse(ACCOUNT, offer, refusal(reason), 0.0)
    return memory


def test_an_offer_without_capacity_is_left_alone_for_three_minutes_and_no_other_one_is() -> None:
    memory = refused(SPOT)
    block = memory.block(ACCOUNT, SPOT, 179.0)
    assert block is not None
    assert (block.refusal.reason, block.until) == (NodeReason.INSUFFICIENT_CAPACITY, 180.0)
    assert memory.block(ACCOUNT, SPOT, 180.0) is None
    for other in (
        replace(SPOT, region="west"),
        replace(SPOT, instance_type="large"),
        replace(SPOT, market="on-demand"),
    ):
        assert memory.block(ACCOUNT, other, 1.0) is None
    assert memory.block(OTHER, SPOT, 1.0) is None
    assert memory.block(ACCOUNT, replace(SPOT, candidate="b", hourly_price=Decimal(9)), 1.0) is not None


def test_a_burst_of_refusals_counts_once_and_one_after_the_pause_doubles_it() -> None:
    memory = refused(SPOT)
    for number in range(100):
        memory.refuse(ACCOUNT, SPOT, refusal(), number / 100)
    assert memory.block(ACCOUNT, SPOT, 181.0) is None
    assert memory.refuse(ACCOUNT, SPOT, refusal(), 200.0) == 200.0 + 360.0
    assert memory.strikes(ACCOUNT, SPOT, 1000.0) == 2


def test_a_refusal_long_after_the_last_one_is_a_first_one() -> None:
    memory = refused(SPOT)
    later = 180.0 + REMEMBERED_SECONDS + 1
    assert memory.strikes(ACCOUNT, SPOT, later) == 0
    assert memory.refuse(ACCOUNT, SPOT, refusal(), later) == later + 180.0


def test_a_success_forgets() -> None:
    memory = refused(SPOT)
    memory.succeeded(ACCOUNT, SPOT)
    assert memory.block(ACCOUNT, SPOT, 1.0) is None
    assert memory.strikes(ACCOUNT, SPOT, 1.0) == 0


def test_a_quota_is_about_all_that_has_the_same_accelerator_in_that_region_and_market() -> None:
    memory = refused(H100, NodeReason.QUOTA_EXCEEDED)
    assert memory.block(ACCOUNT, EIGHT, 1.0) is not None
    assert memory.block(ACCOUNT, SPOT, 1.0) is None
    assert memory.block(ACCOUNT, replace(EIGHT, market="on-demand"), 1.0) is None
    assert memory.block(ACCOUNT, replace(EIGHT, region="west"), 1.0) is None


def test_a_machine_that_is_gone_frees_the_quotas_of_its_account_and_no_capacity() -> None:
    memory = refused(H100, NodeReason.QUOTA_EXCEEDED)
    memory.refuse(ACCOUNT, SPOT, refusal(), 0.0)
    memory.freed(OTHER)
    assert memory.block(ACCOUNT, EIGHT, 1.0) is not None
    memory.freed(ACCOUNT)
    assert memory.block(ACCOUNT, EIGHT, 1.0) is None
    assert memory.block(ACCOUNT, SPOT, 1.0) is not None


@pytest.mark.parametrize("reason", [NodeReason.INVALID_CREDENTIALS, NodeReason.PROVIDER_UNAVAILABLE])
def test_an_account_that_answers_nobody_is_left_alone_as_a_whole_until_it_answers(reason: NodeReason) -> None:
    memory = refused(SPOT, reason)
    assert memory.block(ACCOUNT, None, 1.0) is not None
    assert memory.block(ACCOUNT, EIGHT, 1.0) is not None
    memory.succeeded(ACCOUNT)
    assert memory.block(ACCOUNT, EIGHT, 1.0) is None


def test_a_provider_that_names_a_pause_gets_it() -> None:
    memory = Unavailable()
    memory.refuse(ACCOUNT, None, refusal(NodeReason.RATE_LIMITED), 0.0, seconds=17.0)
    assert memory.block(ACCOUNT, None, 16.0) is not None
    assert memory.block(ACCOUNT, None, 17.0) is None


def test_a_price_that_is_too_high_for_one_cap_is_none_for_a_higher_one() -> None:
    memory = Unavailable()
    memory.refuse(ACCOUNT, SPOT, refusal(NodeReason.PRICE_CAP_EXCEEDED), 0.0, cap=Decimal(2))
    assert memory.block(ACCOUNT, SPOT, 1.0, cap=Decimal(2)) is not None
    assert memory.block(ACCOUNT, SPOT, 1.0, cap=Decimal(1)) is not None
    assert memory.block(ACCOUNT, SPOT, 1.0, cap=Decimal(3)) is None
    assert memory.block(ACCOUNT, SPOT, 1.0) is None


def test_after_the_pause_one_node_tries_and_the_others_wait_for_what_comes_of_it() -> None:
    memory = refused(SPOT)
    memory.claim(ACCOUNT, SPOT, "first", 180.0)
    assert memory.block(ACCOUNT, SPOT, 181.0, who="first") is None
    assert memory.block(ACCOUNT, SPOT, 181.0, who="second") is not None
    memory.succeeded(ACCOUNT, SPOT)
    assert memory.block(ACCOUNT, SPOT, 182.0, who="second") is None


def test_a_node_that_tries_and_is_never_heard_of_again_holds_nobody_up_for_long() -> None:
    memory = refused(SPOT)
    memory.claim(ACCOUNT, SPOT, "deleted", 180.0)
    assert memory.block(ACCOUNT, SPOT, 271.0, who="second") is None


def test_nothing_is_claimed_where_nothing_was_refused() -> None:
    memory = Unavailable()
    memory.claim(ACCOUNT, SPOT, "first", 0.0)
    assert memory.block(ACCOUNT, SPOT, 0.0, who="second") is None
    assert len(memory) == 0


STEPS = st.lists(
    st.tuples(
        st.floats(0, 5000),
        st.sampled_from(["refuse", "succeed", "claim"]),
        st.sampled_from(list(FIRST_AND_LONGEST)),
    ),
    max_size=40,
)


@given(STEPS)
def test_nothing_is_left_alone_longer_than_the_longest_pause_whatever_happens(
    steps: list[tuple[float, str, NodeReason]],
) -> None:
    memory, now = Unavailable(), 0.0
    for after, what, reason in steps:
        now += after
        match what:
            case "refuse":
                until = memory.refuse(ACCOUNT, H100, refusal(reason), now)
                first, _ = FIRST_AND_LONGEST[reason]
                assert until >= now + first
                assert memory.block(ACCOUNT, H100, now) is not None
            case "succeed":
                memory.succeeded(ACCOUNT, H100)
                assert memory.block(ACCOUNT, H100, now) is None
            case _:
                memory.claim(ACCOUNT, H100, "node", now)
        longest = max(most for _, most in FIRST_AND_LONGEST.values())
        block = memory.block(ACCOUNT, H100, now, who="other")
        assert block is None or block.until - now <= longest
