"""Nodes on machines of the simulated cloud: real SSH, and what clouds do to machines."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fake.kube_server import eventually
from tests.fake.sim_nodes import sim_nodes


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


@pytest.mark.parametrize("how", ["interrupt", "vanish"])
async def test_a_ready_node_whose_machine_is_taken_is_told_as_lost(how: str) -> None:
    async with sim_nodes(ssh=True) as nodes:
        nodes.add()
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Ready")
            (machine,) = nodes.sim.service.cloud.state.live()
            await nodes.sim.staff("POST", f"/instances/{machine.id}/{how}", json={})
            status = await nodes.reaches(phase="Failed")
            assert status["reason"] == "MachineLost"
            await operator.listened(lost=1)
            assert operator.listener.lost == [("p-0", "MachineLost")]
            await eventually(lambda: "endTime" in nodes.status()["billing"], 20)
        assert nodes.sim.audit().alive == []
