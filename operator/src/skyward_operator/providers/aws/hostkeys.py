"""SSH host keys of machines, read from their consoles.

The console comes through AWS's API, so whoever sits between the operator and a machine cannot change it, and
nothing secret had to be sent to the machine. The first key that is seen stays a machine's key: later, its own
processes could write to the console.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward_operator.providers.aws.meanings import NotThere
from skyward_operator.providers.errors import Rejected

if TYPE_CHECKING:
    from skyward_operator.providers.aws.clients import Clients

SAID = re.compile(r"^skyward-host-key (ssh-ed25519 [A-Za-z0-9+/]{68})\.\r?$", re.MULTILINE)
"""What userdata.sh writes; the full stop tells that the line is whole."""
BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
"""What cloud-init itself writes, with whatever the console puts before each line."""
IN_BLOCK = re.compile(r"(ssh-ed25519 [A-Za-z0-9+/]{68})(?![A-Za-z0-9+/=])")
REMEMBERED = 10_000
LOOK_SECONDS = 1.0
"""So often a console is read for a key, at most: a machine takes some seconds to boot."""


@dataclass(slots=True)
class HostKeys:
    """The keys that are known, by machine."""

    clients: Clients
    _known: dict[str, str] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)
    """When a console was last read, in monotonic seconds."""

    async def of(self, region: str, instance: str) -> str | None:
        """The machine's key, or None if it has not said it yet."""
        if instance in self._known:
            return self._known[instance]
        if time.monotonic() - self._looked.get(instance, float("-inf")) < LOOK_SECONDS:
            return None
        if len(self._looked) >= REMEMBERED:
            self._looked.clear()
            self._known.clear()
        self._looked[instance] = time.monotonic()
        key = host_key(await self.console(region, instance))
        if key is not None:
            self._known[instance] = key
        return key

    async def console(self, region: str, instance: str) -> str:
        """The last 64 KB of a machine's console; empty if there is nothing, or no such machine."""
        try:
            return await self._output(region, instance, latest=True)
        except NotThere:
            return ""
        except Rejected:  # a type of the generations before Nitro has none but that of its boot
            return await self._output(region, instance, latest=False)

    async def _output(self, region: str, instance: str, *, latest: bool) -> str:
        parameters = {"Latest": True} if latest else {}
        try:
            answer = await self.clients.call(
                "ec2", region, "get_console_output", InstanceId=instance, **parameters
            )
        except NotThere:
            return ""
        return str(answer.get("Output") or "")


def host_key(console: str) -> str | None:
    """The Ed25519 host key that a console shows first."""
    if said := SAID.search(console):
        return said.group(1)
    block = BLOCK.search(console)
    found = IN_BLOCK.search(block.group(1)) if block else None
    return found.group(1) if found else None
