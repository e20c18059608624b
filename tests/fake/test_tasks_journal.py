"""What an operator knows of its predecessor's attempts: a call runs again only where that is on record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import node_object, until
from tests.fake.test_tasks_dispatch import World

from skyward.contract.names import NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        await made.api.create(NODE, node_object("node-0", 0))
        await made.pool()
        yield made


async def test_operator_and_agent_that_die_together_leave_the_attempt_on_record(world: World) -> None:
    node = world.node()
    uid = await world.task()
    node.held.clear()
    node.boot_id = "boot-2"
    await world.restart(node)
    node.up()
    assert [header["attempt"] for header, _ in node.calls] == [f"{uid}.0.1", f"{uid}.0.2"]
    node.finish(body=b"value")
    attempts = (await world.ends())["attempts"]
    assert (attempts["total"], attempts["interrupted"]) == (2, 1)
    assert [(each["attempt"], each["cause"]) for each in attempts["recent"]] == [(1, "AgentRestarted")]


async def test_call_that_must_not_be_repeated_is_indeterminate_after_both_died(world: World) -> None:
    node = world.node()
    await world.task(retry={"onInterruption": 0})
    node.held.clear()
    node.boot_id = "boot-2"
    await world.restart(node)
    node.up()
    status = await world.ends()
    assert status["error"]["reason"] == "Indeterminate"
    assert len(node.calls) == 1


async def test_attempt_that_never_arrived_is_sent_again_under_its_name(world: World) -> None:
    node = world.node()
    uid = await world.task()
    node.held.clear()  # the frame went down with its operator; the agent lives
    await world.restart(node)
    node.up()
    assert [header["attempt"] for header, _ in node.calls] == [f"{uid}.0.1", f"{uid}.0.1"]
    node.finish(body=b"value")
    attempts = (await world.ends())["attempts"]
    assert (attempts["total"], attempts["interrupted"]) == (1, 0)


async def test_attempt_that_the_agent_holds_is_adopted(world: World) -> None:
    node = world.node()
    await world.task()
    await world.restart(node)
    node.up()
    assert len(node.calls) == 1
    node.finish(body=b"value")
    assert (await world.ends())["attempts"]["total"] == 1


async def test_attempt_on_a_node_that_is_gone_is_lost_and_goes_elsewhere(world: World) -> None:
    node = world.node()
    uid = await world.task()
    await world.restart()
    other = world.node(rank=1)
    assert not other.calls  # the first node may still answer
    await world.api.delete(NODE, "default", "node-0")
    await until(lambda: other.calls)
    assert other.calls[0][0]["attempt"] == f"{uid}.0.2"
    other.finish(body=b"value")
    attempts = (await world.ends())["attempts"]
    assert [(each["attempt"], each["node"]) for each in attempts["recent"]] == [(1, node.name)]


async def test_earlier_interruptions_stay_on_record_over_a_restart(world: World) -> None:
    node = world.node()
    uid = await world.task()
    node.held.clear()
    node.boot_id = "boot-2"
    node.up()
    await world.restart(node)
    node.up()
    node.finish(f"{uid}.0.2", body=b"value")
    attempts = (await world.ends())["attempts"]
    assert attempts["interrupted"] == 1
    assert [each["attempt"] for each in attempts["recent"]] == [1]


async def test_attempt_whose_result_was_acknowledged_and_lost_is_tried_again(world: World) -> None:
    node = world.node()
    uid = await world.task()
    header = {"attempt": f"{uid}.0.1", "ok": False, "refused": True, "reason": "Duplicate"}
    node.held.clear()
    world.fleet.listener.result("default", node.name, header | {"state": "acknowledged"}, b"")
    await until(lambda: len(node.calls) == 2)
    node.finish(f"{uid}.0.2", body=b"value")
    attempts = (await world.ends())["attempts"]
    assert [each["cause"] for each in attempts["recent"]] == ["ResultLost"]


async def test_torn_record_is_left_out_and_ended_tasks_are_forgotten(world: World) -> None:
    node = world.node()
    uid = await world.task()
    path = world.folder / "attempts"
    whole = path.read_text()
    assert uid in whole
    path.write_text(whole + whole[: len(whole) // 2])
    await world.restart(node)
    node.up()
    node.finish(body=b"value")
    assert (await world.ends())["attempts"]["total"] == 1
    await world.restart(node)
    assert path.read_text() == ""
