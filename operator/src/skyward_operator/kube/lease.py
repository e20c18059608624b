"""Leadership: at most one process acts, and it stops acting before another may begin.

A Lease names the holder. The holder renews it every `retry` seconds and may act for `deadline`
seconds after the START of its last successful renewal, measured by its own monotonic clock, which
goes on while the process is frozen. A candidate takes over only after it saw the Lease unchanged for
`duration` seconds by its own clock (never by comparing the two machines' wall clocks). As deadline <
duration, the old holder has stopped by then, whether it knows it or not: `check()` runs ahead of
every write, so a process that wakes up late is stopped by its first act, before any timer of it runs.

There is one way past the wait: whoever starts the processes may name `predecessors`, holders that it has
seen end. A holder's identity is of one process only, so nothing that still runs can answer to it.
"""

from __future__ import annotations

import logging
import socket
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import ANNOTATION_GATEWAY, ANNOTATION_GATEWAY_SERVICE
from skyward_operator.engine.clock import micro_timestamp
from skyward_operator.kube.connection import Patience
from skyward_operator.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, NotLeader
from skyward_operator.kube.kinds import LEASE, NAMESPACE

if TYPE_CHECKING:
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api
    from skyward_operator.metrics import Metrics
    from skyward_operator.settings import Settings

logger = logging.getLogger(__name__)

_RELEASED_SECONDS: Final = 1
TERMS: Final = 1_000_000
"""More than one Lease ever sees in a second; the product is a whole number that JSON keeps."""


