"""What EC2 shows, and what it does not show yet: its views lag behind its orders."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws.instances import in_reservations, parse_id
from skyward_operator.providers.aws.meanings import NotThere

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward_operator.providers.aws.clients import Clients
    from skyward_operator.providers.contract import Machine

VISIBILITY_SECONDS = 120.0
"""The lag is mostly less than a second; no bound is promised."""


@dataclass(slots=True)
class Sight:
    """The instances of one account."""

    clients: Clients
    _ordered: dict[str, tuple[float, Machine]] = field(default_factory=dict)
    """Machines that this process has bought, as long as EC2 may not show them yet."""

    async def instances(self, region: str, **what: Any) -> Sequence[dict[str, Any]]:
        """All that fit, from all pages."""
        return in_reservations(
            await self.clients.pages("ec2", region, "describe_instances", "Reservations", **what)
        )

    async def instance(self, region: str, name: str) -> dict[str, Any] | None:
        """One of them; None where EC2 knows none of that name."""
        try:
            found = await self.instances(region, InstanceIds=[name])
        except NotThere:
            return None
        return found[0] if found else None

    def remember(self, bought: Machine) -> None:
        """This one was bought now."""
        now = time.monotonic()
        self._ordered = {
            name: (at, each) for name, (at, each) in self._ordered.items() if now - at < VISIBILITY_SECONDS
        }
        self._ordered[bought.id] = (now, bought)

    def not_shown_yet(self, machine_id: str) -> Machine | None:
        """A machine that was bought a moment ago, and that EC2 therefore need not know of everywhere."""
        at, bought = self._ordered.get(machine_id, (float("-inf"), None))
        return bought if time.monotonic() - at < VISIBILITY_SECONDS else None

    def lately(self) -> set[str]:
        """Regions in which something was bought lately."""
        return {parse_id(machine_id)[0] for machine_id in self._ordered}
