"""How many nodes a pool should have now. Pure.

`desired` is the floor and `max` the ceiling. Between them the pool grows at once to what its calls could
use, nodes that are being made included, and shrinks when fewer would have done for `idleSeconds` on end.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from skyward.contract.pool import ComputePoolSpec
    from skyward_operator.pools.observation import Demand


def wanted_nodes(
    spec: ComputePoolSpec, demand: Demand, current: int, above_since: datetime | None, now: datetime
) -> tuple[int, datetime | None]:
    """The number of nodes, and since when fewer would do. `current` was wanted until now."""
    if spec.suspend:
        return 0, None
    floor, ceiling = spec.nodes.desired, spec.nodes.max
    if ceiling is None:
        return floor, None
    needed = needed_nodes(demand, spec.worker.concurrency)
    target = max(floor, min(needed, ceiling))
    current = max(floor, min(current, ceiling))
    if target >= current:
        return target, None
    since = above_since or now
    if now - since >= timedelta(seconds=spec.lifetime.idle_seconds):
        return target, None
    return current, since


def needed_nodes(demand: Demand, slots: int) -> int:
    """Nodes that would run every call at once."""
    return -(-(demand.queued + demand.running) // max(1, slots))


def minimum_nodes(spec: ComputePoolSpec) -> int:
    """Ready nodes at which the pool is usable; at least one."""
    return max(1, spec.nodes.desired if spec.nodes.min is None else spec.nodes.min)
