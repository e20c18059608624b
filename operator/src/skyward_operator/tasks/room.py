"""One pool as its tasks see it: the nodes that answer, the scheduler over their slots, and the gate.

The gate stays shut after a start of the operator until every node that the API server calls ready was heard
of, or given up: what those nodes hold must be known before anything is handed out again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from skyward_operator.tasks.decide import PoolView
from skyward_operator.tasks.scheduler import Scheduler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from skyward_operator.nodes.fleet import ReadyNode
    from skyward_operator.tasks.ledger import LiveTask


@dataclass(slots=True, eq=False)
class KnownNode:
    """A node that answered, and which functions its agent was sent."""

    node: ReadyNode
    functions: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Room:
    """The tasks and nodes of one pool, which may not exist (yet)."""

    namespace: str
    name: str
    view: PoolView | None = None
    scheduler: Scheduler = field(default_factory=Scheduler)
    nodes: dict[str, KnownNode] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    tasks: dict[str, LiveTask] = field(default_factory=dict)
    closed: bool = True
    """Nothing is handed out before the operator has caught up."""
    spreading: set[str] = field(default_factory=set)
    """Tasks of many calls, which any node may run."""
    look: asyncio.TimerHandle | None = None
    """The next look at what may be called back from busy nodes."""
    looked: float = 0.0
    remembered: dict[str, dict[str, LiveTask]] = field(default_factory=dict)
    """By node, until it answers or is given up: tasks with attempts there that an earlier operator sent."""
    _layout: tuple[dict[str, int], list[dict[str, Any]]] | None = None
    _pythons: dict[str, str] | None = None

    @property
    def open(self) -> bool:
        """Whether calls may be handed out."""
        return not self.closed and not self.awaited

    @property
    def pythons(self) -> dict[str, str]:
        """The Python of each node that answers; until the nodes change."""
        if self._pythons is None:
            nodes = self.nodes.items()
            self._pythons = {name: known.node.python for name, known in nodes if known.node.python}
        return self._pythons

    def takes_calls(self, name: str) -> bool:
        """Whether a node answers and shall get calls."""
        known = self.nodes.get(name)
        return known is not None and not known.node.draining

    def layout(self) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """The dense place of each node that answers, and all of them as peers; until the nodes change."""
        if self._layout is None:
            known = [each.node for each in self.nodes.values()]
            # One that leaves is no peer of what begins now: another one has its rank, or will have it.
            stay = [node for node in known if not node.draining] or known
            nodes = sorted(stay, key=lambda node: node.rank)
            places = {node.name: place for place, node in enumerate(nodes)}
            self._layout = places, peers_of([node.address for node in nodes])
        return self._layout

    def join(self, node: ReadyNode) -> None:
        """A node answers (again): its agent is not known to have any function."""
        self.nodes[node.name] = KnownNode(node)
        self._layout = self._pythons = None

    def cordon(self, name: str) -> None:
        """A node stays for what it has, and gets nothing more."""
        if (known := self.nodes.get(name)) is not None:
            known.node = replace(known.node, draining=True)
            self._layout = None

    def leave(self, name: str) -> None:
        """A node is gone."""
        self.nodes.pop(name, None)
        self._layout = self._pythons = None

    def remember(self, live: LiveTask) -> None:
        """A task that an earlier operator knew: it may have sent some of it to nodes."""
        for attempt in live.flights:
            self.remembered.setdefault(attempt.node, {})[live.work.uid] = live

    @property
    def empty(self) -> bool:
        """Nothing refers to this pool any more."""
        return self.view is None and not self.tasks and not self.nodes


def peers_of(addresses: list[str]) -> list[dict[str, Any]]:
    """Addresses as the peers that a call sees, in dense order."""
    return [{"node": place, "private_ip": address} for place, address in enumerate(addresses)]


def read_pool(pool: Mapping[str, Any]) -> PoolView:
    """What tasks need of a ComputePool object."""
    metadata, spec, status = pool["metadata"], pool["spec"], pool.get("status") or {}
    nodes = spec.get("nodes") or {}
    desired: int = nodes.get("desired", 1)
    minimum: int | None = nodes.get("min")
    return PoolView(
        name=metadata["name"],
        deleting="deletionTimestamp" in metadata,
        suspended=bool(spec.get("suspend")),
        python=(spec.get("image") or {}).get("python"),
        desired=max(desired, status.get("desiredNodes") or 0),
        minimum=desired if minimum is None else minimum,
        ceiling=max(1, nodes.get("max") or desired),
        buffer=(spec.get("worker") or {}).get("buffer", 0),
        phase=status.get("phase") or "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
    )
