"""The `aws` provider: one AWS account, in all regions that it may use.

Its candidates' parameters, permissions and limits are in docs/providers/aws.md.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws import parameters as parameters_
from skyward_operator.providers.aws.account import account
from skyward_operator.providers.aws.clients import NAME, Clients
from skyward_operator.providers.aws.hostkeys import HostKeys
from skyward_operator.providers.aws.images import Images
from skyward_operator.providers.aws.instances import (
    in_reservations,
    is_ending,
    machine,
    parse_id,
)
from skyward_operator.providers.aws.interruptions import METADATA, NOTICE_SECONDS, interruptions
from skyward_operator.providers.aws.market import Market
from skyward_operator.providers.aws.meanings import Differs, NotThere, Used
from skyward_operator.providers.aws.network import Network
from skyward_operator.providers.aws.offers import Catalogs, chosen, sold, with_prices
from skyward_operator.providers.aws.order import Surroundings, order
from skyward_operator.providers.aws.places import Places, region_of
from skyward_operator.providers.aws.side import NOT_ENDED, OURS, TAG_OURS, Side, tag_filters
from skyward_operator.providers.aws.userdata import user_data
from skyward_operator.providers.contract import TAG_INSTALLATION, Capabilities, Listing, MachineState
from skyward_operator.providers.errors import PriceTooHigh, Rejected, Transient, UnknownOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.aws.parameters import Parameters
    from skyward_operator.providers.contract import CreateRequest, Machine, Notice, Offer, Setup

VISIBILITY_SECONDS = 120.0
"""EC2's views lag behind its orders, mostly by less than a second; no bound is promised."""


