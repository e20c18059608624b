"""What pools hear of calls: how many there are, where they are, and that an idle node gets none any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import node_object, until
from tests.fake.test_tasks_dispatch import World

from skyward.contract.names import NODE, TASK
from skyward_operator.kube.errors import Unavailable
from skyward_operator.tasks import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        await made.pool()
        yield made


def demand(world: World) -> Workload:
    found = world.tasks.demand("default", "pool")
    assert found is not None
    return found


async def test_calls_count_where_they_are(world: World) -> None:
    assert demand(world) == Workload()
    await world.task(count=3)
    assert demand(world) == Workload(queued=3, tasks=1)
    node = world.node(slots=2)
    assert demand(world) == Workload(1, 2, busy=frozenset({node.name}), tasks=1)


async def test_a_limit_of_calls_at_a_time_limits_what_they_could_use(world: World) -> None:
    await world.task(count=100, parallelism=3)
    assert demand(world).queued == 3
    world.node(slots=2)
    assert (demand(world).queued, demand(world).running) == (1, 2)


async def test_calls_bound_to_a_rank_are_told_apart(world: World) -> None:
    await world.task("first", target={"mode": "Head"})
    world.node(rank=0)
    await world.task("second", target={"mode": "Head"})
    assert demand(world) == Workload(bound={0: 2}, busy=frozenset({"node-0"}), tasks=2)


async def test_a_task_that_ends_or_waits_on_purpose_wants_nothing(world: World) -> None:
    await world.task("waits", count=5, suspend=True)
    assert demand(world) == Workload(tasks=1)
    node = world.node()
    await world.task("ends", count=5)
    await world.api.patch(TASK, "default", "ends", {"spec": {"cancel": True}})
    # its call on the node has its grace, and the four that wait will never run
    assert demand(world) == Workload(running=1, busy=frozenset({node.name}), tasks=2)


async def test_a_node_whose_result_is_not_durable_is_busy(world: World) -> None:
    node = world.node()
    await world.task()
    world.api.failures += [Unavailable("away")] * 3
    node.finish(body=b"value")
    assert demand(world) == Workload(busy=frozenset({node.name}), tasks=1)
    assert not world.tasks.retire("default", "pool", node.name)
    await world.ends()
    await until(lambda: demand(world) == Workload())


async def test_a_node_that_retires_gets_no_call_and_takes_them_again_when_it_stays(world: World) -> None:
    node = world.node()
    assert world.tasks.retire("default", "pool", node.name)
    await world.task()
    assert (node.calls, demand(world).queued) == ([], 1)
    world.tasks.reinstate("default", "pool", node.name)
    assert len(node.calls) == 1


async def test_a_node_with_a_call_does_not_retire(world: World) -> None:
    node = world.node(slots=2)
    await world.task("first")
    assert not world.tasks.retire("default", "pool", node.name)
    await world.task("second")
    assert len(node.calls) == 2


async def test_a_node_that_does_not_answer_is_not_reinstated(world: World) -> None:
    """What cannot be sent now is sent when it answers."""
    node = world.node()
    assert world.tasks.retire("default", "pool", node.name)
    node.down()
    world.tasks.reinstate("default", "pool", node.name)
    await world.task()
    assert node.calls == []
    node.up()
    assert len(node.calls) == 1


async def test_nodes_that_an_operator_has_not_heard_of_since_its_start_are_busy(world: World) -> None:
    node = world.node()
    await world.api.create(NODE, node_object(node.name, 0))
    await world.restart(node)
    assert demand(world).busy == {node.name}
    assert not world.tasks.retire("default", "pool", node.name)
    node.up()
    assert world.tasks.retire("default", "pool", node.name)


async def test_before_the_tasks_are_known_nothing_is_said(world: World) -> None:
    world.tasks.caught_up.clear()
    assert world.tasks.demand("default", "pool") is None
    assert not world.tasks.retire("default", "pool", "any")
