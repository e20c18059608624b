"""Regions and zones. An offer's region is a zone, such as us-east-1a: it has its own capacity."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skyward_operator.providers.errors import Rejected
from skyward_operator.providers.fit import unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward_operator.providers.aws.account import Account
    from skyward_operator.providers.aws.clients import Clients

PLACE = re.compile(r"([a-z]{2,}(?:-[a-z]+)+-\d+)([a-z]?)")


class Places:
    """The regions that an account may use, asked once."""

    def __init__(self, account: Account, clients: Clients) -> None:
        self._account = account
        self._clients = clients
        self._enabled: tuple[str, ...] | None = None

    async def regions(self) -> Sequence[str]:
        """Every region where machines of this account can be."""
        return self._account.regions or await self.enabled()

    async def enabled(self) -> Sequence[str]:
        """The regions that are switched on for the account."""
        if self._enabled is None:
            answer = await self._clients.call("ec2", self._account.region, "describe_regions")
            self._enabled = tuple(sorted(each["RegionName"] for each in answer["Regions"]))
        return self._enabled

    async def wanted(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """The regions that a candidate means, each with the zones that it names; without any: all zones.

        Raises Rejected for a name that is neither a region nor a zone of one.
        """
        found: dict[str, set[str]] = {}
        whole: set[str] = set()
        for name in names or (self._account.region,):
            match = PLACE.fullmatch(name)
            region, letter = match.groups() if match else (name, "")
            found.setdefault(region, set())
            if letter:
                found[region].add(name)
            else:
                whole.add(region)
        known = await self.regions()
        if strange := sorted(set(found) - set(known)):
            what = "region that this account uses"
            raise Rejected(f"regions: {unknown(strange, known, what)}")
        return {
            region: frozenset() if region in whole else frozenset(zones) for region, zones in found.items()
        }


def region_of(zone: str) -> str:
    """The region of a zone. Raises Rejected for what is none."""
    match = PLACE.fullmatch(zone)
    if match is None or not match.group(2):
        raise Rejected(f"aws: {zone[:64]!r} is not a zone such as us-east-1a")
    return match.group(1)
