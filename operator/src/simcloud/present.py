"""How the API shows things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simcloud.clock import iso
from simcloud.state import Condition

if TYPE_CHECKING:
    from simcloud.accounts import Account
    from simcloud.state import Instance, SideResource

WRONG_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDgGXxvxPqxNBhUVmBNUKFWXyKGHBVfUlnrRbHKVbZxk"
"""A valid key that no machine has."""


def instance(
    one: Instance, account: Account, user: str, condition: Condition | None = None
) -> dict[str, Any]:
    """A machine. Its address is known once it runs, its host key only to accounts that are shown it."""
    condition = condition or one.condition()
    up = condition in (Condition.RUNNING, Condition.STOPPING) and one.running is not None
    host_key = WRONG_HOST_KEY if one.fate.wrong_host_key else one.host_key
    return {
        "id": one.id,
        "client_token": one.token,
        "name": one.name,
        "state": str(condition),
        "region": one.region,
        "instance_type": one.instance_type,
        "market": one.market,
        "hourly": f"{one.intervals[-1].hourly:f}",
        "tags": one.tags,
        "created": iso(one.created),
        "address": {"host": one.host, "port": one.port, "user": user} if up else None,
        "host_key": host_key if account.profile == "full" else None,
        "interruption": notice(one) if one.noticed is not None else None,
        "message": one.cause,
    }


def notice(one: Instance) -> dict[str, Any]:
    """An announced interruption."""
    return {"instance": one.id, "at": iso(one.interrupted_at or 0.0), "action": "terminate"}


def side(one: SideResource) -> dict[str, Any]:
    """A side resource."""
    return {"id": one.id, "kind": one.kind, "name": one.name, "tags": one.tags, "content": one.content}
