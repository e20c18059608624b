"""Who may do what, as data: the operator's rules, and roles for people.

The chart and the embedded control plane write their ClusterRoles from here. The operator gets what it uses
and no more: it never reads Secrets in bulk, and never writes a spec that belongs to people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skyward.contract.names import (
    ACCOUNTS_SUFFIX,
    GATEWAY_PORT,
    GATEWAY_SERVICE,
    GROUP,
    KINDS,
    LEASE_NAME,
    NODE,
    POOL,
    SPENDING_SUFFIX,
    TASK,
)

type Rule = dict[str, list[str]]

_READ = ["get", "list", "watch"]


def _rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> Rule:
    made = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return {**made, "resourceNames": names} if names else made


OPERATOR_RULES: list[Rule] = [
    # patch is for finalizers; a pool is deleted when its lease has run out
    _rule(GROUP, [POOL.plural], [*_READ, "patch", "delete"]),
    _rule(GROUP, [NODE.plural], [*_READ, "create", "patch", "delete"]),
    # a task is deleted when its time to live has run out
    _rule(GROUP, [TASK.plural], [*_READ, "patch", "delete"]),
    _rule(GROUP, [f"{kind.plural}/status" for kind in (POOL, NODE, TASK)], ["get", "patch"]),
    # owner references with blockOwnerDeletion need this where the cluster enforces it
    _rule(GROUP, [f"{kind.plural}/finalizers" for kind in (POOL, NODE, TASK)], ["update"]),
    _rule("", ["events"], ["create", "patch"]),
    # a create cannot be limited by name
    _rule("coordination.k8s.io", ["leases"], ["create"]),
    _rule("coordination.k8s.io", ["leases"], ["get", "update", "patch"], [LEASE_NAME]),
    # the accounts where machines were ordered are remembered, to be looked through for what nobody owns
    _rule("", ["configmaps"], ["create"]),
    _rule("", ["configmaps"], ["get", "patch"], [f"{LEASE_NAME}{ACCOUNTS_SUFFIX}"]),
    # what machines have cost that are gone, per namespace; it outlives pools
    _rule("", ["configmaps"], ["get", "patch"], [f"{LEASE_NAME}{SPENDING_SUFFIX}"]),
    # budgets of namespaces are annotations that their users cannot write
    _rule("", ["namespaces"], ["get"]),
    # the schema version is compared before anything is written
    _rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["get"], [kind.crd_name for kind in KINDS]),
    # credentials are read by name; key pairs of pools are made and removed
    _rule("", ["secrets"], ["get", "create", "patch", "delete"]),
]
"""What the operator may do, in every namespace that it watches."""


@dataclass(frozen=True, slots=True)
class Role:
    """A ClusterRole for people, bound per namespace or for the cluster."""

    name: str
    description: str
    rules: list[Rule]

    def document(self, labels: dict[str, str] | None = None) -> dict[str, Any]:
        """The ClusterRole, ready to be applied."""
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": self.name, "labels": labels or {}},
            "rules": self.rules,
        }


_FIND_GATEWAY = _rule("coordination.k8s.io", ["leases"], ["get"], [LEASE_NAME])
_EVENTS = _rule("", ["events"], _READ)

VIEWER = Role(
    "skyward-viewer",
    "See pools, nodes and tasks.",
    [
        _rule(GROUP, [kind.plural for kind in (POOL, NODE, TASK)], _READ),
        _rule(GROUP, [f"{POOL.plural}/scale"], ["get"]),
        _EVENTS,
        _FIND_GATEWAY,
    ],
)
EDITOR = Role(
    "skyward-editor",
    "Make, change, scale and delete pools and tasks; replace nodes by deleting them.",
    [
        _rule(
            GROUP,
            [POOL.plural, TASK.plural],
            [*_READ, "create", "update", "patch", "delete", "deletecollection"],
        ),
        _rule(GROUP, [NODE.plural], [*_READ, "delete"]),
        _rule(GROUP, [f"{POOL.plural}/scale"], ["get", "update", "patch"]),
        _EVENTS,
        _FIND_GATEWAY,
    ],
)
USER_ROLES = (VIEWER, EDITOR)

GATEWAY = Role(
    "skyward-gateway",
    "Find the gateway and reach it through the API server. Bind it in the operator's namespace.",
    [
        _FIND_GATEWAY,
        # a GET needs get, and a PUT update; the name is that of the path, with the port
        _rule("", ["services/proxy"], ["get", "update"], [f"{GATEWAY_SERVICE}:{GATEWAY_PORT}"]),
    ],
)
"""For everybody who works with Skyward from outside of the cluster. It opens nothing by itself: what a person
may read or write there is decided by the tickets of objects."""

OPERATOR = Role("skyward-operator", "What the operator may do.", OPERATOR_RULES)
