"""The `aws` provider: one AWS account, in all regions that it may use.

Its candidates' parameters, permissions and limits are in docs/providers/aws.md.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws import parameters as parameters_
from skyward_operator.providers.aws.account import account
from skyward_operator.providers.aws.clients import NAME, Clients
from skyward_operator.providers.aws.hostkeys import HostKeys
from skyward_operator.providers.aws.images import Images
from skyward_operator.providers.aws.instances import is_ending, machine, parse_id
from skyward_operator.providers.aws.interruptions import METADATA, NOTICE_SECONDS, interruptions
from skyward_operator.providers.aws.market import Market
from skyward_operator.providers.aws.meanings import NotThere
from skyward_operator.providers.aws.network import Network
from skyward_operator.providers.aws.offers import Catalogs, chosen, sold, with_prices
from skyward_operator.providers.aws.places import Places, region_of
from skyward_operator.providers.aws.purchase import Purchases
from skyward_operator.providers.aws.side import NOT_ENDED, OURS, TAG_OURS, Side, tag_filters
from skyward_operator.providers.aws.sight import VISIBILITY_SECONDS, Sight
from skyward_operator.providers.contract import TAG_INSTALLATION, Capabilities, Listing, MachineState
from skyward_operator.providers.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.aws.parameters import Parameters
    from skyward_operator.providers.contract import CreateRequest, Machine, Notice, Offer, Setup


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
        self._network = Network(clients)
        self._side = Side(clients)
        self._sight = Sight(clients)
        self._host_keys = HostKeys(clients)
        self._purchases = Purchases(
            clients, self._catalogs, self._market, Images(clients), self._network, self._side, self._sight
        )
        self._empty: frozenset[str] = frozenset()
        """Regions that had no machine when all were listed last."""

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
        bought = await self._purchases.make(request)
        self._sight.remember(bought)
        return bought

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """Machines in all regions of the account, without host keys. One region that fails fails it all."""

        async def one(region: str) -> list[Machine]:
            filters = [
                *tag_filters({TAG_OURS: OURS, **tags}),
                {"Name": "instance-state-name", "Values": NOT_ENDED},
            ]
            found = await self._sight.instances(region, Filters=filters)
            return [machine(region, each, in_list=True) for each in found]

        regions = await self._places.regions()
        found = await self._ask(regions, one)
        if set(tags) <= {TAG_INSTALLATION}:
            empty = (region for region, machines in zip(regions, found, strict=True) if not machines)
            self._empty = frozenset(empty)
        return Listing([each for machines in found for each in machines], complete=True)

    async def describe(self, machine_id: str) -> Machine | None:
        """The machine as EC2 shows it."""
        region, name = parse_id(machine_id)
        instance = await self._sight.instance(region, name)
        if instance is None:
            return self._sight.not_shown_yet(machine_id)
        return machine(region, instance, await self._host_key(region, instance))

    async def terminate(self, machine_id: str, token: str) -> bool:
        """Have it end, if it is ours. True once EC2 says that it is terminated."""
        region, name = parse_id(machine_id)
        instance = await self._sight.instance(region, name)
        if instance is None:
            fresh = self._sight.not_shown_yet(machine_id)
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
            return self._sight.not_shown_yet(machine_id) is None
        return False

    async def interruptions(self, tags: Mapping[str, str]) -> Sequence[Notice]:
        """What AWS announces, in every region that may have machines."""
        quiet = self._empty - self._sight.lately()
        regions = [each for each in await self._places.regions() if each not in quiet]
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
