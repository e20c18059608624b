"""Where machines are in the network: the subnet of a zone, and from where SSH may come."""

from __future__ import annotations

import ipaddress
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from skyward_operator.providers.aws.meanings import NotThere
from skyward_operator.providers.errors import Rejected, Transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from skyward_operator.providers.aws.clients import Clients

CIDR_VARIABLE = "SKYWARD_AWS_SSH_CIDR"
WHO_AM_I = "https://checkip.amazonaws.com"
"""A service of AWS that answers with the address from which it was asked."""
ADDRESS_SECONDS = 300.0
ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Subnet:
    """One subnet."""

    id: str
    zone: str
    vpc: str


@dataclass(slots=True)
class Network:
    """What was looked up."""

    clients: Clients
    _defaults: dict[str, Subnet] = field(default_factory=dict)
    _named: dict[tuple[str, tuple[str, ...]], Sequence[Subnet]] = field(default_factory=dict)
    _own: tuple[float, str] = (0.0, "")

    async def subnet(self, region: str, zone: str, names: Sequence[str]) -> Subnet:
        """The subnet for a machine in a zone. Raises Rejected where there is none."""
        if names:
            for each in await self.named(region, names):
                if each.zone == zone:
                    return each
            raise Rejected(f"parameters.subnet: none of {', '.join(names)} is in {zone}")
        if zone not in self._defaults:
            filters = [
                {"Name": "availability-zone", "Values": [zone]},
                {"Name": "default-for-az", "Values": ["true"]},
            ]
            found = await self.clients.pages("ec2", region, "describe_subnets", "Subnets", Filters=filters)
            if not found:
                text = f"{zone} has no default subnet; name one, or make it (aws ec2 create-default-subnet)"
                raise Rejected(f"parameters.subnet: {text}")
            self._defaults[zone] = read(found)[0]
        return self._defaults[zone]

    async def named(self, region: str, names: Sequence[str]) -> Sequence[Subnet]:
        """These subnets. Raises Rejected for one that is not in the region."""
        key = (region, tuple(names))
        if key not in self._named:
            try:
                self._named[key] = read(
                    await self.clients.pages(
                        "ec2", region, "describe_subnets", "Subnets", SubnetIds=list(names)
                    )
                )
            except NotThere as error:
                raise Rejected(f"parameters.subnet: {error}; subnets belong to one region") from None
        return self._named[key]

    async def source(self, asked: str | None) -> str:
        """From where SSH may come: as asked for, as the operator is set up, or from its own address."""
        return asked or os.environ.get(CIDR_VARIABLE) or f"{await self._address()}/32"

    async def _address(self) -> str:
        until, address = self._own
        if time.monotonic() >= until:
            address = await ask_address()
            self._own = (time.monotonic() + ADDRESS_SECONDS, address)
        return address


async def ask_address() -> str:
    """The address that the operator is seen with. Raises Transient."""
    hint = f"set {CIDR_VARIABLE} in the operator's environment, or parameters.sshCidr"
    try:
        async with httpx.AsyncClient(timeout=ASK_SECONDS) as client:
            answer = await client.get(WHO_AM_I)
            answer.raise_for_status()
        return str(ipaddress.IPv4Address(answer.text.strip()))
    except (httpx.HTTPError, ValueError) as error:
        text = f"aws: {WHO_AM_I} does not say from which address SSH will come ({type(error).__name__})"
        raise Transient(f"{text}; {hint}") from None


def read(documents: Iterable[dict[str, Any]]) -> list[Subnet]:
    """Subnets as EC2 shows them."""
    return [Subnet(each["SubnetId"], each["AvailabilityZone"], each["VpcId"]) for each in documents]
