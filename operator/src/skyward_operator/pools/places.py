"""Which nodes of a pool go, and which ranks get a node. Pure, part of `decide`.

- Failed nodes go, and those that are being made from a spec that has changed since.
- Of too many, those that are idle go: first what has not been bought, then what is being made, then who has
  been idle longest. Rank 0, where others find each other, goes last of all.
- A node that runs something goes only where the pool may have no more that many, and after the idle ones.
- A node that leaves by itself (its provider takes it back, or it is not well) is left to that, and holds no
  rank meanwhile; where the pool may have no nodes at all it goes as well.
- A rank that calls are bound to gets its node before others do.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

from skyward.contract.reasons import NodePhase
from skyward_operator.pools.scale import ceiling_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from skyward_operator.pools.observation import NodeView, Observation

_NEVER = datetime.min.replace(tzinfo=UTC)


def superfluous(
    seen: Observation, wanted: int, busy_at: Mapping[str, datetime]
) -> list[tuple[NodeView, bool]]:
    """Nodes to release now, and of each whether only if it is still idle then."""
    holders, going = _holders(seen)
    released = [(node, False) for node in sorted(going, key=lambda node: -node.rank)]
    released += _surplus(seen, holders, wanted, busy_at)
    head = holders.get(0)
    others = any(node.rank > 0 for node in seen.nodes)
    if ceiling_of(seen.pool.spec) == 0:
        released += [(node, False) for node in seen.nodes if node.leaving]
    if wanted == 0 and head is not None and not others:
        must = ceiling_of(seen.pool.spec) == 0
        if must or head.name not in seen.busy:
            released.append((head, not must))
    return [(node, idle) for node, idle in released if not node.deleting]


def missing(seen: Observation, wanted: int) -> list[int]:
    """Ranks to make a node for: the head, those that calls wait for, those that were lost, the lowest."""
    held = held_ranks(seen)
    lost = sorted(node.rank for node in seen.nodes if node.failed)
    ceiling = ceiling_of(seen.pool.spec)
    order = chain((0,), sorted(seen.bound), lost, range(ceiling))
    free = dict.fromkeys(rank for rank in order if rank < ceiling and rank not in held)
    return sorted(list(free)[: max(0, wanted - len(held))])


def held_ranks(seen: Observation) -> frozenset[int]:
    """Ranks that have a node, or will have."""
    return frozenset(_holders(seen)[0])


def _holders(seen: Observation) -> tuple[dict[int, NodeView], list[NodeView]]:
    """By rank the node that counts, and the nodes that go whatever is wanted."""
    holders: dict[int, NodeView] = {}
    going: list[NodeView] = []
    for node in sorted(seen.nodes, key=lambda n: (not n.ready, n.incarnation)):
        outdated = node.making and node.template != seen.template
        if node.failed or outdated or (node.holds_rank and node.rank in holders):
            going.append(node)
        elif node.holds_rank:
            holders[node.rank] = node
    return holders, going


def _surplus(
    seen: Observation, holders: Mapping[int, NodeView], wanted: int, busy_at: Mapping[str, datetime]
) -> list[tuple[NodeView, bool]]:
    ceiling = ceiling_of(seen.pool.spec)
    if seen.demand is None and ceiling > 0:
        return []  # who is idle will be known soon
    kept = 1 if 0 in holders else 0  # the head is none of them
    spare, must = len(holders) - max(wanted, kept), len(holders) - max(ceiling, kept)
    order = _in_order(seen, (node for rank, node in holders.items() if rank > 0), busy_at)
    chosen = [
        (node, ceiling > 0 and node.name not in seen.busy)  # one that gets a call now may not be the one
        for place, node in enumerate(order[: max(0, spare)])
        if place < must or node.name not in seen.busy
    ]
    return chosen + _in_the_way(seen, holders, {node.rank for node, _ in chosen})


def _in_order(
    seen: Observation, nodes: Iterable[NodeView], busy_at: Mapping[str, datetime]
) -> list[NodeView]:
    """Who goes first."""

    def key(node: NodeView) -> tuple[bool, bool, bool, bool, datetime, int]:
        idle_since = max(busy_at.get(node.name, _NEVER), node.ready_time or _NEVER)
        return (
            node.name in seen.busy,
            node.rank in seen.bound,
            node.phase != NodePhase.PENDING,
            not node.making,
            idle_since,
            -node.rank,
        )

    return sorted(nodes, key=key)


def _in_the_way(
    seen: Observation, holders: Mapping[int, NodeView], chosen: set[int]
) -> list[tuple[NodeView, bool]]:
    """Idle nodes of ranks that the pool has no more, where calls wait for a rank that finds no place."""
    ceiling = ceiling_of(seen.pool.spec)
    awaited = sum(rank < ceiling and rank not in holders for rank in seen.bound)
    if len(holders) - len(chosen) < ceiling:
        return []
    beyond = [
        node
        for rank, node in sorted(holders.items(), reverse=True)
        if rank >= ceiling and rank not in chosen and node.name not in seen.busy
    ]
    return [(node, True) for node in beyond[:awaited]]
