"""The longest lifetime of a pool's nodes, and what the pool says of their dead-man's switches."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.test_pools_decide import NOW, created, deleted, node, pool, seen

from skyward.contract.node_status import Launch
from skyward_operator.pools.decide import DeleteNode, decide
from skyward_operator.pools.observation import billed_when_off
from skyward_operator.pools.status import pool_status

if TYPE_CHECKING:
    from skyward_operator.pools.observation import NodeView


def aged(rank: int, seconds: float, **more: Any) -> NodeView:
    """A node whose machine was ordered so long ago."""
    return node(rank, born=NOW - timedelta(seconds=seconds), **more)


def test_a_node_is_released_when_its_time_is_up_whatever_it_runs() -> None:
    """Not when it is idle next: the limit is what somebody set against a bill."""
    made = pool(2, lifetime={"maxLifetimeSeconds": 3600})
    decision = decide(seen(made, aged(0, 3600), aged(1, 3599)), NOW)
    assert decision.actions == (DeleteNode("n0-0", "u0-0", if_idle=False),)
    assert decision.aged == ("n0-0",)
    assert decision.again == 1.0


def test_what_is_released_for_its_age_is_replaced() -> None:
    """Once it is on its way down; the pool still wants two."""
    made = pool(2, lifetime={"maxLifetimeSeconds": 3600})
    decision = decide(seen(made, aged(0, 3700, deleting=True), aged(1, 10)), NOW)
    assert created(decision) == [(0, 1)]
    assert decision.aged == ()


@pytest.mark.parametrize("lifetime", [{}, {"maxLifetimeSeconds": 0}])
def test_without_a_longest_lifetime_nodes_stay(lifetime: dict[str, int]) -> None:
    """0 means never, as it says."""
    decision = decide(seen(pool(1, lifetime=lifetime), aged(0, 10**9)), NOW)
    assert (deleted(decision), decision.aged) == ([], ())


def switch(made: Any, *nodes: NodeView) -> dict[str, Any]:
    """The condition about the switch."""
    observed = seen(made, *nodes)
    conditions = pool_status(observed, decide(observed, NOW), NOW)["conditions"]
    return next(each for each in conditions if each["type"] == "DeadManSwitch")


def test_a_pool_says_what_ends_its_machines_without_an_operator() -> None:
    """Armed; turned off; and where powering off does not end the bill, what protects then."""
    armed = switch(pool(1), node(0))
    assert (armed["status"], armed["reason"]) == ("True", "SwitchSet")
    assert "after 600 s" in armed["message"]
    off = switch(pool(1, lifetime={"ttlSeconds": 0}), node(0))
    assert (off["status"], off["reason"]) == ("False", "SwitchOff")
    billed = switch(pool(2), node(0), node(1, billed_when_off="vast"))
    assert (billed["status"], billed["reason"]) == ("False", "PowerOffBilled")
    assert "machines at vast are billed until the operator ends them" in billed["message"]
    assert "sweep" in billed["message"]


@pytest.mark.parametrize(
    ("ends", "says"), [(True, ""), (None, ""), (False, "vast")], ids=["ends", "unknown", "does not end"]
)
def test_only_a_provider_that_said_so_is_named(ends: bool | None, says: str) -> None:
    """An intent of an earlier version says nothing."""
    launch = Launch.read({"offer": {"provider": "vast"}, "powerOffEndsBilling": ends})
    assert billed_when_off(launch) == says
