"""The SSH key of each pool: made on first need, kept in a Secret that the pool owns.

One key per pool, so that a machine of one pool opens no door to another's. The private key is never logged,
never put into an object other than the Secret, and never sent to a machine. A Secret that somebody deletes
while the pool has machines is put back as it was: without it, they could not be met after the next restart.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import TYPE_CHECKING, Any

import asyncssh

from skyward.contract.names import (
    API_VERSION,
    FIELD_MANAGER,
    LABEL_MANAGED_BY,
    LABEL_POOL,
    POOL,
    ssh_secret_name,
)
from skyward.contract.reasons import PoolReason
from skyward_operator.kube.errors import AlreadyExists, ApiError, NotFound
from skyward_operator.kube.kinds import SECRET

if TYPE_CHECKING:
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api
    from skyward_operator.kube.events import Events
    from skyward_operator.kube.store import Object, Store

logger = logging.getLogger(__name__)

PRIVATE, PUBLIC = "ssh-privatekey", "ssh-publickey"
LOOK_SECONDS = 30.0

type Owner = tuple[str, str, str]
"""Namespace, name and UID of a pool."""


class Identities:
    """The keys of pools that are known."""

    def __init__(self, api: Api, store: Store, events: Events, clock: Clock) -> None:
        self._api = api
        self._store = store
        self._events = events
        self._clock = clock
        self._keys: dict[Owner, asyncssh.SSHKey] = {}
        self._loading = asyncio.Lock()

    async def key(self, namespace: str, pool: str, pool_uid: str) -> asyncssh.SSHKey:
        """The pool's key pair."""
        owner = (namespace, pool, pool_uid)
        if owner not in self._keys:
            async with self._loading:  # the nodes of a pool start together, and share one read
                if owner not in self._keys:
                    self._keys[owner] = await self._load_or_make(*owner)
        return self._keys[owner]

    async def guard(self) -> None:
        """Put back Secrets that are deleted while their pool lives, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            for owner in list(self._keys):
                try:
                    await self._look_after(owner)
                except ApiError as error:
                    logger.warning("the SSH key of pool %s/%s was not looked at: %s", *owner[:2], error)

    async def _look_after(self, owner: Owner) -> None:
        namespace, pool, uid = owner
        obj = self._store.get(POOL, namespace, pool)
        if obj is None or obj["metadata"].get("uid") != uid:
            del self._keys[owner]  # the pool is gone, and its Secret with it
        elif "deletionTimestamp" not in obj["metadata"]:
            name = ssh_secret_name(pool, uid)
            try:
                await self._api.get(SECRET, namespace, name)
            except NotFound:
                await self._put_back(obj, owner, name)

    async def _put_back(self, obj: Object, owner: Owner, name: str) -> None:
        namespace, pool, uid = owner
        await self._api.create(SECRET, secret_manifest(namespace, name, pool, uid, self._keys[owner]))
        text = f"somebody deleted Secret {name}, the SSH key of machines that run; it is back as it was"
        self._events.emit(obj, "Warning", str(PoolReason.SSH_KEY_RESTORED), text)
        logger.warning("pool %s/%s: %s", namespace, pool, text)

    async def _load_or_make(self, namespace: str, pool: str, pool_uid: str) -> asyncssh.SSHKey:
        name = ssh_secret_name(pool, pool_uid)
        try:
            secret = await self._api.get(SECRET, namespace, name)
        except NotFound:
            key = asyncssh.generate_private_key("ssh-ed25519", comment=f"skyward {namespace}/{pool}")
            try:
                secret = await self._api.create(SECRET, secret_manifest(namespace, name, pool, pool_uid, key))
            except AlreadyExists:
                secret = await self._api.get(SECRET, namespace, name)
        return asyncssh.import_private_key(base64.b64decode(secret["data"][PRIVATE]))


def secret_manifest(
    namespace: str, name: str, pool: str, pool_uid: str, key: asyncssh.SSHKey
) -> dict[str, Any]:
    """The Secret that keeps a pool's key; it goes with the pool."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": POOL.kind,
        "name": pool,
        "uid": pool_uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {LABEL_POOL: pool, LABEL_MANAGED_BY: FIELD_MANAGER},
            "ownerReferences": [owner],
        },
        "type": "kubernetes.io/ssh-auth",
        "data": {
            PRIVATE: base64.b64encode(key.export_private_key("openssh")).decode(),
            PUBLIC: base64.b64encode(key.export_public_key("openssh")).decode(),
        },
    }
