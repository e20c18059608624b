"""How long a machine may live, as its pool says now: a node never changes, and these two may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward.contract.names import POOL
from skyward.contract.pool_options import Lifetime

if TYPE_CHECKING:
    from skyward.contract.node import NodePoolRef
    from skyward_operator.kube.store import Store


@dataclass(slots=True)
class TimeToLive:
    """Seconds without an operator after which a pool's machines end; the last ones known once the pool is
    gone."""

    store: Store
    namespace: str
    pool: NodePoolRef
    known: int = Lifetime().ttl_seconds

    def __call__(self) -> int:
        """The seconds now; 0: never."""
        obj = self.store.get(POOL, self.namespace, self.pool.name)
        if obj is not None and obj["metadata"].get("uid") == self.pool.uid:
            self.known = int(obj["spec"].get("lifetime", {}).get("ttlSeconds", Lifetime().ttl_seconds))
        return self.known
