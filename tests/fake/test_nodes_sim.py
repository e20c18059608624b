"""Nodes on machines of the simulated cloud: real SSH, and what clouds do to machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.fake.kube_server import eventually
from tests.fake.sim_nodes import sim_nodes

from skyward_operator.nodes import notices
from skyward_operator.providers.sim import provider


def fate(effect: str, **more: Any) -> dict[str, Any]:
    """What happens to the first machine."""
    return {"faults": [{"at": "vm", "effect": effect, "times": 1, **more}]}


@pytest.mark.parametrize("profile", ["full", "bare"])
async def test_a_node_becomes_ready_although_ssh_is_refused_for_a_while(profile: str) -> None:
    """With the host key that the cloud shows, or with the one that was seen first."""
    async with sim_nodes(profile, ssh=True, **fate("ssh-refused", seconds=2)) as nodes:
        nodes.add()
        async with nodes.operator():
            status = await nodes.reaches(phase="Ready")
            (machine,) = nodes.sim.service.cloud.state.live()
            assert status["hostKey"] == machine.host_key
        assert await nodes.settle() == []
        assert (nodes.sim.audit().alive, nodes.sim.audit().side) == ([], [])


async def test_a_machine_with_another_host_key_than_the_cloud_shows_is_given_back() -> None:
    async with sim_nodes(ssh=True, **fate("wrong-host-key")) as nodes:
        nodes.add()
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
            assert status["reason"] == "HostKeyMismatch"
            await eventually(lambda: nodes.sim.audit().alive == [], 20)


@pytest.mark.parametrize(("effect", "reason"), [("preempt", "Preempted"), ("vanish", "MachineLost")])
async def test_a_machine_that_is_taken_without_notice_is_told_as_what_it_is(effect: str, reason: str) -> None:
    async with sim_nodes(ssh=True, **fate(effect, seconds=600)) as nodes:
        nodes.add()
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Ready")
            await nodes.sim.staff("POST", "/clock", json={"seconds": 600})
            status = await nodes.reaches(phase="Failed")
            assert status["reason"] == reason
            await operator.listened(lost=1)
            assert operator.listener.lost == [("p-0", reason)]
            assert operator.listener.cordoned == []
            await eventually(lambda: "endTime" in nodes.status()["billing"], 20)
        assert nodes.sim.audit().alive == []


@pytest.mark.parametrize("heard", ["Machine", "Provider"])
async def test_an_announced_node_is_cordoned_and_given_back_when_nothing_is_left_on_it(
    heard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever says it first; the other one is deaf here."""
    if heard == "Machine":
        monkeypatch.setattr(notices, "EVERY", 3600.0)
    else:
        monkeypatch.setattr(provider, "METADATA", replace(provider.METADATA, path="/nothing"))
    async with sim_nodes(ssh=True) as nodes:
        nodes.add(market="spot")
        async with nodes.operator() as operator:
            operator.listener.has_calls.add("p-0")
            await nodes.reaches(phase="Ready")
            machine = await nodes.announce(600)
            status = await nodes.reaches(phase="Draining")
            assert (status["reason"], status["interruption"]["source"]) == ("Interrupted", heard)
            assert condition(status, "Interrupted") == "True"
            assert condition(status, "Ready") == "False"
            await eventually(lambda: operator.listener.cordoned == ["p-0"], 20)
            ready = operator.nodes.fleet.node("default", "p-0")
            assert ready is not None
            assert ready.draining
            assert nodes.sim.audit().alive == [machine]
            await eventually(lambda: "Interrupted" in nodes.events(), 20)
            assert nodes.events().count("Interrupted") == 1
            operator.listener.has_calls.clear()
            await nodes.reaches(phase="Gone")
        assert nodes.sim.audit().alive == []
        (gone,) = nodes.sim.events("gone")
        assert gone["cause"] == "terminated by its account"


