"""Rounds of kills along the whole path, with the cloud's ledger and the agents' memory as oracles.

    uv run --no-sync python -m tests.chaos.path_campaign --seeds 100 --first 0

In each round a fixed pool and an elastic one have tasks, the sweep and perhaps a budget are on, and a script
made from the seed has the cloud lose answers, refuse, lag and take machines back. Meanwhile, at random steps,
the operator is killed, the API server, the connections to all machines, or a machine; nodes are deleted and
machines called back with notice. Then all calms down, what was asked for is waited for, everything is given
back, and what `World.judge` says must never be is looked for.

The same seed makes the same script. Where exactly a kill falls depends on the machine as well.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.campaign import command, play_all
from tests.chaos.money_campaign import at_once, fault_of, judge_money, watch_costs
from tests.chaos.paper_world import TASKS, paper_world
from tests.fake.nodes_plane import NODES

from skyward.contract.names import ANNOTATION_BUDGET_NODES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from random import Random

    from tests.chaos.paper_world import World

AT_ONCE: Final = 4
STUCK: Final = 1.5
"""Seconds after which the next kill comes anyway: the operator may be waiting for a time-out."""
SETTLES: Final = 90.0
TICK: Final = 0.05
NEVER_ENDS: Final = ("hang", "boot-never-ends")
"""Machines that only time-outs of minutes find out about. The campaign of purchases has them."""
POOLS: Final = ("fixed", "elastic")
KILLS: Final = {"operator": 12, "API server": 3, "connection": 4, "machine": 3, "notice": 2, "node": 1}
"""What is killed, and how often of 25 times."""


@dataclass(frozen=True, slots=True)
class Blow:
    """What is killed after so many steps, and the pools that get a task before that."""

    steps: int
    victim: str
    place: int
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in one round."""

    seed: int
    profile: str
    scenario: dict[str, Any]
    blows: tuple[Blow, ...]
    idle: int
    most: int | None
    """So many machines the namespace may have at once."""

    @classmethod
    def of(cls, seed: int) -> Round:
        """The round of a seed."""
        dice = random.Random(seed)
        faults = [fault_of(dice) for _ in range(dice.randint(1, 5))]
        return cls(
            seed,
            dice.choice(("full", "full", "bare")),
            {"seed": seed, "faults": [each for each in faults if each["effect"] not in NEVER_ENDS]},
            tuple(_blow(dice) for _ in range(dice.randint(8, 16))),
            dice.choice((0, 1)),
            dice.choice((None, 2, 3)),
        )


def _blow(dice: Random) -> Blow:
    (victim,) = dice.choices(list(KILLS), list(KILLS.values()))
    wanted = tuple(dice.choice(POOLS) for _ in range(dice.choice((0, 0, 1, 2))))
    return Blow(dice.randint(1, 40), victim, dice.randint(0, 9), wanted)


@dataclass(slots=True)
class Summary:
    """What a campaign came to."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    bought: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    """Attempts beyond the first of each task, all of them told."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.rounds} rounds, {self.kills.total()} kills: {_counts(self.kills)}",
            f"{self.faults.total()} faults of the cloud: {_counts(self.faults)}",
            f"{self.bought} machines; tasks: {_counts(self.tasks)}; {self.repeated} attempts repeated",
            f"{len(self.wrong)} wrong",
        ]
        return "\n".join([*lines, *self.wrong])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{times} {what}" for what, times in counter.most_common())


async def run(seeds: Iterable[int], *, loud: bool = False) -> Summary:
    """Play the rounds of these seeds, some beside each other."""

    async def play_seed(seed: int, summary: Summary) -> list[str]:
        return await play(Round.of(seed), summary)

    return await play_all(seeds, Summary(), play_seed, at_once=AT_ONCE, loud=loud)


async def play(this: Round, summary: Summary) -> list[str]:
    """One round. Returns what was wrong after it."""
    async with paper_world(this.profile, this.scenario) as world:
        costs = watch_costs(world.kube)
        if this.most is not None:
            budget = {ANNOTATION_BUDGET_NODES: str(this.most)}
            world.kube.put("/api/v1/namespaces", {"metadata": {"name": "default", "annotations": budget}})
        world.pool("fixed", nodes={"desired": 1})
        elastic = {"nodes": {"desired": 0, "max": 3}, "lifetime": {"idleSeconds": this.idle}}
        world.pool("elastic", **elastic)
        world.task("t-0", "fixed")
        await world.start()
        async with _work(world):
            for blow in this.blows:
                for pool in blow.tasks:
                    world.task(f"t-{len(world.objects(TASKS))}", pool)
                await world.passes(blow.steps, STUCK)
                await _strike(world, blow)
            await world.sim.staff("PUT", "/scenario", json={})
            stuck = await world.settle(SETTLES)
        found = [*stuck, *world.judge(), *judge_money(world.kube, costs, world.sim.audit().amount)]
        created, gone = world.sim.events("created"), world.sim.events("gone")
        if this.most is not None and (most := at_once(created, gone)) > this.most:
            found.append(f"{most} machines at once, and {this.most} are allowed")
        _count(world, summary)
        return [f"seed {this.seed} ({this.profile}): {text}" for text in found]


async def _strike(world: World, blow: Blow) -> None:
    live = world.sim.service.cloud.state.live()
    match blow.victim:
        case "operator":
            await world.kill_operator()
        case "API server":
            await world.kill_api_server()
        case "connection":
            await world.cut()
        case "machine":
            await world.lose_machine(blow.place)
        case "notice" if live:
            machine = live[blow.place % len(live)]
            await world.tells_cloud(f"/instances/{machine.id}/interrupt", notice_seconds=1)
        case "node" if nodes := list(world.objects(NODES)):
            world.delete(NODES, nodes[blow.place % len(nodes)])


@asynccontextmanager
async def _work(world: World) -> AsyncIterator[None]:
    """Calls last for a moment."""

    async def end_calls() -> None:
        while True:
            await asyncio.sleep(TICK)
            world.crowd.obey("release")
            world.crowd.obey("hold")

    ending = asyncio.create_task(end_calls())
    try:
        yield
    finally:
        ending.cancel()


def _count(world: World, summary: Summary) -> None:
    summary.rounds += 1
    summary.kills += world.kills
    summary.bought += world.sim.audit().bought
    for event in world.sim.events("request"):
        summary.faults.update(event["effects"])
    summary.tasks.update(world.phases(TASKS))
    summary.repeated += len(world.crowd.began) - sum(
        bool((task.get("status") or {}).get("attempts")) for task in world.objects(TASKS).values()
    )


if __name__ == "__main__":
    command(__doc__, run)
