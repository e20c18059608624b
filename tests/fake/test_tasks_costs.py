"""What tasks cost, and what becomes of one whose budget is used up."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import until
from tests.fake.test_tasks_dispatch import STOPPED, World

from skyward.contract.names import NODE
from skyward_operator.tasks import costs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fake.cluster_fakes import FakeNode


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        await made.pool()
        yield made


async def priced(world: World, hourly: str, slots: int = 1) -> FakeNode:
    """A node that costs so much."""
    node = world.node(slots=slots)
    metadata = {"namespace": "default", "name": node.name}
    status = {"phase": "Ready", "slots": slots, "billing": {"hourlyPrice": hourly}}
    spec = {"poolRef": {"name": "pool", "uid": "u"}}
    await world.api.create(NODE, {"metadata": metadata, "spec": spec, "status": status})
    return node


async def test_a_call_costs_its_slots_share_of_the_node_for_as_long_as_it_took(world: World) -> None:
    node = await priced(world, "7.20", slots=2)
    await world.task(count=3)
    for seconds in (10.0, 20.0, 30.0):
        await until(node.waiting)
        node.finish(node.waiting()[0], duration=seconds)
    assert Decimal((await world.ends())["cost"]["total"]) == Decimal("0.06")


async def test_local_nodes_cost_nothing(world: World) -> None:
    node = await priced(world, "0")
    await world.task()
    node.finish(duration=10.0)
    assert Decimal((await world.ends())["cost"]["total"]) == 0


async def test_a_task_whose_budget_is_used_up_is_stopped_and_says_what_it_cost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "LOOK_SECONDS", 0.05)
    node = await priced(world, "3600")
    await world.task(count=3, budget={"maxTotal": "10"}, timeouts={"graceSeconds": 1})
    node.finish(node.waiting()[0], duration=8.0)
    await until(node.waiting)
    header = {"attempt": node.waiting()[0], "pid": 1, "worker": 0, "time": time.time() - 2}
    world.fleet.listener.started("default", node.name, header)
    await until(lambda: node.cancelled)
    node.finish(error=STOPPED)
    status = await world.ends()
    assert (status["phase"], status["reason"]) == ("Failed", "BudgetExceeded")
    assert status["message"].startswith("spec.budget.maxTotal is $10: its calls have cost $")
    assert "Raise the budget" in status["message"]


async def test_a_task_with_money_left_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "LOOK_SECONDS", 0.01)
    node = await priced(world, "3600")
    await world.task(count=2, budget={"maxTotal": "1000"})
    for _ in range(2):
        await until(node.waiting)
        node.finish(node.waiting()[0], duration=8.0)
    status = await world.ends()
    assert (status["phase"], Decimal(status["cost"]["total"])) == ("Succeeded", Decimal(16))


async def test_a_restart_goes_on_from_what_was_written(world: World) -> None:
    node = await priced(world, "3600")
    await world.task(count=2)
    node.finish(node.waiting()[0], duration=8.0)
    await until(lambda: world.api.status("task").get("cost"))
    await until(node.waiting)
    await world.restart(node)
    node.up()
    node.finish(node.waiting()[0], duration=4.0)
    assert Decimal((await world.ends())["cost"]["total"]) == 12
