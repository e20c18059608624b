"""The SSH key of each pool: made on first need, kept in a Secret that the pool owns.

One key per pool, so that a machine of one pool opens no door to another's. The private key is never logged,
never put into an object other than the Secret, and never sent to a machine.
"""

from __future__ import annotations

import asyncio
import base64
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
from skyward_operator.kube.errors import AlreadyExists, NotFound
from skyward_operator.kube.kinds import SECRET

if TYPE_CHECKING:
    from skyward_operator.kube.api import Api

PRIVATE, PUBLIC = "ssh-privatekey", "ssh-publickey"


class Identities:
    """The keys that are known, by the UID of their pool."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._keys: dict[str, asyncssh.SSHKey] = {}
        self._loading = asyncio.Lock()

    async def key(self, namespace: str, pool: str, pool_uid: str) -> asyncssh.SSHKey:
        """The pool's key pair."""
        if pool_uid not in self._keys:
            async with self._loading:  # the nodes of a pool start together, and share one read
                if pool_uid not in self._keys:
                    self._keys[pool_uid] = await self._load_or_make(namespace, pool, pool_uid)
        return self._keys[pool_uid]

    def forget(self, pool_uid: str) -> None:
        """The pool is gone."""
        self._keys.pop(pool_uid, None)

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
