"""Whether the program that made a pool is still there.

It renews a sign on the pool. For how long the sign has not changed is measured by this process's monotonic
clock: clocks of clients and servers do not matter, and a new operator waits anew. A client cannot renew where
the API server does not answer, so silence ends a pool only after two looks at the API server itself, of which
each succeeded, a third of the lease apart: time enough to renew in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from skyward.contract.names import ANNOTATION_RENEWED, POOL
from skyward.contract.pool import ComputePool

if TYPE_CHECKING:
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api
    from skyward_operator.kube.store import Store


@dataclass(frozen=True, slots=True)
class Heard:
    """The last sign of a client; times are monotonic seconds."""

    sign: str
    at: float
    confirmed: float | None = None
    """When the API server itself was first asked, and had no later sign."""


type Next = Literal["wait", "look", "over"]


def judge(heard: Heard, now: float, duration: float) -> Next:
    """Whether to wait, to ask the API server, or to ask it and give the client up if it knows no better."""
    third = duration / 3
    if now - heard.at < 2 * third:
        return "wait"
    if heard.confirmed is None or now - heard.confirmed > 2 * third:
        return "look"
    return "over" if now - heard.at >= duration and now - heard.confirmed >= third else "wait"


def seconds_left(heard: Heard, now: float, duration: float) -> float:
    """After how many seconds to judge again."""
    third = duration / 3
    if heard.confirmed is None:
        return max(0.0, heard.at + 2 * third - now)
    return max(0.0, heard.at + duration - now, heard.confirmed + third - now)


class Leases:
    """The clients of the pools that have a lease."""

    def __init__(self, api: Api, store: Store, clock: Clock) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._heard: dict[str, Heard] = {}

    async def expired(self, pool: ComputePool) -> str | None:
        """The resourceVersion at which a pool's client is given up, None as long as it is not.

        Raises NotFound for a pool that is gone, and ApiError where it cannot be asked for.
        """
        lease = pool.spec.lease
        if lease is None or pool.metadata.is_deleted:
            return None
        heard = self._hear(pool)
        if judge(heard, self._clock.monotonic(), lease.duration_seconds) == "wait":
            return None
        metadata = pool.metadata
        found = await self._api.get(POOL, metadata.namespace, metadata.name)
        self._store.put(POOL, found)
        fresh = ComputePool.read(found)
        if fresh.metadata.uid != metadata.uid or fresh.metadata.is_deleted or fresh.spec.lease != lease:
            return None
        heard, now = self._hear(fresh), self._clock.monotonic()
        match judge(heard, now, lease.duration_seconds):
            case "over":
                return fresh.metadata.resource_version
            case "look":
                self._heard[fresh.metadata.uid or ""] = Heard(heard.sign, heard.at, now)
        return None

    def again(self, pool: ComputePool) -> float | None:
        """After how many seconds to look at a pool again because of its lease."""
        heard = self._heard.get(pool.metadata.uid or "")
        if pool.spec.lease is None or pool.metadata.is_deleted or heard is None:
            return None
        return seconds_left(heard, self._clock.monotonic(), pool.spec.lease.duration_seconds)

    def forget(self, uid: str) -> None:
        """The pool is gone."""
        self._heard.pop(uid, None)

    def _hear(self, pool: ComputePool) -> Heard:
        uid, sign = pool.metadata.uid or "", pool.metadata.annotations.get(ANNOTATION_RENEWED, "")
        heard = self._heard.get(uid)
        if heard is None or heard.sign != sign:
            heard = self._heard[uid] = Heard(sign, self._clock.monotonic())
        return heard