class Leadership:
    """One candidate for the Lease.

    `api` must be without a fence. Run `acquire()`, then `keep()` in the background; `check()` tells
    from then on, cheaply, whether this process may act.
    """

    def __init__(self, api: Api, settings: Settings, clock: Clock, *, metrics: Metrics | None = None) -> None:
        times = settings.lease_times
        self._api = api.with_patience(Patience(attempt=times.deadline / 2, deadline=times.deadline / 2))
        self._clock = clock
        self._metrics = metrics
        self._times = times
        self._key = (settings.lease_namespace, settings.lease_name)
        self.identity: Final = (
            settings.holder or f"{settings.identity or socket.gethostname()}_{uuid.uuid4()}"
        )
        self._predecessors = settings.predecessors
        self._places: dict[str, str | None] = {}
        self._renewed = float("-inf")
        self._lease: dict[str, Any] | None = None
        self._seen = ("", float("-inf"))
        self._holds = False
        self._complaint = ""

    @property
    def installation(self) -> str:
        """Who this operator and all that lead after and before it are together: the UID of their Lease.

        It outlives restarts and upgrades, and no other cluster or Lease has it. Known once the Lease is held.
        """
        uid = str((self._lease or {}).get("metadata", {}).get("uid") or "")
        if not uid:
            raise NotLeader(f"the lease {'/'.join(self._key)} was not held yet, so its UID is not known")
        return uid

    @property
    def term(self) -> int:
        """The number of this process's leadership: greater than that of any before, whatever their clocks
        said.

        From when the Lease was made, by the API server's clock, and how often it changed hands since. Known
        once it is held.
        """
        made = datetime.fromisoformat(str((self._lease or {})["metadata"]["creationTimestamp"]))
        return int(made.timestamp()) * TERMS + int(self._spec().get("leaseTransitions") or 0) % TERMS

    @property
    def is_leader(self) -> bool:
        """Whether this process may act now."""
        return self._holds and self._clock.monotonic() - self._renewed < self._times.deadline

    def check(self) -> None:
        """Raises NotLeader when this process may not act (any more); costs a clock read."""
        if not self.is_leader:
            raise NotLeader(f"the lease {'/'.join(self._key)} is not held by {self.identity}")

    async def advertise(self, gateway_url: str, gateway_service: str | None = None) -> None:
        """Show on the Lease where the gateway is, now and with every renewal."""
        self._places = {ANNOTATION_GATEWAY: gateway_url, ANNOTATION_GATEWAY_SERVICE: gateway_service}
        if self.is_leader and not await self._renew():
            raise NotLeader("the lease was lost while the gateway's address was written")

    async def acquire(self) -> None:
        """Wait until this process holds the Lease."""
        shown = ""
        while not await self._try_acquire():
            holder = self._holder()
            if holder != shown:
                logger.info("waiting: %s leads", holder or "nobody yet")
                shown = holder
            await self._clock.sleep(self._times.retry)
        logger.info("leading as %s", self.identity)
        self._show(1)

    async def keep(self) -> None:
        """Renew until that fails for too long: raises NotLeader, never returns."""
        try:
            while True:
                await self._clock.sleep(self._times.retry)
                if not await self._renew():
                    raise NotLeader(f"{self._holder() or 'somebody else'} holds the lease now")
                self.check()
        finally:
            self._show(0)

    async def release(self) -> None:
        """Let the next candidate in at once; for a process that has stopped acting."""
        if not self._holds:
            return
        self._holds = False
        self._show(0)
        spec = {
            "holderIdentity": "",
            "leaseDurationSeconds": _RELEASED_SECONDS,
            "renewTime": micro_timestamp(self._clock.now()),
        }
        try:
            nowhere = dict.fromkeys((ANNOTATION_GATEWAY, ANNOTATION_GATEWAY_SERVICE))
            await self._patch({"spec": spec, "metadata": {"annotations": nowhere}})
        except ApiError as error:
            logger.info("the lease was not released: %s", error)

    async def _renew(self) -> bool:
        """False when the Lease is another's, or nothing was heard for as long as we may act."""
        while True:
            started = self._clock.monotonic()
            try:
                await self._patch(self._held())
            except (Conflict, NotFound):
                if not await self._still_ours():
                    self._holds = False
                    return False
            except ApiError as error:
                logger.warning("the lease was not renewed: %s", error)
            else:
                self._renewed = started
                return True
            if not self.is_leader:
                self._holds = False
                return False
            await self._clock.sleep(min(0.25, self._times.retry))

    async def _still_ours(self) -> bool:
        try:
            self._lease = await self._api.get(LEASE, *self._key)
        except ApiError:
            return False
        return self._holder() == self.identity

    async def _try_acquire(self) -> bool:
        started = self._clock.monotonic()
        try:
            self._lease = await self._api.get(LEASE, *self._key)
            if not self._is_free(started):
                return False
            await self._patch(self._held() | self._taken())
        except NotFound:
            return await self._try_create(started)
        except Conflict:
            return False
        except ApiError as error:
            self._complain(f"the lease cannot be had: {error}")
            return False
        self._renewed, self._holds = started, True
        return True

    async def _try_create(self, started: float) -> bool:
        namespace, name = self._key
        body = self._held() | self._taken()
        metadata = body.get("metadata", {}) | {"namespace": namespace, "name": name}
        try:
            self._lease = await self._api.create(LEASE, body | {"metadata": metadata})
        except NotFound:
            await self._make_namespace(namespace)
            return False
        except ApiError as error:
            if not isinstance(error, (AlreadyExists, Conflict)):
                self._complain(f"the lease cannot be made: {error}")
            return False
        self._renewed, self._holds = started, True
        return True

    async def _make_namespace(self, namespace: str) -> None:
        try:
            await self._api.create(NAMESPACE, {"metadata": {"name": namespace}})
        except AlreadyExists:
            return
        except ApiError as error:
            self._complain(f"the namespace {namespace} is missing and cannot be made: {error}")

    def _is_free(self, now: float) -> bool:
        version = self._version()
        if version != self._seen[0]:
            self._seen = (version, now)
        if not self._holder() or self._holder() in self._predecessors:
            return True
        duration = float(self._spec().get("leaseDurationSeconds") or self._times.duration)
        return now - self._seen[1] >= duration

    def _holder(self) -> str:
        return str(self._spec().get("holderIdentity") or "")

    def _spec(self) -> dict[str, Any]:
        return (self._lease or {}).get("spec") or {}

    def _version(self) -> str:
        return str((self._lease or {}).get("metadata", {}).get("resourceVersion", ""))

    def _held(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "spec": {
                "holderIdentity": self.identity,
                # Whole seconds is all that the field can say; more is the safe side.
                "leaseDurationSeconds": max(1, -int(-self._times.duration // 1)),
                "renewTime": micro_timestamp(self._clock.now()),
            }
        }
        if self._places:
            body["metadata"] = {"annotations": self._places}
        return body

    def _taken(self) -> dict[str, Any]:
        acquired = {
            "acquireTime": micro_timestamp(self._clock.now()),
            "leaseTransitions": int(self._spec().get("leaseTransitions") or 0) + (1 if self._lease else 0),
        }
        return {"spec": self._held()["spec"] | acquired}

    async def _patch(self, body: dict[str, Any]) -> None:
        self._lease = await self._api.patch(LEASE, *self._key, body, resource_version=self._version())

    def _complain(self, complaint: str) -> None:
        """Say it, but not every two seconds."""
        if complaint != self._complaint:
            logger.warning("%s", complaint)
            self._complaint = complaint

    def _show(self, value: int) -> None:
        if self._metrics is not None:
            self._metrics.leader.set(value)
