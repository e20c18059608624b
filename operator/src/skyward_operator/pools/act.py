"""Does what was decided about a pool: creates and deletes nodes, and lets the pool go at the end."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any, assert_never

from skyward.contract.names import (
    API_VERSION,
    FIELD_MANAGER,
    FINALIZER,
    LABEL_MANAGED_BY,
    LABEL_POOL,
    LABEL_RANK,
    LABEL_RUN,
    NODE,
    POOL,
    POOL_FINALIZER,
    node_name,
    ssh_secret_name,
)
from skyward_operator.kube.cascade import others
from skyward_operator.kube.errors import AlreadyExists, Conflict, NotFound
from skyward_operator.kube.kinds import SECRET
from skyward_operator.pools.decide import AddFinalizer, CreateNode, DeleteNode, ForgetPool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from skyward.contract.pool import ComputePool
    from skyward_operator.kube.api import Api
    from skyward_operator.pools.decide import Action
    from skyward_operator.pools.workload import Calls

_AT_ONCE = 16


class Actor:
    """The hands of the pools."""

    def __init__(self, api: Api, calls: Calls) -> None:
        self._api = api
        self._calls = calls
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def perform(self, pool: ComputePool, actions: Iterable[Action]) -> bool:
        """Carry out the actions: first what guards the pool, then the rest side by side. False if a node that
        was to go has a call by now."""
        rest = []
        for action in actions:
            if isinstance(action, AddFinalizer):
                await self._set_finalizers(pool, (*pool.metadata.finalizers, POOL_FINALIZER))
            else:
                rest.append(action)
        done = await asyncio.gather(*(self._perform(pool, each) for each in rest), return_exceptions=True)
        if failures := [error for error in done if isinstance(error, BaseException)]:
            raise failures[0]
        return False not in done

    async def _perform(self, pool: ComputePool, action: CreateNode | DeleteNode | ForgetPool) -> bool:
        async with self._places:
            match action:
                case CreateNode():
                    await self._create(pool, action)
                case DeleteNode():
                    return await self._delete(pool, action)
                case ForgetPool():
                    await self._forget(pool)
                case _:
                    assert_never(action)
        return True

    async def _create(self, pool: ComputePool, action: CreateNode) -> None:
        try:
            await self._api.create(NODE, node_object(pool, action))
        except AlreadyExists:
            return  # the store has not seen it yet; it holds the rank as well

    async def _delete(self, pool: ComputePool, action: DeleteNode) -> bool:
        namespace, name = pool.metadata.namespace or "", pool.metadata.name
        if action.if_idle and not self._calls.retire(namespace, name, action.name):
            return False  # it was given a call since: the next look decides anew
        try:
            await self._api.delete(NODE, namespace, action.name, uid=action.uid)
        except Conflict:
            pass  # another node has taken the name: this one is gone
        except BaseException:
            if action.if_idle:
                self._calls.reinstate(namespace, name, action.name)
            raise
        return True

    async def _forget(self, pool: ComputePool) -> None:
        name, uid = pool.metadata.name, pool.metadata.uid or ""
        await self._api.delete(SECRET, pool.metadata.namespace, ssh_secret_name(name, uid))
        left = tuple(others(pool.metadata.finalizers, POOL_FINALIZER))
        if left != pool.metadata.finalizers:
            await self._set_finalizers(pool, left)

    async def _set_finalizers(self, pool: ComputePool, finalizers: tuple[str, ...]) -> None:
        metadata = pool.metadata
        body: dict[str, Any] = {"metadata": {"finalizers": list(finalizers), "uid": metadata.uid}}
        try:
            await self._api.patch(
                POOL, metadata.namespace, metadata.name, body, resource_version=metadata.resource_version
            )
        except NotFound:
            return


def node_object(pool: ComputePool, action: CreateNode) -> dict[str, Any]:
    """The ComputeNode for a rank: everything that it needs is copied, so that it never changes.

    It is born with its finalizer, which must be on it before anything is bought.
    """
    metadata, uid = pool.metadata, pool.metadata.uid or ""
    labels = {
        LABEL_POOL: metadata.name,
        LABEL_RANK: str(action.rank),
        LABEL_MANAGED_BY: FIELD_MANAGER,
    }
    if run := metadata.labels.get(LABEL_RUN):
        labels[LABEL_RUN] = run
    return {
        "metadata": {
            "namespace": metadata.namespace,
            "name": node_name(metadata.name, uid, action.rank, action.incarnation),
            "labels": labels,
            "finalizers": [FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": POOL.kind,
                    "name": metadata.name,
                    "uid": uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template(pool)
        | {
            "poolRef": {"name": metadata.name, "uid": uid},
            "rank": action.rank,
            "incarnation": action.incarnation,
            "templateHash": template_hash(pool),
        },
    }


def template(pool: ComputePool) -> dict[str, Any]:
    """What every node of the pool is made from."""
    spec = pool.spec
    return {
        "candidates": [candidate.document() for candidate in spec.candidates],
        "image": spec.image.document(),
        "worker": spec.worker.document(),
        "timeouts": spec.timeouts.document(),
    }


def template_hash(pool: ComputePool) -> str:
    """A hash of the template: it differs when a node is out of date."""
    text = json.dumps(template(pool), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