async def test_an_announced_node_that_still_has_calls_is_lost_when_it_is_taken() -> None:
    async with sim_nodes(ssh=True) as nodes:
        nodes.add(market="spot")
        async with nodes.operator() as operator:
            operator.listener.has_calls.add("p-0")
            await nodes.reaches(phase="Ready")
            await nodes.announce(60)
            await nodes.reaches(phase="Draining")
            assert operator.listener.lost == []
            await nodes.sim.staff("POST", "/clock", json={"seconds": 60})
            await nodes.reaches(phase="Failed", reason="Interrupted")
            await operator.listened(lost=1)
            assert operator.listener.lost == [("p-0", "Interrupted")]
        assert await nodes.settle() == []
        assert nodes.sim.audit().alive == []


async def test_an_operator_that_is_killed_after_the_notice_goes_on_with_it() -> None:
    async with sim_nodes(ssh=True) as nodes:
        nodes.add(market="spot")
        async with nodes.operator() as first:
            first.listener.has_calls.add("p-0")
            await nodes.reaches(phase="Ready")
            await nodes.announce(600)
            said = await nodes.reaches(phase="Draining")
        async with nodes.operator() as second:
            second.listener.has_calls.add("p-0")
            await second.listened(ready=1)
            assert second.listener.ready[0].draining
            await eventually(lambda: second.listener.cordoned == ["p-0"], 20)
            assert nodes.status()["interruption"] == said["interruption"]
            second.listener.has_calls.clear()
            await nodes.reaches(phase="Gone")
        assert nodes.sim.audit().alive == []


async def test_a_machine_that_hangs_is_given_up_after_the_time_that_its_pool_says() -> None:
    async with sim_nodes(ssh=True) as nodes:
        nodes.pool(health={"unhealthyAfterSeconds": 10})
        nodes.add()
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Ready")
            (machine,) = nodes.sim.service.cloud.state.live()
            await nodes.sim.staff("POST", f"/instances/{machine.id}/hang")
            status = await nodes.reaches(phase="Failed", seconds=60)
            assert status["reason"] == "HeartbeatLost"
            silent = float(status["message"].split(" s:")[0].rsplit(" ", 1)[1])
            assert 10 <= silent < 45
            await operator.listened(lost=1)
        assert await nodes.settle() == []


async def test_nodes_that_all_hang_are_kept_and_say_why() -> None:
    async with sim_nodes(ssh=True) as nodes:
        nodes.pool(health={"unhealthyAfterSeconds": 10, "maxUnhealthyPercent": 50})
        for number in range(2):
            nodes.add(number)
        async with nodes.operator() as operator:
            for number in range(2):
                await nodes.reaches(number, phase="Ready")
            for machine in list(nodes.sim.service.cloud.state.live()):
                await nodes.sim.staff("POST", f"/instances/{machine.id}/hang")
            for number in range(2):
                status = await nodes.reaches(number, reason="Unhealthy", seconds=60)
                assert (status["phase"], condition(status, "Ready")) == ("Ready", "Unknown")
                assert "2 of 2 nodes are bad" in status["message"]
            assert operator.listener.lost == []
        assert await nodes.settle() == []


async def test_an_operator_that_is_cut_off_from_its_nodes_replaces_none_of_them() -> None:
    """Pools of one node each have no share to judge by: together they have."""
    async with sim_nodes(ssh=True) as nodes:
        for number in range(3):
            nodes.pool(f"p{number}", health={"unhealthyAfterSeconds": 10})
            nodes.add(number, pool=f"p{number}")
        async with nodes.operator() as operator:
            for number in range(3):
                await nodes.reaches(number, phase="Ready")
            for machine in list(nodes.sim.service.cloud.state.live()):
                await nodes.sim.staff("POST", f"/instances/{machine.id}/hang")
            for number in range(3):
                status = await nodes.reaches(number, reason="Unhealthy", seconds=60)
                assert "the operator that is cut off" in status["message"]
            assert operator.listener.lost == []
        assert await nodes.settle() == []


def condition(status: dict[str, Any], kind: str) -> str:
    """The status of one condition."""
    return next(str(each["status"]) for each in status["conditions"] if each["type"] == kind)