class AwsProvider:
    """One AWS account."""

    name = NAME
    capabilities = Capabilities(
        idempotency_token=True,
        visibility_seconds=VISIBILITY_SECONDS,
        host_key=True,
        stop_ends_billing=True,
        user_data=True,
        side_resources=True,
        spot=True,
        regions=True,
        interruption_notice_seconds=NOTICE_SECONDS,
        metadata=METADATA,
        prices_move=True,
        billing_unit_seconds=1,
        billing_minimum_seconds=60,
    )

    def __init__(self, setup: Setup) -> None:
        """Raises Unauthorized when credentials are missing or not whole."""
        self._account = account(setup.credentials, os.environ)
        self._clients = clients = Clients(self._account)
        self._places = Places(self._account, clients)
        self._catalogs = Catalogs(clients)
        self._market = Market(clients)
        self._images = Images(clients)
        self._network = Network(clients)
        self._side = Side(clients)
        self._host_keys = HostKeys(clients)
        self._ordered: dict[str, tuple[float, Machine]] = {}
        """Machines that this process has bought, as long as EC2 may not show them yet."""
        self._empty: set[str] = set()
        """Regions that had no machine when all were listed last, and none was ordered in since."""

    async def offers(self, candidate: Candidate) -> Sequence[Offer]:
        """All that is sold and fits, in the regions of the candidate, else in the account's own."""
        parameters = parameters_.read(candidate.parameters)
        wanted = await self._places.wanted(candidate.regions)
        found = await asyncio.gather(
            *(self._sold(candidate, parameters, region, zones) for region, zones in wanted.items())
        )
        fitting = chosen(candidate, [offer for offers in found for offer in offers])
        if candidate.market == "on-demand":
            fitting = [offer for offer in fitting if offer.market == "on-demand"]
        by_region = {
            region: [each for each in fitting if region_of(each.region) == region] for region in wanted
        }
        priced = await asyncio.gather(
            *(with_prices(self._market, region, each) for region, each in by_region.items() if each)
        )
        return [offer for offers in priced for offer in offers]

    async def quote(self, offer: Offer) -> Offer:
        """The price in force."""
        region = region_of(offer.region)
        zones = (await self._catalogs.of(region, [offer.instance_type])).zones
        if offer.region not in zones.get(offer.instance_type, ()):
            raise Rejected(f"aws: {offer.instance_type} is not sold in {offer.region}")
        (quoted,) = await with_prices(self._market, region, [offer], anew=True)
        return quoted

    async def create(self, request: CreateRequest) -> Machine:
        """Make key pair and security group, then order the machine."""
        parameters = parameters_.read(request.parameters)
        region = region_of(request.offer.region)
        await self._mind_the_price(request, region)
        around = await self._surroundings(request, parameters, region)
        wanted = order(request, parameters, around, user_data(request.user_data))
        self._empty.discard(region)
        try:
            answer = await self._clients.call("ec2", region, "run_instances", buys=True, **wanted)
        except (Used, Differs) as known:
            return await self._bought_before(region, request.token, known)
        except Transient:
            self._side.forget(region)
            raise
        try:
            bought = machine(region, answer["Instances"][0])
        except (KeyError, IndexError) as error:
            raise UnknownOutcome(f"aws: RunInstances answered without {error}") from error
        self._remember(bought)
        return bought

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """Machines in all regions of the account, without host keys. One region that fails fails it all."""

        async def one(region: str) -> list[Machine]:
            filters = [
                *tag_filters({TAG_OURS: OURS, **tags}),
                {"Name": "instance-state-name", "Values": NOT_ENDED},
            ]
            found = await self._instances(region, Filters=filters)
            return [machine(region, each, in_list=True) for each in found]

        regions = await self._places.regions()
        found = await self._ask(regions, one)
        if set(tags) <= {TAG_INSTALLATION}:
            self._empty = {region for region, machines in zip(regions, found, strict=True) if not machines}
        return Listing([each for machines in found for each in machines], complete=True)

    async def describe(self, machine_id: str) -> Machine | None:
        """The machine as EC2 shows it."""
        region, name = parse_id(machine_id)
        instance = await self._instance(region, name)
        if instance is None:
            return self._not_shown_yet(machine_id)
        return machine(region, instance, await self._host_key(region, instance))

    async def terminate(self, machine_id: str, token: str) -> bool:
        """Have it end, if it is ours. True once EC2 says that it is terminated."""
        region, name = parse_id(machine_id)
        instance = await self._instance(region, name)
        if instance is None:
            fresh = self._not_shown_yet(machine_id)
            if fresh is None or fresh.token != token:
                return True
        else:
            seen = machine(region, instance)
            if seen.token != token or seen.state is MachineState.GONE:
                return True
            if is_ending(instance):
                return False
        try:
            await self._clients.call("ec2", region, "terminate_instances", InstanceIds=[name])
        except NotThere:
            return self._not_shown_yet(machine_id) is None
        return False

    async def interruptions(self, tags: Mapping[str, str]) -> Sequence[Notice]:
        """What AWS announces, in every region that may have machines."""
        regions = [each for each in await self._places.regions() if each not in self._empty]
        found = await self._ask(regions, lambda region: interruptions(self._clients, region, tags))
        return [notice for notices in found for notice in notices]

    async def console(self, machine_id: str) -> str:
        """The end of the machine's console."""
        return await self._host_keys.console(*parse_id(machine_id))

    async def clean_up(self, tags: Mapping[str, str]) -> bool:
        """Remove key pairs and security groups of pools without machines, in all regions."""
        regions = await self._places.regions()
        return all(await self._ask(regions, lambda region: self._side.clean_up(region, tags)))

    async def aclose(self) -> None:
        """Close the connections; machines stay."""
        self._clients.close()

    def __repr__(self) -> str:
        return f"<AwsProvider {self._account.region}>"

    # what the above is made of

    async def _sold(
        self, candidate: Candidate, parameters: Parameters, region: str, zones: frozenset[str]
    ) -> Sequence[Offer]:
        if parameters.subnets:
            subnets = await self._network.named(region, parameters.subnets)
            reachable = frozenset(each.zone for each in subnets)
            zones = (zones or reachable) & reachable
            if not zones:
                raise Rejected("parameters.subnet: none of them is in the zones of the candidate's regions")
        return sold(candidate, await self._catalogs.of(region, candidate.instance_types), zones)

    async def _mind_the_price(self, request: CreateRequest, region: str) -> None:
        """Raise PriceTooHigh where an on-demand machine costs more than allowed. EC2 itself sees to spot."""
        cap, offer = request.max_hourly_price, request.offer
        if cap is None or offer.market == "spot":
            return
        prices = await self._market.on_demand(region, [offer.instance_type])
        price = prices.get(offer.instance_type, offer.hourly_price)
        if price is None or price > cap:
            known = f"costs ${price:f}/h" if price is not None else "has no price that is known"
            raise PriceTooHigh(f"aws: {offer.instance_type} in {region} {known}; allowed are ${cap:f}/h")

    async def _surroundings(
        self, request: CreateRequest, parameters: Parameters, region: str
    ) -> Surroundings:
        name = request.offer.instance_type
        hardware = (await self._catalogs.of(region, [name])).types.get(name)
        if hardware is None:
            raise Rejected(f"aws: {region} has no instance type {name}")
        image = await self._images.image(region, hardware, parameters)
        subnet = await self._network.subnet(region, request.offer.region, parameters.subnets)
        key_pair = await self._side.key_pair(region, request)
        groups = parameters.security_groups
        if not groups:
            source = await self._network.source(parameters.ssh_cidr)
            groups = (await self._side.group(region, subnet, source, parameters.ssh_port, request),)
        return Surroundings(image, subnet, key_pair, groups)

    async def _bought_before(self, region: str, token: str, known: Used | Differs) -> Machine:
        """The machine of a token that was sent before: an image may have become newer since."""
        found = await self._instances(region, Filters=[{"Name": "client-token", "Values": [token]}])
        if not found:
            raise known
        return machine(region, found[0])

    async def _instances(self, region: str, **what: Any) -> Sequence[dict[str, Any]]:
        return in_reservations(
            await self._clients.pages("ec2", region, "describe_instances", "Reservations", **what)
        )

    async def _instance(self, region: str, name: str) -> dict[str, Any] | None:
        try:
            found = await self._instances(region, InstanceIds=[name])
        except NotThere:
            return None
        return found[0] if found else None

    async def _host_key(self, region: str, instance: Mapping[str, Any]) -> str | None:
        if instance["State"]["Name"] != "running":
            return None
        return await self._host_keys.of(region, instance["InstanceId"])

    @staticmethod
    async def _ask[T](regions: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> Sequence[T]:
        """The answers for these regions; the first that fails is raised, once all are in."""
        answers = await asyncio.gather(*(ask(region) for region in regions), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def _remember(self, bought: Machine) -> None:
        now = time.monotonic()
        self._ordered = {
            name: (at, each) for name, (at, each) in self._ordered.items() if now - at < VISIBILITY_SECONDS
        }
        self._ordered[bought.id] = (now, bought)

    def _not_shown_yet(self, machine_id: str) -> Machine | None:
        """A machine that was bought a moment ago, and that EC2 therefore need not know of everywhere."""
        at, bought = self._ordered.get(machine_id, (0.0, None))
        return bought if time.monotonic() - at < VISIBILITY_SECONDS else None
