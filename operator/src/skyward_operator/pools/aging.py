"""Which nodes have lived for the longest that their pool allows. Pure.

Their machines are drained and released whatever they run: what does not end within the grace of a drain is
moved. The time counts from the order of the machine, so a restart of the operator or of the agent changes
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from skyward_operator.pools.observation import NodeView, Observation


def past_lifetime(seen: Observation, now: datetime) -> list[NodeView]:
    """The nodes whose time is up, and that nobody has released yet."""
    longest = seen.pool.spec.lifetime.max_lifetime_seconds
    return [node for node, age in _ages(seen, now) if longest and age >= longest]


def next_past_lifetime(seen: Observation, now: datetime) -> float | None:
    """Seconds until the time of the next one is up; None if that never happens."""
    longest = seen.pool.spec.lifetime.max_lifetime_seconds
    left = [longest - age for _, age in _ages(seen, now) if longest and age < longest]
    return min(left, default=None)


def _ages(seen: Observation, now: datetime) -> list[tuple[NodeView, float]]:
    return [
        (node, (now - node.born).total_seconds())
        for node in seen.nodes
        if node.born is not None and node.holds_rank
    ]
