"""What pools ask of those who run calls: how many there are, and that a node gets no more of them.

`tasks` answers; pools never look into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from skyward_operator.pools.observation import Demand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward.contract.pool import ComputePool
    from skyward_operator.money.balance import Balance


class Workload(Protocol):
    """The calls of a pool, counted by those who run them: what `Demand` says, field by field."""

    @property
    def queued(self) -> int:
        """Calls that wait for a slot, of any node."""
        ...

    @property
    def running(self) -> int:
        """Such calls on nodes."""
        ...

    @property
    def bound(self) -> Mapping[int, int]:
        """By rank, the calls that only its node may run."""
        ...

    @property
    def busy(self) -> frozenset[str]:
        """Nodes that have calls or results."""
        ...

    @property
    def tasks(self) -> int:
        """Tasks that have not ended."""
        ...


class Calls(Protocol):
    """Who runs calls. All of it is synchronous: nothing is handed out between question and answer."""

    def demand(self, namespace: str, pool: str) -> Workload | None:
        """The calls of a pool; None before they are known."""
        ...

    def retire(self, namespace: str, pool: str, node: str) -> bool:
        """Hand nothing more to a node that has nothing; False, and no change, if it has something."""
        ...

    def reinstate(self, namespace: str, pool: str, node: str) -> None:
        """A node that was to be released stays: it takes calls again."""
        ...


class Money(Protocol):
    """Who knows what pools cost, and what they may."""

    async def balance(self, pool: ComputePool) -> Balance:
        """A pool's money now. Raises ApiError."""
        ...


def demand_of(workload: Workload | None) -> Demand | None:
    """A pool's own record of its calls."""
    if workload is None:
        return None
    return Demand(workload.queued, workload.running, workload.bound, workload.busy, workload.tasks)
