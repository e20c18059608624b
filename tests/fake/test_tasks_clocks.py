"""Clocks that are an hour apart: time-outs, durations and times of tasks stay sane."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.cluster_fakes import until
from tests.fake.test_tasks_dispatch import World

from skyward.contract.names import TASK
from skyward_operator.engine.clock import timestamp
from skyward_operator.tasks import decide

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOUR = 3600.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        await made.pool()
        yield made


async def dated(world: World, seconds: float, **spec: Any) -> None:
    """A task whose creation the API server dates so far from now."""
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    metadata = {"namespace": "default", "name": "task", "creationTimestamp": timestamp(when)}
    body = {"poolRef": {"name": "pool"}, "command": {"argv": ["true"]}} | spec
    await world.api.create(TASK, {"metadata": metadata, "spec": body})


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
async def test_new_task_has_its_whole_queue_timeout_whatever_the_api_servers_clock_says(
    world: World, seconds: float
) -> None:
    await dated(world, seconds, timeouts={"queueSeconds": 60})
    await until(lambda: world.api.status("task").get("phase"))
    node = world.node()
    assert len(node.calls) == 1, world.api.status("task")


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
async def test_new_task_waits_for_its_payload_whatever_the_api_servers_clock_says(
    world: World, seconds: float
) -> None:
    calls = {"python": "3.13", "count": 1, "blob": {"digest": "a" * 64, "sizeBytes": 10}}
    await dated(world, seconds, command=None, calls=calls)
    assert (await world.says("AwaitingPayload"))["phase"] != "Failed"


@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
async def test_times_of_a_task_are_the_operators_whatever_its_nodes_clock_says(
    world: World, ahead: float
) -> None:
    began = time.time()
    nodes = [world.node(0), world.node(1)]
    await world.task(count=2)
    await until(lambda: all(node.calls for node in nodes))
    header = {"attempt": nodes[0].waiting()[0], "pid": 1, "worker": 0, "time": time.time() + ahead}
    world.fleet.listener.started("default", nodes[0].name, header)
    nodes[0].finish(started=time.time() + ahead, duration=0.01)
    nodes[1].finish(started=time.time(), duration=0.01)
    status = await world.ends()
    assert float(status["display"]["duration"].removesuffix("s")) < 10
    started = datetime.fromisoformat(status["startTime"]).timestamp()
    assert began - 1 <= started <= time.time() + 1
    for outcome in world.outcomes(status).values():
        assert began - 1 <= outcome.started <= time.time()


def test_call_is_placed_between_its_sending_and_the_word_of_its_end() -> None:
    assert decide.placed(said=105, duration=3, sent=100, now=110) == 105
    assert decide.placed(said=105 - HOUR, duration=3, sent=100, now=110) == 100
    assert decide.placed(said=105 + HOUR, duration=3, sent=100, now=110) == 107
    # sent before this operator lived, as far as it knows
    assert decide.placed(said=105, duration=8, sent=109, now=110) == 102
