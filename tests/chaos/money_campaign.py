"""Rounds of an unpleasant cloud and an operator that is killed, with the cloud's ledger as the oracle.

    uv run --no-sync python -m tests.chaos.money_campaign --seeds 300 --first 0

A round buys machines for some nodes, kills the operator again and again at a random step, deletes nodes in
between, and meanwhile the cloud loses answers, refuses, lags and takes machines away, as a script made from
the seed says. Then the cloud calms down, all nodes are deleted, and once they are gone its ledger is read.
Nothing may be alive, no node may have paid for two machines at once, and no key or group may be left. What
each node has cost is written down once, to the millionth of a dollar, and never less than the bill. Where the
namespace has a budget, there were never more machines at once than it allows.

The machines exist on paper only: this is about what is bought, when, and whether it is given back.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.campaign import command, play_all
from tests.fake.kube_server import FakeKube
from tests.fake.nodes_plane import NODES
from tests.fake.sim_cloud import sim_cloud
from tests.fake.sim_nodes import SimNodes

from skyward.contract.names import (
    ANNOTATION_BUDGET_NODES,
    LEASE_NAME,
    SPENDING_SUFFIX,
    SYSTEM_NAMESPACE,
)
from skyward.contract.node import ComputeNode
from skyward_operator.money.meter import meter_of
from skyward_operator.money.spending import Spending
from skyward_operator.providers.contract import TAG_NODE_UID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

    from simcloud.bill import Audit

SETTLES: Final = 90.0
"""Seconds within which everything has to be gone once the cloud is calm."""
STUCK: Final = 4.0
"""Seconds after which the next kill comes anyway: the operator may be waiting for a time-out."""
AT_ONCE: Final = 6

REQUEST_FAULTS: Final = ("lose-answer", "lose-with-error", "cut", "internal-error", "unavailable")
PLACES: Final = ("create", "describe", "list", "terminate", "side", "offers")


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in one round."""

    seed: int
    profile: str
    scenario: dict[str, Any]
    nodes: int
    kills: tuple[int, ...]
    """After how many steps of cloud and API server each operator is killed."""
    deleted: tuple[int, ...]
    """How many nodes are deleted under each operator."""
    most: int | None = None
    """So many machines the namespace may have at once."""

    @classmethod
    def of(cls, seed: int) -> Round:
        """The round of a seed."""
        dice = random.Random(seed)
        kills = tuple(dice.randint(1, 40) for _ in range(dice.randint(2, 6)))
        return cls(
            seed,
            dice.choice(("full", "bare")),
            {"seed": seed, "faults": [fault_of(dice) for _ in range(dice.randint(1, 5))]},
            dice.randint(1, 4),
            kills,
            tuple(int(dice.random() < 0.3) for _ in kills),
            dice.choice((None, 1, 2)),
        )


def fault_of(dice: Random) -> dict[str, Any]:
    """A fault that clouds have and an operator has to bear: within what the adapter declares."""
    if dice.random() < 0.2:
        effect = dice.choice(
            ("preempt", "vanish", "hang", "terminate-ignored", "slow-boot", "boot-never-ends")
        )
        return {"at": "vm", "effect": effect, "seconds": dice.uniform(0, 3), "probability": 0.5}
    if dice.random() < 0.2:
        return {"at": "list", "effect": "partial", "fraction": 1.0, "probability": dice.uniform(0.2, 0.8)}
    if dice.random() < 0.2:
        return {"at": "create", "effect": "no-capacity", "times": dice.randint(1, 3)}
    if dice.random() < 0.2:
        at, most = dice.choice((("list", 1.5), ("create", 1.2)))
        effect, seconds = {"list": "lag", "create": "slow"}[at], dice.uniform(0.1, most)
        return {"at": at, "effect": effect, "seconds": seconds, "probability": 0.6}
    if dice.random() < 0.15:
        seconds = dice.uniform(0.1, 1.0)
        return {"at": dice.choice(PLACES), "effect": "rate-limit", "seconds": seconds, "times": 2}
    return {
        "at": dice.choice(("create", "create", *PLACES)),
        "effect": dice.choice(REQUEST_FAULTS),
        "probability": dice.uniform(0.2, 0.8),
        "times": dice.randint(1, 6),
    }


