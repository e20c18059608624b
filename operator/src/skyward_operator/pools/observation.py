"""What is known of one pool when something is decided about it. Read from objects, frozen, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward.contract.names import POOL_FINALIZER
from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.money.balance import EMPTY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from skyward.contract.node import ComputeNode, Launch
    from skyward.contract.pool import ComputePool
    from skyward_operator.money.balance import Balance
    from skyward_operator.pools.scale import Needs

MAKING = (NodePhase.PENDING, NodePhase.LAUNCHING, NodePhase.CONNECTING, NodePhase.BOOTSTRAPPING)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node of the pool."""

    name: str
    uid: str
    rank: int
    incarnation: int
    phase: str
    reason: str = ""
    message: str = ""
    log: str = ""
    template: str = ""
    deleting: bool = False
    outdated: bool = False
    """Whether it was made with another image or worker setting than the pool has now."""
    ready_time: datetime | None = None
    born: datetime | None = None
    """When its machine was ordered."""
    billed_when_off: str = ""
    """The provider of its machine, where that goes on being billed once it has powered itself off."""

    @property
    def ready(self) -> bool:
        """Whether it takes calls."""
        return self.phase == NodePhase.READY and not self.deleting

    @property
    def making(self) -> bool:
        """Whether it is on its way to take calls."""
        return self.phase in MAKING and not self.deleting

    @property
    def failed(self) -> bool:
        """Whether it did not work, or worked and was lost."""
        return self.phase in (NodePhase.FAILED, NodePhase.GONE)

    @property
    def leaving(self) -> bool:
        """Whether its calls end and it takes no others: another node is wanted in its place."""
        return self.phase == NodePhase.DRAINING and not self.deleting

    @property
    def bad(self) -> bool:
        """Whether it is not well, and stays because too many others are not either."""
        return self.ready and self.reason == NodeReason.UNHEALTHY

    @property
    def holds_rank(self) -> bool:
        """Whether no other node is wanted in its place."""
        return self.ready or self.making


@dataclass(frozen=True, slots=True)
class Demand:
    """The calls that a pool has before it, and where they are."""

    queued: int = 0
    """Calls that any node may run and that would run if there were a slot."""
    running: int = 0
    """Such calls on nodes."""
    bound: Mapping[int, int] = field(default_factory=dict)
    """By rank, the calls that only the node of that rank may run, waiting or there."""
    busy: frozenset[str] = frozenset()
    """Nodes that have calls or results, or of which that is not known yet."""
    tasks: int = 0
    """Tasks that have not ended."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed attempts at making a node since the last one that worked."""

    count: int = 0
    generation: int = 0
    reason: str = ""
    message: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process remembers of a pool between two looks. Losing it costs patience, never money."""

    incarnations: Mapping[int, int] = field(default_factory=dict)
    """The last incarnation of each rank."""
    counted: frozenset[str] = frozenset()
    """Nodes whose failure is in the count."""
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    wanted: int | None = None
    """How many nodes were wanted at the last look; the status may not show it yet."""
    needs: Needs = ()
    """How many nodes were needed in the last while."""
    busy_at: Mapping[str, datetime] = field(default_factory=dict)
    """When a node was last seen with calls, by name."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that is decided upon."""

    pool: ComputePool
    nodes: tuple[NodeView, ...] = ()
    demand: Demand | None = Demand()
    """None: not known yet, after a start of the operator."""
    live_tasks: int = 0
    template: str = ""
    memory: Memory = Memory()
    balance: Balance = EMPTY

    @property
    def busy(self) -> frozenset[str]:
        """Nodes that run something, as far as that is known."""
        return frozenset() if self.demand is None else self.demand.busy

    @property
    def bound(self) -> frozenset[int]:
        """Ranks that calls are bound to."""
        return frozenset() if self.demand is None else frozenset(self.demand.bound)

    @property
    def current(self) -> int | None:
        """How many nodes were wanted until now; None in a new pool."""
        return self.pool.status.desired_nodes if self.memory.wanted is None else self.memory.wanted

    @property
    def guarded(self) -> bool:
        """Whether the pool cannot go before its nodes are gone."""
        return POOL_FINALIZER in self.pool.metadata.finalizers

    @property
    def failures(self) -> Failures:
        """What the status says of failures of this generation."""
        written = self.pool.status.failures
        generation = self.pool.metadata.generation or 1
        if written is None or written.generation != generation:
            return Failures(generation=generation)
        return Failures(
            written.count, generation, written.reason or "", written.message or "", written.log or ""
        )


def view_of(node: ComputeNode, pool: ComputePool) -> NodeView:
    """What a pool needs to know of a node."""
    spec, status = node.spec, node.status
    launch = status.launch
    return NodeView(
        name=node.metadata.name,
        uid=node.metadata.uid or "",
        rank=spec.rank,
        incarnation=spec.incarnation,
        phase=status.phase or NodePhase.PENDING,
        reason=status.reason or "",
        message=status.message or "",
        log=(status.bootstrap.log if status.bootstrap else None) or "",
        template=spec.template_hash,
        deleting=node.metadata.is_deleted,
        outdated=(spec.image, spec.worker) != (pool.spec.image, pool.spec.worker),
        ready_time=status.ready_time,
        born=launch.request_time if launch else None,
        billed_when_off=billed_when_off(launch),
    )


def billed_when_off(launch: Launch | None) -> str:
    """The provider of a machine whose power-off does not end its bill; empty where it does, or none is
    known."""
    if launch is None or launch.power_off_ends_billing is not False:
        return ""
    return (launch.offer.provider if launch.offer else None) or "the provider"
