"""Keeps what machines have cost that are gone: a ConfigMap beside the operator's Lease, by namespace.

It outlives nodes, pools and namespaces, and users cannot write it. A node's object goes only after its cost
is in here. Only the operator that leads writes it, and only over what it has read.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import NODE, POOL, SPENDING_SUFFIX
from skyward.contract.node import ComputeNode
from skyward_operator.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from skyward_operator.kube.kinds import CONFIG_MAP
from skyward_operator.kube.store import uid_of
from skyward_operator.money.meter import meter_of
from skyward_operator.money.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skyward_operator.context import Context
    from skyward_operator.kube.store import Object
    from skyward_operator.money.meter import Meter

logger = logging.getLogger(__name__)

_ATTEMPTS: Final = 5


class Ledger:
    """The spending of all namespaces, in memory and in its ConfigMap."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self._context = context
        self._place = (settings.lease_namespace, f"{settings.lease_name}{SPENDING_SUFFIX}")
        self._known: dict[str, Spending] = {}
        self._version: str | None = None
        """The resourceVersion of what was read; None: there is no ConfigMap yet."""
        self._loaded = False
        self._lock = asyncio.Lock()

    async def of(self, namespace: str) -> Spending:
        """The spending of a namespace."""
        if not self._loaded:
            async with self._lock:
                await self._load()
        return self._known.get(namespace, Spending())

    def known(self, namespace: str) -> Spending | None:
        """The same without asking anybody; None before it was read."""
        return self._known.get(namespace, Spending()) if self._loaded else None

    @property
    def places(self) -> frozenset[str]:
        """Namespaces where something was spent, as far as it was read."""
        return frozenset(self._known)

    async def settle(self, node: ComputeNode) -> None:
        """Have the cost of a node's machine, which is gone, written down for good. The node's object may go
        once this returns. Others that are as far are written with it. Raises ApiError."""
        namespace, now = node.metadata.namespace or "", self._context.clock.now()
        meter = meter_of(node)
        if meter is None or not (meter.cost(now) or meter.on_demand_cost(now)):
            return
        async with self._lock:
            for attempt in range(_ATTEMPTS):
                await self._load()
                before = self._known.get(namespace, Spending())
                if meter.uid in before.settled:
                    return
                after = self._tidied(namespace, before).settle([meter, *self._over(namespace)], now)
                try:
                    await self._write(namespace, after)
                except (Conflict, AlreadyExists):
                    self._loaded = False
                    if attempt == _ATTEMPTS - 1:
                        raise
                except ApiError:
                    self._loaded = False  # it may have been written all the same
                    raise
                else:
                    self._known[namespace] = after
                    return

    def _over(self, namespace: str) -> Iterator[Meter]:
        """Machines of a namespace that are gone and whose nodes are to go."""
        for obj in self._nodes(namespace):
            billing = (obj.get("status") or {}).get("billing") or {}
            if "deletionTimestamp" in obj["metadata"] and billing.get("endTime"):
                meter = meter_of(ComputeNode.read(obj))
                if meter is not None and meter.ended is not None:
                    yield meter

    def _tidied(self, namespace: str, spending: Spending) -> Spending:
        nodes = {uid_of(obj) for obj in self._nodes(namespace)}
        pools = {uid_of(obj) for obj in self._context.store.list(POOL) if _namespace(obj) == namespace}
        return spending.forget(nodes, pools)

    def _nodes(self, namespace: str) -> list[Object]:
        return [obj for obj in self._context.store.list(NODE) if _namespace(obj) == namespace]

    async def _load(self) -> None:
        if self._loaded:
            return
        try:
            found = await self._context.api.get(CONFIG_MAP, *self._place)
        except NotFound:
            # What this process knows is not forgotten because somebody deleted the ConfigMap.
            self._version = None
        else:
            self._version = str(found["metadata"]["resourceVersion"])
            self._known = {name: Spending.read(text) for name, text in (found.get("data") or {}).items()}
        self._loaded = True

    async def _write(self, namespace: str, spending: Spending) -> None:
        place, name = self._place
        if self._version is None:
            texts = {each: known.text() for each, known in (self._known | {namespace: spending}).items()}
            made: dict[str, Any] = {"metadata": {"name": name, "namespace": place}, "data": texts}
            written = await self._context.api.create(CONFIG_MAP, made)
        else:
            body = {"data": {namespace: spending.text()}}
            try:
                written = await self._context.api.patch(
                    CONFIG_MAP, place, name, body, resource_version=self._version
                )
            except NotFound as error:
                logger.warning("ConfigMap %s/%s with what was spent is gone; it is made again", place, name)
                raise Conflict(str(error)) from error
        self._version = str(written["metadata"]["resourceVersion"])


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))
