"""What a node buys at an unpleasant cloud: one machine, and none is forgotten. The ledger is the oracle."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.fake.kube_server import eventually
from tests.fake.sim_nodes import SimNodes, sim_nodes

from simcloud.scenario import Scenario
from skyward_operator.providers import http
from skyward_operator.providers.contract import TAG_NODE_UID


def fault(at: str, effect: str, **more: Any) -> dict[str, Any]:
    """One thing that goes wrong."""
    return {"at": at, "effect": effect, **more}


async def gives_all_back(nodes: SimNodes, bought: int) -> None:
    """After its deletion nothing is left, and so much was bought."""
    assert await nodes.settle() == []
    audit = nodes.sim.audit(TAG_NODE_UID)
    assert (audit.alive, audit.side, audit.bought) == ([], [], bought)


@pytest.mark.parametrize("profile", ["full", "bare"])
@pytest.mark.parametrize("effect", ["lose-answer", "lose-with-error"])
async def test_an_answer_that_is_lost_long_after_the_intent_buys_no_second_machine(
    profile: str, effect: str
) -> None:
    """How long a machine may be missing from a listing counts from the order, not from the intent."""
    late = [fault("create", "rate-limit", seconds=3, times=1), fault("create", effect, skip=1, times=1)]
    async with sim_nodes(profile, faults=late) as nodes:
        nodes.add()
        async with nodes.operator():
            await nodes.reaches(phase="Connecting")
        assert nodes.sim.audit(TAG_NODE_UID).at_once == []
        await gives_all_back(nodes, bought=1)


@pytest.mark.parametrize("profile", ["full", "bare"])
async def test_a_node_deleted_when_an_answer_was_just_lost_leaves_no_machine(profile: str) -> None:
    late = [
        fault("create", "rate-limit", seconds=3, times=1),
        fault("create", "lose-answer", skip=1, times=1),
        fault("list", "lag", seconds=1.5),
    ]
    async with sim_nodes(profile, faults=late) as nodes:
        nodes.add()
        async with nodes.operator() as operator:
            await eventually(lambda: nodes.sim.audit().bought == 1, 20)
            nodes.delete(operator, "p-0")
            assert await nodes.settle() == []
        assert nodes.sim.audit().alive == []


async def test_a_cloud_that_made_two_machines_for_one_order_gets_both_back() -> None:
    async with sim_nodes(faults=[fault("create", "duplicate", times=1)]) as nodes:
        nodes.add()
        async with nodes.operator():
            await nodes.reaches(phase="Connecting")
        await gives_all_back(nodes, bought=2)


async def test_a_refusal_after_a_lost_order_does_not_make_the_lost_one_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first order is still on its way when the second is refused; then it buys."""
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.5)
    slow = [
        fault("create", "slow", seconds=1.2, times=1),
        fault("create", "no-capacity", skip=1, times=1),
    ]
    async with sim_nodes(faults=slow) as nodes:
        nodes.add()
        async with nodes.operator():
            await nodes.reaches(phase="Connecting")
            # the slow one is written down when it is done
            await eventually(lambda: any("slow" in event["effects"] for event in nodes.sim.events("request")))
        assert nodes.sim.audit(TAG_NODE_UID).at_once == []
        await gives_all_back(nodes, bought=1)


async def test_an_order_repeated_with_another_key_finds_the_machine_of_the_first() -> None:
    """The pool's key was deleted and made anew while an answer was missing: the token is taken already."""
    # The outcome stays unknown until the script changes: the operator is ended while it is.
    silent = [fault("create", "lose-answer"), fault("list", "partial", fraction=1)]
    async with sim_nodes(faults=silent) as nodes:
        nodes.add()
        async with nodes.operator():
            await nodes.reaches(reason="UnknownOutcome")
        nodes.sim.service.cloud.follow(Scenario())
        nodes.kube.objects["/api/v1/namespaces/default/secrets"].clear()
        async with nodes.operator():
            await nodes.reaches(phase="Connecting")
        await gives_all_back(nodes, bought=1)


async def test_a_pause_that_the_cloud_asks_for_is_neither_counted_down_in_the_status_nor_used() -> None:
    async with sim_nodes(faults=[fault("create", "rate-limit", seconds=3, times=1)]) as nodes:
        nodes.add()
        async with nodes.operator():
            await nodes.reaches(reason="RateLimited")
            writes = nodes.kube.count("PATCH", "/status")
            asked = len(nodes.sim.events("request"))
            await nodes.reaches(phase="Connecting")
            # That it is ordered, what was bought, where it is; on a busy machine also when it was asked for.
            assert nodes.kube.count("PATCH", "/status") - writes <= 4
            after = [event["operation"] for event in nodes.sim.events("request")[asked:]]
            assert after.count("create") == 1


@pytest.mark.parametrize("skew", [-86_400, 86_400])
async def test_a_cloud_whose_clock_is_wrong_does_not_move_the_bill(skew: int) -> None:
    async with sim_nodes(clock_skew_seconds=skew) as nodes:
        nodes.add()
        async with nodes.operator():
            status = await nodes.reaches(phase="Connecting")
        began = datetime.fromisoformat(status["billing"]["startTime"])
        asked = datetime.fromisoformat(status["launch"]["requestTime"])
        assert 0 <= (began - asked).total_seconds() < 30


async def test_a_market_that_rose_above_the_cap_is_told_as_that() -> None:
    """The offer was below it, the order is not: nothing is bought."""
    async with sim_nodes() as nodes:
        nodes.add(price="0.05")
        asked = nodes.sim.service.cloud.market.admit

        def rise(account: Any, order: Any, kinds: Any) -> Any:
            for kind in ("c.small", "c.large"):
                for market in ("spot", "on-demand"):
                    nodes.sim.service.cloud.state.prices[kind, market] = Decimal(9)
            return asked(account, order, kinds)

        nodes.sim.service.cloud.market.admit = rise  # type: ignore[method-assign]
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
        assert status["reason"] == "PriceCapExceeded"
        assert nodes.sim.audit().bought == 0


@pytest.mark.parametrize(("effect", "reason"), [("vanish", "MachineLost"), ("preempt", "Preempted")])
async def test_a_machine_that_the_cloud_took_is_not_looked_for_for_ever(effect: str, reason: str) -> None:
    async with sim_nodes(faults=[fault("vm", effect, seconds=1)]) as nodes:
        nodes.add()
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
            assert status["reason"] == reason
            await eventually(lambda: "endTime" in nodes.status()["billing"], 20)
        await gives_all_back(nodes, bought=1)


async def test_a_boot_that_never_ends_is_given_up_and_given_back() -> None:
    async with sim_nodes(faults=[fault("vm", "boot-never-ends")]) as nodes:
        nodes.add(provisionSeconds=10)
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
            assert status["reason"] == "ProvisionTimeout"
            await eventually(lambda: nodes.sim.audit().alive == [], 20)
        await gives_all_back(nodes, bought=1)


async def test_a_machine_that_ignores_its_end_keeps_its_node_until_it_is_gone() -> None:
    async with sim_nodes(faults=[fault("vm", "terminate-ignored", seconds=3600)]) as nodes:
        nodes.add()
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Connecting")
            nodes.delete(operator, "p-0")
            await nodes.reaches(phase="Terminating")
            await eventually(
                lambda: any(event["operation"] == "terminate" for event in nodes.sim.events("request"))
            )
            assert nodes.status()["phase"] == "Terminating"
            await nodes.sim.staff("POST", "/clock", json={"seconds": 3601})
        await gives_all_back(nodes, bought=1)
