"""The operator as a child process of the embedded control plane: its command, and when it is ready."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from skyward.local.home import Home

ENDPOINTS_FILE = "endpoints.json"
"""Written by the operator into its data folder when it is ready."""


@dataclass(frozen=True, slots=True)
class OperatorEndpoints:
    """Where a ready operator listens."""

    gateway: str
    health: str


def operator_command(home: Home) -> list[str]:
    """How to start the operator; it is a distribution of its own and is never imported here."""
    return [
        *(sys.executable, "-m", "skyward_operator", "run"),
        *("--kubeconfig", str(home.operator_kubeconfig)),
        *("--data-dir", str(home.operator)),
    ]


def read_endpoints(home: Home) -> OperatorEndpoints | None:
    """Answer where the operator listens, or None while it is not ready."""
    try:
        document = json.loads((home.operator / ENDPOINTS_FILE).read_bytes())
        return OperatorEndpoints(str(document["gateway"]), str(document["health"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_endpoints(home: Home) -> None:
    """Remove what an earlier operator left, so that its readiness is not taken for that of the next one."""
    (home.operator / ENDPOINTS_FILE).unlink(missing_ok=True)


def leftovers(home: Home) -> Sequence[str]:
    """Arguments that only the processes of this home have, the operator's first and etcd's last."""
    return (str(home.operator_kubeconfig), f"--cert-dir={home.pki}", f"--data-dir={home.etcd}")
