"""Buys one machine: what it needs beside it first, then the machine itself, once for each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward_operator.providers.aws import parameters as parameters_
from skyward_operator.providers.aws.instances import machine
from skyward_operator.providers.aws.meanings import Differs, Used
from skyward_operator.providers.aws.order import Surroundings, order
from skyward_operator.providers.aws.places import region_of
from skyward_operator.providers.aws.userdata import user_data
from skyward_operator.providers.errors import PriceTooHigh, Rejected, Transient, UnknownOutcome

if TYPE_CHECKING:
    from skyward_operator.providers.aws.clients import Clients
    from skyward_operator.providers.aws.images import Images
    from skyward_operator.providers.aws.market import Market
    from skyward_operator.providers.aws.network import Network
    from skyward_operator.providers.aws.offers import Catalogs
    from skyward_operator.providers.aws.parameters import Parameters
    from skyward_operator.providers.aws.side import Side
    from skyward_operator.providers.aws.sight import Sight
    from skyward_operator.providers.contract import CreateRequest, Machine


@dataclass(frozen=True, slots=True)
class Purchases:
    """The orders of one account."""

    clients: Clients
    catalogs: Catalogs
    market: Market
    images: Images
    network: Network
    side: Side
    sight: Sight

    async def make(self, request: CreateRequest) -> Machine:
        """The machine of this order; GONE, if it was bought before and has ended."""
        parameters = parameters_.read(request.parameters)
        region = region_of(request.offer.region)
        await self._mind_the_price(request, region)
        around = await self._surroundings(request, parameters, region)
        wanted = order(request, parameters, around, user_data(request.user_data))
        try:
            answer = await self.clients.call("ec2", region, "run_instances", buys=True, **wanted)
        except (Used, Differs) as known:
            return await self._bought_before(region, request.token, known)
        except Transient:
            self.side.forget(region)
            raise
        try:
            return machine(region, answer["Instances"][0])
        except (KeyError, IndexError) as error:
            raise UnknownOutcome(f"aws: RunInstances answered without {error}") from error

    async def _mind_the_price(self, request: CreateRequest, region: str) -> None:
        """Raise PriceTooHigh where an on-demand machine costs more than allowed. EC2 itself sees to spot."""
        cap, offer = request.max_hourly_price, request.offer
        if cap is None or offer.market == "spot":
            return
        prices = await self.market.on_demand(region, [offer.instance_type])
        price = prices.get(offer.instance_type, offer.hourly_price)
        if price is None or price > cap:
            known = f"costs ${price:f}/h" if price is not None else "has no price that is known"
            raise PriceTooHigh(f"aws: {offer.instance_type} in {region} {known}; allowed are ${cap:f}/h")

    async def _surroundings(
        self, request: CreateRequest, parameters: Parameters, region: str
    ) -> Surroundings:
        name = request.offer.instance_type
        hardware = (await self.catalogs.of(region, [name])).types.get(name)
        if hardware is None:
            raise Rejected(f"aws: {region} has no instance type {name}")
        image = await self.images.image(region, hardware, parameters)
        subnet = await self.network.subnet(region, request.offer.region, parameters.subnets)
        key_pair = await self.side.key_pair(region, request)
        groups = parameters.security_groups
        if not groups:
            source = await self.network.source(parameters.ssh_cidr)
            groups = (await self.side.group(region, subnet, source, parameters.ssh_port, request),)
        return Surroundings(image, subnet, key_pair, groups)

    async def _bought_before(self, region: str, token: str, known: Used | Differs) -> Machine:
        """The machine of a token that was sent before: an image may have become newer since."""
        found = await self.sight.instances(region, Filters=[{"Name": "client-token", "Values": [token]}])
        if not found:
            raise known
        return machine(region, found[0])
