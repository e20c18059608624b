"""Machines as EC2 shows them, read into the contract's. Pure.

A machine's id holds its region, `us-east-1/i-0123456789abcdef0`: EC2 is asked region by region.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws.side import TAG_OURS, tags_of
from skyward_operator.providers.contract import Address, Machine, MachineState
from skyward_operator.providers.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ID = re.compile(r"([a-z0-9-]+)/(i-[0-9a-f]{8,17})")
TAG_NAME = "Name"
TAG_SSH = "skyward.dev/ssh"
"""How the operator connects: public or private, the user, the port."""
OWN_TAGS = frozenset({TAG_OURS, TAG_NAME, TAG_SSH})
"""Tags that are the adapter's, not its caller's."""
STATES = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "shutting-down": MachineState.STOPPING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPING,
    "terminated": MachineState.GONE,
}
TAKEN = frozenset({"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"})
WORDS = {
    **dict.fromkeys(TAKEN, "AWS took the spot machine back"),
    "Server.InsufficientInstanceCapacity": "AWS had no such machine after all",
    "Server.InternalError": "AWS ended the machine after an error of its own",
    "Client.InstanceInitiatedShutdown": "the machine powered itself off",
    "Client.UserInitiatedShutdown": "the machine was ended by a request",
    "Client.VolumeLimitExceeded": "the account may not have more volumes",
}


def parse_id(machine_id: str) -> tuple[str, str]:
    """Region and instance. Raises Rejected for what is no id of ours."""
    match = ID.fullmatch(machine_id)
    if match is None:
        raise Rejected(f"{machine_id[:64]!r} is not an id of the aws provider")
    return match.group(1), match.group(2)


def machine_id(region: str, instance: Mapping[str, Any]) -> str:
    """The id of an instance."""
    return f"{region}/{instance['InstanceId']}"


def in_reservations(reservations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The instances of an answer."""
    return [instance for reservation in reservations for instance in reservation.get("Instances", ())]


def machine(
    region: str, instance: Mapping[str, Any], host_key: str | None = None, *, in_list: bool = False
) -> Machine:
    """A machine. It has an address once its host key is known: nobody connects without. A list has no keys,
    and an address of its own tells that the machine is worth a closer look."""
    tags = tags_of(instance.get("Tags", ()))
    state = STATES[instance["State"]["Name"]]
    return Machine(
        id=machine_id(region, instance),
        token=str(instance.get("ClientToken") or ""),
        tags={name: value for name, value in tags.items() if name not in OWN_TAGS},
        state=state,
        address=address(instance, tags) if (host_key or in_list) and state is MachineState.RUNNING else None,
        host_key=host_key,
        created=instance.get("LaunchTime"),
        message=message(instance, state),
        preempted=str((instance.get("StateReason") or {}).get("Code", "")) in TAKEN,
    )


def address(instance: Mapping[str, Any], tags: Mapping[str, str]) -> Address | None:
    """Where SSH answers; None while EC2 has not told."""
    kind, user, port = (*tags.get(TAG_SSH, "").split("/"), "", "", "")[:3]
    host = instance.get("PrivateIpAddress" if kind == "private" else "PublicIpAddress")
    return Address(str(host), int(port or 22), user or "ubuntu") if host else None


def message(instance: Mapping[str, Any], state: MachineState) -> str:
    """Why a machine ends, or has."""
    if state not in (MachineState.STOPPING, MachineState.GONE):
        return ""
    reason = instance.get("StateReason") or {}
    code = str(reason.get("Code", ""))
    said = WORDS.get(code) or str(reason.get("Message", "")) or f"it is {instance['State']['Name']}"
    return f"{said} ({code})" if code else said


def is_ending(instance: Mapping[str, Any]) -> bool:
    """Whether a machine ends without anybody doing something: one that is only stopped does not."""
    return bool(instance["State"]["Name"] in ("shutting-down", "terminated"))
