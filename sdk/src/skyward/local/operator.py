"""The operator as a child process of the embedded control plane: its command, and when it is ready."""

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from skyward.local.home import Home, write_private
from skyward.local.processes import find_by_argument

ENDPOINTS_FILE = "endpoints.json"
"""Written by the operator into its data folder when it is ready."""
_HOLDERS_KEPT = 8
"""Longer than a lease lasts, at the pace at which a process that keeps ending is started again."""


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


def succession(home: Home) -> list[str]:
    """Flags for the next operator process: a name for it alone, and those of earlier ones that have ended.

    An operator that is killed cannot give its lease back, and the next one would wait until it expires. A
    name is kept before its process starts, so that it is known whoever started it; it counts as ended once
    no process has it among its arguments. Several are kept, because one may end before it holds the lease.
    """
    known = _read_holders(home)
    holder = f"local-{secrets.token_hex(8)}"
    write_private(home.operator_holders, "\n".join([*known, holder][-_HOLDERS_KEPT:]).encode())
    ended = [name for name in known if not find_by_argument(f"--holder={name}")]
    return [f"--holder={holder}", *([f"--predecessors={','.join(ended)}"] if ended else [])]


def _read_holders(home: Home) -> list[str]:
    try:
        return home.operator_holders.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []


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