@dataclass(slots=True)
class Summary:
    """What a campaign came to."""

    rounds: int = 0
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    bought: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{times} {effect}" for effect, times in self.faults.most_common())
        head = f"{self.rounds} rounds, {self.kills} kills, {self.bought} machines; {faults}"
        return "\n".join([head, f"{len(self.wrong)} wrong", *self.wrong])


async def run(seeds: Iterable[int], *, loud: bool = False) -> Summary:
    """Play the rounds of these seeds, some beside each other."""

    async def play_seed(seed: int, summary: Summary) -> list[str]:
        return await play(Round.of(seed), summary)

    return await play_all(seeds, Summary(), play_seed, at_once=AT_ONCE, loud=loud)


async def play(this: Round, summary: Summary) -> list[str]:
    """One round. Returns what was wrong after it."""
    async with sim_cloud(scenario=this.scenario) as sim, FakeKube() as kube:
        scene = SimNodes(sim, kube, this.profile)
        costs = watch_costs(kube)
        if this.most is not None:
            budget = {ANNOTATION_BUDGET_NODES: str(this.most)}
            kube.put("/api/v1/namespaces", {"metadata": {"name": "default", "annotations": budget}})
        for number in range(this.nodes):
            scene.add(number)
        for steps, deletions in zip(this.kills, this.deleted, strict=True):
            async with scene.operator() as operator:
                for name in scene.alive()[:deletions]:
                    scene.delete(operator, name)
                await scene.passes(steps, STUCK)
            summary.kills += 1
        await sim.staff("PUT", "/scenario", json={})
        stuck = await scene.settle(SETTLES)
        audit = sim.audit(TAG_NODE_UID)
        summary.rounds += 1
        summary.bought += audit.bought
        for event in sim.events("request"):
            summary.faults.update(event["effects"])
        found = [*stuck, *judge(audit), *judge_money(kube, costs, audit.amount)]
        if this.most is not None and (most := at_once(sim.events("created"), sim.events("gone"))) > this.most:
            found.append(f"{most} machines at once, and {this.most} are allowed")
        return [f"seed {this.seed} ({this.profile}): {text}" for text in found]


def watch_costs(kube: FakeKube) -> dict[str, Decimal]:
    """By UID, what the nodes say that they have cost as their objects go."""
    costs: dict[str, Decimal] = {}
    remove = kube.remove

    def removed(collection: str, name: str, *, tell: bool = True) -> None:
        obj = kube.objects[collection][name]
        if collection == NODES and (meter := meter_of(ComputeNode.read(obj))) is not None:
            assert meter.ended is not None
            costs[meter.uid] = meter.cost(meter.ended)
        remove(collection, name, tell=tell)

    kube.remove = removed  # type: ignore[method-assign]
    return costs


def judge_money(kube: FakeKube, costs: Mapping[str, Decimal], bill: Decimal) -> list[str]:
    """What is wrong with what is written down."""
    place = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps"
    found = kube.objects.get(place, {}).get(f"{LEASE_NAME}{SPENDING_SUFFIX}")
    text = (found or {}).get("data", {}).get("default")
    written = Spending.read(text).total if text else Decimal(0)
    wrong = []
    if written != sum(costs.values()):
        wrong.append(f"${written} is written down and nodes have cost ${sum(costs.values())}")
    if written < bill:
        wrong.append(f"${written} is written down and the bill is ${bill}")
    return wrong


def at_once(created: Sequence[Mapping[str, Any]], gone: Sequence[Mapping[str, Any]]) -> int:
    """The most machines that there were at one time."""
    steps = [(event["time"], 1) for event in created] + [(event["time"], -1) for event in gone]
    return max(accumulate(change for _, change in sorted(steps)), default=0)


def judge(audit: Audit) -> list[str]:
    """What a ledger must not say once everything is gone."""
    found = [f"alive: {each}" for each in audit.alive]
    found += [f"two machines at once for node {each}" for each in audit.at_once]
    found += [f"left behind: {each}" for each in audit.side]
    return found


if __name__ == "__main__":
    command(__doc__, run)
