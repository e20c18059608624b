"""The kinds that the operator touches, and where each lives in the API.

Skyward's own kinds come from the contract; the few others are declared here in the same shape, so
that the API client takes either.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from skyward.contract.names import Kind

SECRET: Final = Kind("Secret", "secrets", "secret", "", group="", version="v1")
CONFIG_MAP: Final = Kind("ConfigMap", "configmaps", "configmap", "cm", group="", version="v1")
EVENT: Final = Kind("Event", "events", "event", "ev", group="", version="v1")
NAMESPACE: Final = Kind(
    "Namespace", "namespaces", "namespace", "ns", group="", version="v1", namespaced=False
)
LEASE: Final = Kind("Lease", "leases", "lease", "", group="coordination.k8s.io", version="v1")
CRD: Final = Kind(
    "CustomResourceDefinition",
    "customresourcedefinitions",
    "customresourcedefinition",
    "crd",
    group="apiextensions.k8s.io",
    version="v1",
    namespaced=False,
)


def collection_path(kind: Kind, namespace: str | None) -> str:
    """The path of all objects of a kind, in one namespace or (None) in all of them."""
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"
    if namespace and kind.namespaced:
        return f"{root}/namespaces/{quote(namespace, safe='')}/{kind.plural}"
    return f"{root}/{kind.plural}"


def object_path(kind: Kind, namespace: str | None, name: str) -> str:
    """The path of one object."""
    if kind.namespaced and not namespace:
        raise ValueError(f"{kind.kind} {name} needs a namespace")
    return f"{collection_path(kind, namespace)}/{quote(name, safe='')}"


def describe(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    """How messages name an object: `Task default/train-1`, or `tasks in default`."""
    if name is None:
        return f"{kind.plural} in {namespace}" if namespace else kind.plural
    return f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}"
