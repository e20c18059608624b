"""Checks of nodes as their pool asks for them: real machines, real agents, a pool that changes its mind."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from tests.fake.kube_server import eventually
from tests.fake.nodes_plane import POOLS, plane

from skyward.contract.names import POOL
from skyward.wire.codec import dumps_function

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fake.nodes_plane import Operator, Plane


def pool(world: Plane, operator: Operator | None = None, **health: Any) -> None:
    """The pool of the nodes, with this health."""
    obj = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"health": health}}
    fresh = world.kube.put(POOLS, obj)
    if operator is not None:
        operator.context.store.put(POOL, fresh)


def probe(path: Path) -> dict[str, Any]:
    """A node is well while this file is there."""
    command = ["test", "-e", str(path)]
    return {"command": command, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 1}


def checker(path: Path) -> dict[str, Any]:
    """The same by a function."""
    place = str(path)

    def is_there() -> bool:
        import os

        return os.path.exists(place)

    text = base64.b64encode(dumps_function(is_there)).decode()
    return {"function": text, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 2}


async def test_an_ill_node_leaves_and_says_what_its_check_said(tmp_path: Path) -> None:
    well = tmp_path / "well"
    well.touch()
    async with plane() as world:
        pool(world, checker=checker(well))
        world.node()
        async with world.operator() as operator:
            operator.listener.has_calls.add("p-0-a")
            await world.phase("Ready")
            well.unlink()
            status = await world.phase("Draining")
            assert status["reason"] == "Unhealthy"
            assert "the health check returned a false value" in status["message"]
            await eventually(lambda: operator.listener.cordoned == ["p-0-a"])
            operator.listener.has_calls.clear()
            await world.phase("Gone")
            assert await world.machines() == []


async def test_a_change_of_the_pool_reaches_nodes_that_are_there(tmp_path: Path) -> None:
    async with plane() as world:
        world.node()
        async with world.operator() as operator:
            await world.phase("Ready")
            session = operator.nodes.fleet.session(("default", "p-0-a"))
            assert session is not None
            pool(world, operator)
            pool(world, operator, probe=probe(tmp_path), maxUnhealthyPercent=0)
            await eventually(lambda: session.view.watch != "", 20)
            pool(world, operator, maxUnhealthyPercent=0)
            await eventually(lambda: session.view.watch == "", 20)
            pool(world, operator, probe=probe(tmp_path / "missing"), maxUnhealthyPercent=0)
            await eventually(lambda: world.status()["reason"] == "Unhealthy", 20)
            assert "health.maxUnhealthyPercent" in world.status()["message"]
            assert operator.listener.cordoned == []
            pool(world, operator, probe=probe(tmp_path), maxUnhealthyPercent=0)
            await eventually(lambda: world.status()["reason"] == "AgentReady", 20)


async def test_a_restarted_operator_learns_of_an_illness(tmp_path: Path) -> None:
    async with plane() as world:
        pool(world, probe=probe(tmp_path / "missing"), maxUnhealthyPercent=0)
        world.node()
        async with world.operator():
            await world.phase("Ready")
            await eventually(lambda: world.status()["reason"] == "Unhealthy", 20)
        pool(world, probe=probe(tmp_path / "missing"))
        async with world.operator() as second:
            status = await world.phase("Gone")
            assert status["reason"] == "Terminated"
            assert second.listener.lost == [("p-0-a", "Unhealthy")]
