"""Ten thousand tasks cancelled at once: each ends, those that ran are stopped, and others go on meanwhile."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import until
from tests.fake.test_tasks_dispatch import World

from skyward.contract.names import TASK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MANY = 10_000
SLOTS = 100


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        await made.pool()
        yield made


@pytest.mark.timeout(300)
async def test_ten_thousand_cancels_at_once_stop_what_runs_and_hold_up_nobody(world: World) -> None:
    node = world.node(slots=SLOTS)
    names = [f"task-{number}" for number in range(MANY)]
    for name in names:
        await world.task(name)
    assert len(node.calls) == SLOTS
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(world.api.patch(TASK, "default", name, {"spec": {"cancel": True}}))
    assert len(node.cancelled) == SLOTS
    assert len(node.calls) == SLOTS, "a cancelled task was handed out"
    # the slots are with their calls until those say that they stopped: the next one waits for no other
    await world.task("after")
    stopped = node.waiting()
    for attempt in stopped:
        node.finish(
            attempt, error={"type": "Cancelled", "message": "", "kind": "User", "reason": "Cancelled"}
        )
    assert len(node.calls) == SLOTS + 1
    node.finish(node.waiting()[0], body=b"value")
    await until(lambda: world.api.status("after").get("phase") == "Succeeded", 120)
    await until(lambda: all(world.api.status(name).get("phase") == "Cancelled" for name in names), 120)
    ticking.cancel()
    longest = max(later - earlier for earlier, later in pairwise(ticks))
    print(f"the event loop was held for {longest:.2f} s at most, {ticks[-1] - ticks[0]:.1f} s in all")
