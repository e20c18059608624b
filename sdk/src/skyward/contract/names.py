"""Names that both sides rely on: group, kinds, labels, annotations, finalizers, and derived object names.

A derived name is a pure function of what identifies the thing, so that making it twice ends in
`409 AlreadyExists` and never in a second machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

GROUP = "skyward.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "skyward"

#: Raised with each change of the schemas; a client compares it with the annotation of the served CRD.
SCHEMA_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource type as the API server addresses it."""

    kind: str
    plural: str
    singular: str
    short: str
    group: str = GROUP
    version: str = VERSION
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version` as it stands in manifests; the core group has no name."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def crd_name(self) -> str:
        """Name of the CustomResourceDefinition that serves this kind."""
        return f"{self.plural}.{self.group}"


POOL = Kind("ComputePool", "computepools", "computepool", "skp")
NODE = Kind("ComputeNode", "computenodes", "computenode", "skn")
TASK = Kind("Task", "tasks", "task", "skt")
KINDS = (POOL, NODE, TASK)

LABEL_POOL = f"{GROUP}/pool"
LABEL_RUN = f"{GROUP}/run"
LABEL_RANK = f"{GROUP}/rank"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"

FINALIZER = f"{GROUP}/machine"
"""On nodes: removed only after the provider proved that the machine is gone."""
POOL_FINALIZER = f"{GROUP}/pool"
TASK_FINALIZER = f"{GROUP}/task"

ANNOTATION_SCHEMA = f"{GROUP}/schema-version"
"""On each CustomResourceDefinition: the SCHEMA_VERSION that it was generated from."""
ANNOTATION_GATEWAY = f"{GROUP}/gateway-url"
"""On the operator's Lease: where clients reach the gateway."""
ANNOTATION_GATEWAY_SERVICE = f"{GROUP}/gateway-service"
"""On the operator's Lease, where the gateway is behind a Service: `NAMESPACE/NAME:PORT`. Clients outside of
the cluster go through the API server's proxy to it; what ANNOTATION_GATEWAY says is for those inside."""
ANNOTATION_END_ORPHANS = f"{GROUP}/end-orphans"
"""On the ConfigMap of accounts: so many machines without a node may be ended at once; it holds once."""
ANNOTATION_RENEWED = f"{GROUP}/lease-renewed"
"""On a pool with a lease: RFC 3339 time of its client's last sign of life."""
ANNOTATION_TICKET = f"{GROUP}/ticket-hash"
"""On a task or pool: SHA-256 of a reader's ticket, for who may update it may read its output and results."""

ANNOTATION_BUDGET_TOTAL = f"{GROUP}/budget-max-total"
"""On a Namespace: the most US dollars that all its pools together may cost, as a decimal string."""
ANNOTATION_BUDGET_PERIOD = f"{GROUP}/budget-period"
"""On a Namespace: what that is for, `day` or `month` (UTC). Without it: for ever."""
ANNOTATION_BUDGET_HOURLY = f"{GROUP}/budget-max-hourly"
"""On a Namespace: the most US dollars per hour that all its machines together may cost."""
ANNOTATION_BUDGET_NODES = f"{GROUP}/budget-max-nodes"
"""On a Namespace: the most machines that it may have at once."""
ANNOTATION_BUDGET_UNKNOWN = f"{GROUP}/budget-unknown-price"
"""On a Namespace: `Allow` has machines bought whose price the provider does not tell; else `Deny`."""

LEASE_NAME = "skyward-operator"
ACCOUNTS_SUFFIX = "-accounts"
"""The ConfigMap of the accounts where machines were ordered is named as the operator's Lease, and this."""
SPENDING_SUFFIX = "-spending"
"""The ConfigMap with what machines have cost that are gone is named as the operator's Lease, and this."""
SYSTEM_NAMESPACE = "skyward-system"
GATEWAY_SERVICE = "skyward-gateway"
GATEWAY_PORT = 8080
"""The Service that an installation gives the gateway, in SYSTEM_NAMESPACE."""
FIELD_MANAGER = "skyward-operator"

POOL_NAME_LIMIT = 40
"""Nodes and cloud resources add a rank and a hash to a pool's name and must stay within 63 characters."""
NAME_LIMIT = 63
RANK_LIMIT = 999
_INCARNATIONS = 4096
"""So many machines of one rank are known again by their names."""


def node_name(pool: str, pool_uid: str, rank: int, incarnation: int) -> str:
    """Name of the node object that holds `rank` of a pool for the `incarnation`-th time.

    The hash keeps two pools of the same name (one deleted, one new) and two incarnations of one rank apart.
    At most 54 characters for a pool name within its limit.
    """
    identity = f"{pool_uid}/{rank}/{incarnation}".encode()
    return f"{pool}-{rank}-{hashlib.sha256(identity).hexdigest()[:8]}"


def is_node_of(name: str, pool: str, pool_uid: str) -> bool:
    """Whether a node of this name was made for this very pool. For a node whose object is gone."""
    rank, _, _ = name.removeprefix(f"{pool}-").rpartition("-")
    if not name.startswith(f"{pool}-") or not rank.isdecimal() or int(rank) > RANK_LIMIT:
        return False
    made = (node_name(pool, pool_uid, int(rank), incarnation) for incarnation in range(_INCARNATIONS))
    return name in made


def ssh_secret_name(pool: str, pool_uid: str) -> str:
    """Name of the Secret with the SSH key pair that the operator makes for one pool."""
    return f"{pool}-ssh-{hashlib.sha256(pool_uid.encode()).hexdigest()[:8]}"


def pool_selector(pool: str) -> str:
    """Label selector that finds the nodes of one pool; also shown by the scale subresource."""
    return f"{LABEL_POOL}={pool}"
