"""How many nodes a pool should have now. Pure.

`desired` is the floor and `max` the ceiling. Between them the pool has as many nodes as its calls could use
at once. What is wanted is a level, not a step: nodes that are being made count, and a second look changes
nothing.

It grows at once. It shrinks to the most that was needed at any moment of the last `idleSeconds`: a need that
comes and goes within that time buys nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from skyward.contract.pool import ComputePoolSpec
    from skyward_operator.pools.observation import Demand


@dataclass(frozen=True, slots=True)
class Need:
    """So many nodes were needed until `until`, and fewer after it."""

    nodes: int
    until: datetime


type Needs = tuple[Need, ...]
"""The needs of the last while that still count, the latest last. Each is smaller than the one before it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A number of nodes, why that many, and what to remember for the next look."""

    nodes: int
    why: str
    needs: Needs = ()


def wanted_nodes(
    spec: ComputePoolSpec,
    demand: Demand | None,
    current: int | None,
    needs: Needs,
    now: datetime,
    held: AbstractSet[int] = frozenset(),
) -> Wanted:
    """The number of nodes. `current` was wanted until now, None in a new pool; `held` are the ranks that have
    a node. With a `demand` that nobody knows yet, what was wanted stays wanted."""
    if spec.suspend:
        return Wanted(0, "spec.suspend is true")
    floor, ceiling = spec.nodes.desired, spec.nodes.max
    if ceiling is None:
        return Wanted(floor, f"spec.nodes.desired is {floor}")
    known = needs or (Need(_within(floor, floor if current is None else current, ceiling), now),)
    if demand is None:
        return Wanted(_within(floor, known[0].nodes, ceiling), "the calls are not known yet", known)
    needed = needed_nodes(demand, spec.worker.concurrency, held)
    lasting = timedelta(seconds=spec.lifetime.idle_seconds)
    needs = _remember(known, _within(floor, needed, ceiling), now, lasting)
    wanted = _within(floor, needs[0].nodes, ceiling)
    if current is None or wanted >= current:
        return Wanted(wanted, _why_so_many(spec, demand, needed), needs)
    if ceiling < current:
        return Wanted(wanted, f"spec.nodes.max is {ceiling}", needs)
    fewer = f"fewer were enough for {spec.lifetime.idle_seconds} s"
    return Wanted(wanted, f"{fewer}; spec.nodes.desired is {floor}" if wanted == floor else fewer, needs)


def needed_nodes(demand: Demand, slots: int, held: AbstractSet[int] = frozenset()) -> int:
    """Nodes that would run every call at once. Calls that are bound to a rank need that one and no other."""
    slots = max(1, slots)
    bound = sum(min(calls, slots) for calls in demand.bound.values())
    needed = -(-(demand.queued + demand.running + bound) // slots)
    if not demand.bound:
        return needed
    ranks = {0, *demand.bound}
    return max(needed, len(ranks if ranks <= held else ranks | held))


def minimum_nodes(spec: ComputePoolSpec) -> int:
    """Ready nodes at which the pool is usable. One at least, unless nodes are made when there are calls."""
    least = spec.nodes.desired if spec.nodes.min is None else spec.nodes.min
    return least if spec.nodes.max is not None else max(1, least)


def ceiling_of(spec: ComputePoolSpec) -> int:
    """The most nodes that the pool may have."""
    return 0 if spec.suspend else spec.nodes.desired if spec.nodes.max is None else spec.nodes.max


def next_change(spec: ComputePoolSpec, needs: Needs, now: datetime) -> float | None:
    """Seconds until fewer nodes are wanted if no call comes; None if that would change nothing."""
    if len(needs) < 2 or needs[0].nodes <= spec.nodes.desired:
        return None
    return max(0.0, (needs[0].until - now).total_seconds() + spec.lifetime.idle_seconds)


def _remember(needs: Needs, needed: int, now: datetime, lasting: timedelta) -> Needs:
    """Add a need to those that count. The last one lasted until this look: nobody looked in between."""
    lasted = (*needs[:-1], Need(needs[-1].nodes, now))
    return (
        *(each for each in lasted if each.nodes > needed and now - each.until < lasting),
        Need(needed, now),
    )


def _within(floor: int, nodes: int, ceiling: int) -> int:
    return max(floor, min(nodes, ceiling))


def _why_so_many(spec: ComputePoolSpec, demand: Demand, needed: int) -> str:
    calls = demand.queued + demand.running + sum(demand.bound.values())
    if needed <= spec.nodes.desired:
        return f"spec.nodes.desired is {spec.nodes.desired}"
    slots = spec.worker.concurrency
    text = f"{calls} call{'s' if calls > 1 else ''} could use {needed}"
    if slots > 1:
        text = f"{text} of {slots} slots each"
    most = spec.nodes.max or needed
    return text if needed <= most else f"{text}; spec.nodes.max is {most}"
