"""What a machine does at its first boot, as its provider's user-data for cloud-init. Pure.

It arms the dead-man's switch before anybody can connect, so that an operator which dies right after it bought
a machine leaks nothing, and gives the machine its host key. Whoever may log in there, or describe the machine
at its provider, can read this: no other secret may ever be in it.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyward_operator.nodes.host_key import HostKey

HEAD = "#cloud-config\n"
LONGEST = 16384
"""Bytes that EC2 takes; others take as many or more."""
ARM = 'script=$1; shift; eval "$script"'
SCRIPT = """\
#!/bin/bash
IFS= read -r -d '' script <<'SKYWARD_DEADMAN'
{switch}
SKYWARD_DEADMAN
set -- arm {ttl} {power_off}
eval "$script"
"""


def user_data(switch: str, ttl: int, power_off: str, key: HostKey | None) -> str | None:
    """A script that arms the switch; a cloud-config document where there is a host key, which has to be there
    before the SSH server is. None if there is nothing to be done."""
    arms = bool(ttl and power_off)
    if key is None:
        return SCRIPT.format(ttl=ttl, power_off=shlex.quote(power_off), switch=switch) if arms else None
    document: dict[str, Any] = {
        "ssh_deletekeys": True,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": key.public},
    }
    if arms:
        document["runcmd"] = [["bash", "-c", ARM, "deadman", switch, "arm", str(ttl), power_off]]
    return HEAD + json.dumps(document)  # JSON is YAML, and needs no quoting of ours


def boot_ttl(ttl: int, ssh_seconds: int) -> int:
    """Seconds of silence at first: not fewer than the operator may take to connect. 0 stays 0."""
    return max(ttl, ssh_seconds) if ttl else 0
