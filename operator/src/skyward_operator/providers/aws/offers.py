"""What is sold that fits a candidate: every type, in every zone that has it, in each market."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws.clients import NAME
from skyward_operator.providers.aws.hardware import Hardware, hardware
from skyward_operator.providers.contract import Offer
from skyward_operator.providers.errors import Rejected
from skyward_operator.providers.fit import fitting

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.aws.clients import Clients
    from skyward_operator.providers.aws.market import Market, Prices

CATALOG_SECONDS = 6 * 3600.0
DISK_GIB = 64
"""Disk of a machine for which none is asked: an image, a Python environment with CUDA, and room to work."""
LARGEST_DISK_GIB = 16384
"""Of a gp3 volume."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a region has."""

    types: Mapping[str, Hardware]
    zones: Mapping[str, frozenset[str]]
    """Zones by instance type: where it is sold, not where any is left."""


type Key = tuple[str, tuple[str, ...]]
"""A region and names of instance types; no names: all of them."""


@dataclass(slots=True)
class Catalogs:
    """Those of all regions, each asked for some times a day."""

    clients: Clients
    _known: dict[Key, tuple[float, Catalog]] = field(default_factory=dict)
    _asking: defaultdict[Key, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def of(self, region: str, names: Sequence[str] = ()) -> Catalog:
        """One region's, of these types; of all if a name is none there, to tell which are near it."""
        whole = self._fresh((region, ()))
        if whole is not None:
            return whole
        try:
            return await self._shared((region, tuple(sorted(names))))
        except Rejected:
            return await self._shared((region, ()))

    async def _shared(self, key: Key) -> Catalog:
        async with self._asking[key]:
            catalog = self._fresh(key)
            if catalog is None:
                catalog = await self._ask(*key)
                self._known[key] = (time.monotonic() + CATALOG_SECONDS, catalog)
            return catalog

    def _fresh(self, key: Key) -> Catalog | None:
        until, catalog = self._known.get(key, (0.0, None))
        return catalog if time.monotonic() < until else None

    async def _ask(self, region: str, names: Sequence[str]) -> Catalog:
        ask = self.clients.pages
        only: dict[str, Any] = {"InstanceTypes": list(names)} if names else {}
        filters: dict[str, Any] = (
            {"Filters": [{"Name": "instance-type", "Values": list(names)}]} if names else {}
        )
        documents, places = await asyncio.gather(
            ask("ec2", region, "describe_instance_types", "InstanceTypes", **only),
            ask(
                "ec2",
                region,
                "describe_instance_type_offerings",
                "InstanceTypeOfferings",
                LocationType="availability-zone",
                **filters,
            ),
        )
        types = {each.instance_type: each for document in documents if (each := hardware(document))}
        zones: defaultdict[str, set[str]] = defaultdict(set)
        for place in places:
            if (
                place["Location"][:-1] == region
            ):  # not in a local zone: they have no default subnet, and other prices
                zones[place["InstanceType"]].add(place["Location"])
        return Catalog(types, {name: frozenset(each) for name, each in zones.items()})


def sold(candidate: Candidate, catalog: Catalog, zones: frozenset[str]) -> list[Offer]:
    """Everything in a region that may be meant, without prices; `zones` empty: in all of them."""
    return [
        offer(each, zone, market, candidate)
        for each in catalog.types.values()
        if may_be_meant(candidate, each)
        for zone in sorted(catalog.zones.get(each.instance_type, ()))
        if not zones or zone in zones
        for market in sorted(each.markets)
    ]


def may_be_meant(candidate: Candidate, each: Hardware) -> bool:
    """Whether somebody who asks for no type by name would take it."""
    if candidate.instance_types:
        return True
    if candidate.accelerator is not None:
        return not each.bare_metal
    return each.is_general


def offer(each: Hardware, zone: str, market: str, candidate: Candidate) -> Offer:
    """One type in one zone and market, at a price that is not known yet."""
    disk = max(DISK_GIB, candidate.disk_gib or 0)
    return Offer(
        provider=NAME,
        region=zone,
        instance_type=each.instance_type,
        market=market,
        hourly_price=None,
        on_demand_price=None,
        vcpus=each.vcpus,
        memory_gib=each.memory_gib,
        disk_gib=disk if disk <= LARGEST_DISK_GIB else LARGEST_DISK_GIB,
        architecture=each.architecture,
        accelerator=each.accelerator,
        candidate=candidate.name,
    )


def chosen(candidate: Candidate, offers: Iterable[Offer]) -> list[Offer]:
    """Those that fit. The regions were seen to before: an offer's is a zone."""
    return fitting(candidate.model_copy(update={"regions": ()}), offers)


def priced(offer: Offer, on_demand: Prices, spot: Mapping[str, Prices]) -> Offer:
    """An offer with what is known of its price."""
    usual = on_demand.get(offer.instance_type)
    hourly = usual if offer.market == "on-demand" else spot.get(offer.instance_type, {}).get(offer.region)
    return replace(offer, hourly_price=hourly, on_demand_price=usual)


async def with_prices(
    market: Market, region: str, offers: Sequence[Offer], *, anew: bool = False
) -> list[Offer]:
    """The offers of one region at the prices in force."""
    all_types = sorted({each.instance_type for each in offers})
    spot_types = sorted({each.instance_type for each in offers if each.market == "spot"})
    on_demand = await market.on_demand(region, all_types)
    spot = await market.spot(region, spot_types, anew=anew) if spot_types else {}
    return [priced(each, on_demand, spot) for each in offers]
