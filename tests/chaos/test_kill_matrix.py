"""Each step of a machine's life, and each thing that can be killed at it. One case for each cell.

A step is recognised by what was written last: on the node, in the cloud's ledger, at the agent. The fault
comes as soon as it is seen. Then the path goes on: the first task ends, the second one ends on a node that
drains, and the machine is given back. Nothing but a lost machine may have a call repeated or a second machine
bought.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.chaos.paper_world import TASKS, paper_world
from tests.fake.nodes_plane import NODES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.chaos.paper_world import World

CALM: Final = {"terminate_seconds": 0.2}
"""A machine takes a moment to end, so that there is time in which it does."""


def _says(world: World, **fields: str) -> bool:
    return any(fields.items() <= state.items() for state in world.states())


def _has(world: World, field_name: str) -> bool:
    return any(state.get(field_name) for state in world.states())


def _alive(world: World, *, stopping: bool = False) -> bool:
    return any((each.stopping is not None) is stopping for each in world.sim.service.cloud.state.live())


def _is_deleted(world: World) -> bool:
    return any("deletionTimestamp" in each["metadata"] for each in world.objects(NODES).values())


def _runs(world: World) -> bool:
    return any(each.runs for each in world.crowd.witnesses())


def _keeps(world: World) -> bool:
    return any(each.keeps for each in world.crowd.witnesses())


def _ended(world: World, name: str) -> bool:
    return bool((world.objects(TASKS)[name].get("status") or {}).get("phase") == "Succeeded")


STEPS: Final[Mapping[str, Callable[[World], bool]]] = {
    # create
    "the node is made": lambda w: bool(w.objects(NODES)) and not _has(w, "phase"),
    "the intent is recorded": lambda w: _says(w, reason="IntentRecorded") and not _alive(w),
    "the machine is bought": lambda w: _alive(w) and not _has(w, "providerId"),
    "the machine is recorded": lambda w: _has(w, "providerId") and not _has(w, "address"),
    # bootstrap
    "the address is recorded": lambda w: _has(w, "address") and not w.crowd.agents,
    "the agent is there": lambda w: bool(w.crowd.agents) and not _says(w, phase="Ready"),
    "the node is ready": lambda w: _says(w, phase="Ready") and not w.crowd.began,
    # run
    "the call has begun": _runs,
    "the result is kept": lambda w: _keeps(w) and not _ended(w, "t-0"),
    "the task has ended": lambda w: _ended(w, "t-0"),
    # drain
    "the node is deleted": lambda w: _is_deleted(w) and _says(w, phase="Ready"),
    "the node drains": lambda w: _says(w, phase="Draining") and _runs(w),
    "the last call has ended": lambda w: _says(w, phase="Draining") and not _runs(w),
    # terminate
    "the node terminates": lambda w: _says(w, phase="Terminating") and not _alive(w, stopping=True),
    "the cloud was asked": lambda w: _says(w, phase="Terminating") and _alive(w, stopping=True),
    "the end is recorded": lambda w: _says(w, phase="Gone"),
    "the node is gone": lambda w: bool(w.lives) and not w.objects(NODES),
}
FAULTS: Final = ("operator killed", "API server killed", "connection cut", "response lost", "machine lost")
NO_MACHINE: Final = "there is no machine at this step"
IMPOSSIBLE: Final = {
    ("the node is made", "machine lost"): NO_MACHINE,
    ("the intent is recorded", "machine lost"): NO_MACHINE,
    ("the cloud was asked", "machine lost"): "it is on its way out already",
    ("the end is recorded", "machine lost"): NO_MACHINE,
    ("the node is gone", "machine lost"): NO_MACHINE,
}
CELLS: Final = [(step, fault) for step in STEPS for fault in FAULTS if (step, fault) not in IMPOSSIBLE]


@dataclass
class Path:
    """The way of one machine, with one fault on it."""

    world: World
    step: str
    fault: str
    struck: asyncio.Event = field(default_factory=asyncio.Event)

    async def go(self) -> list[str]:
        """Walk it to its end. Returns what does not settle."""
        world = self.world
        world.pool()
        world.task("t-0")
        striking = asyncio.create_task(self._strike())
        try:
            await world.start()
            await self._walk()
            async with asyncio.timeout(10):
                await striking
        finally:
            striking.cancel()
        world.crowd.obey("release")
        world.pool(nodes={"desired": 1 if self._is_lost() else 0})
        return await world.settle()

    async def _walk(self) -> None:
        world = self.world
        await world.until(lambda: _runs(world), "the first call begins")
        await self._leaves("the call has begun", lambda: _runs(world))
        world.crowd.obey("release")
        await world.until(lambda: _ended(world, "t-0"), "the first task ends")
        await self._leaves("the task has ended", lambda: True)
        world.crowd.obey("hold")
        world.task("t-1")
        await world.until(lambda: _runs(world), "the second call begins")
        world.pool(nodes={"desired": 0})
        await world.until(lambda: self._is_draining() or self._is_lost(), "the node drains")
        await self._leaves("the node drains", lambda: True)
        world.crowd.obey("release")
        await world.until(lambda: not world.objects(NODES), "the node goes")
        await self._leaves("the node is gone", lambda: True)

    def _is_draining(self) -> bool:
        return _says(self.world, phase="Draining") and _runs(self.world)

    def _is_lost(self) -> bool:
        return self.fault == "machine lost" and self.struck.is_set()

    async def _leaves(self, step: str, claim: Callable[[], bool]) -> None:
        """Go on from a step, after its fault where it has one."""
        if step == self.step:
            await self.struck.wait()
            await self.world.until(claim, f"the fault at {step!r} is over")

    async def _strike(self) -> None:
        world = self.world
        await world.until(lambda: TASKS in world.kube.objects and STEPS[self.step](world), self.step)
        match self.fault:
            case "operator killed":
                await world.kill_operator()
            case "API server killed":
                await world.kill_api_server(0.2)
            case "connection cut":
                await world.cut()
                await self._next("cut")
            case "response lost":
                world.kube.fault(method="PATCH", lose_answer=True)
                await self._next("lose-answer")
            case "machine lost":
                await world.lose_machine()
        self.struck.set()

    async def _next(self, effect: str) -> None:
        script: dict[str, Any] = {"faults": [{"at": "any", "effect": effect, "times": 1}]}
        await self.world.sim.staff("PUT", "/scenario", json=CALM | script)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("step", "fault"), CELLS, ids=[f"{step}: {fault}" for step, fault in CELLS])
async def test_a_fault_at_a_step_loses_nothing(step: str, fault: str) -> None:
    async with paper_world(scenario=CALM) as world:
        assert await Path(world, step, fault).go() == []
        assert world.judge() == []
        assert world.phases(TASKS) == ["Succeeded", "Succeeded"]
        lost = fault == "machine lost"
        assert len(world.crowd.began) <= 2 + lost
        assert 1 <= world.sim.audit().bought <= 1 + 2 * lost


def test_the_impossible_cells_are_cells() -> None:
    assert {step for step, _ in IMPOSSIBLE} <= set(STEPS)
    assert len(CELLS) + len(IMPOSSIBLE) == len(STEPS) * len(FAULTS)
