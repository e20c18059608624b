"""The embedded control plane: a real etcd, a real kube-apiserver and the operator, as processes of this user.

It exists so that a person without a cluster uses the same kinds, operator, agent and link as one in a cloud.
`ensure` starts it or joins the one that runs, `find` only looks, and both answer with an `Endpoint`. Nothing
in here may run in a cluster, listen beyond the loopback interface, or open a port without credentials.

The parts are imported at their first use: they bring the process table, locks and HTTP with them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyward.local.endpoint import Endpoint
    from skyward.local.plane import ensure, find
    from skyward.local.progress import Report, Step

__all__ = ["Endpoint", "Report", "Step", "ensure", "find"]

_HOMES = {
    "Endpoint": "endpoint",
    "Report": "progress",
    "Step": "progress",
    "ensure": "plane",
    "find": "plane",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
