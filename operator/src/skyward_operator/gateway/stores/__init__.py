"""Where the complete files of tasks are kept: on the operator's disk, or in a bucket that outlives it.

The folders of `gateway.blobs` are where the operator works, with any store: payloads are used from there and
results are written there. A store other than the disk gets a copy of what is complete, and gives it back to
an operator that has come up without those folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward.contract.names import TASK
from skyward_operator.gateway.stores.contract import Blob, Store, StoreError
from skyward_operator.gateway.stores.disk import DiskStore
from skyward_operator.kube.kinds import CRD

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.gateway.blobs import BlobStore

__all__ = ["Blob", "DiskStore", "Store", "StoreError", "open_store"]


def open_store(context: Context, blobs: BlobStore) -> Store:
    """The store that the settings name."""
    settings = context.settings
    if settings.blob_store is None:
        return DiskStore(blobs)

    async def installation() -> str:
        # Its life is that of all Tasks of this cluster: two clusters may share a bucket and a prefix.
        crd = await context.api.get(CRD, None, TASK.crd_name)
        return str(crd["metadata"]["uid"])

    from skyward_operator.gateway.stores.s3 import S3Store  # boto3 takes 0.3 s and 25 MiB

    return S3Store(settings.blob_store, installation, namespaces=settings.namespaces)
