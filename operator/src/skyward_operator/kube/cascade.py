"""What `kubectl delete --cascade=foreground` and `--cascade=orphan` leave on an object.

Both set a finalizer that a cluster's garbage collector takes off. A control plane without one keeps the
object for ever, so whoever owns an object takes these off as well, once nothing depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from skyward_operator.kube.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from skyward.contract.names import Kind
    from skyward_operator.kube.api import Api

CASCADE_FINALIZERS: Final = frozenset({"foregroundDeletion", "orphan"})


def others(finalizers: Iterable[str], own: str = "") -> list[str]:
    """The finalizers that somebody else has to take off."""
    return [each for each in finalizers if each != own and each not in CASCADE_FINALIZERS]


async def let_go(api: Api, kind: Kind, obj: dict[str, Any]) -> None:
    """Take the finalizers of a cascade off a deleted object on which nothing depends."""
    metadata = obj["metadata"]
    finalizers = metadata.get("finalizers") or []
    left = others(finalizers)
    if "deletionTimestamp" not in metadata or left == finalizers:
        return
    body = {"metadata": {"finalizers": left, "uid": metadata["uid"]}}
    try:
        await api.patch(
            kind,
            metadata["namespace"],
            metadata["name"],
            body,
            resource_version=metadata["resourceVersion"],
        )
    except (Conflict, NotFound):
        return  # it has changed: the change is seen as well
