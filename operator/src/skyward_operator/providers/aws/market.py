"""Prices: on-demand from the price list, spot from the price history, both as they are now.

The price list is a service of its own that an account may not be allowed to ask: then the prices of
`prices.csv` are taken where it has them, and no other price is known. Spot prices are those of EC2 itself.
"""

from __future__ import annotations

import asyncio
import csv
import json
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.providers.aws.clients import Clients

logger = logging.getLogger(__name__)

LIST_REGION = "us-east-1"
"""The price list is served in three regions only, for all of them."""
LIST_SECONDS = 24 * 3600.0
LIST_AGAIN_SECONDS = 600.0
"""A list that could not be had is asked for again after this."""
FEW = 8
"""So many types are asked for one by one; the whole list of a region has a dozen pages."""
ALL = ""
SPOT_SECONDS = 60.0
TYPES_AT_ONCE = 100
LINUX = (
    ("operatingSystem", "Linux"),
    ("tenancy", "Shared"),
    ("preInstalledSw", "NA"),
    ("capacitystatus", "Used"),
)

type Prices = Mapping[str, Decimal]
"""Dollars per hour by instance type, or by zone."""
type Key = tuple[str, str]
"""A region and an instance type, or all of them."""


@dataclass(slots=True)
class Market:
    """What machines cost in the regions of one account."""

    clients: Clients
    _lists: dict[Key, tuple[float, Prices]] = field(default_factory=dict)
    _spot: dict[Key, tuple[float, Prices]] = field(default_factory=dict)
    """Prices by zone. All prices stand with the time until when they are taken for true."""
    _asking: defaultdict[Key, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def on_demand(self, region: str, types: Sequence[str]) -> Prices:
        """On-demand prices of Linux machines in a region; of these types at least, as far as known."""
        if len(types) > FEW or self._is_fresh((region, ALL)):
            return await self._listed((region, ALL))
        found: dict[str, Decimal] = {}
        for prices in await asyncio.gather(*(self._listed((region, each)) for each in types)):
            found |= prices
        return found

    def _is_fresh(self, key: Key) -> bool:
        return time.monotonic() < self._lists.get(key, (0.0, {}))[0]

    async def _listed(self, key: Key) -> Prices:
        async with self._asking[key]:
            _, prices = self._lists.get(key, (0.0, {}))
            if self._is_fresh(key):
                return prices
            try:
                prices, seconds = await self._list(*key), LIST_SECONDS
            except ProviderError as error:
                prices, seconds = prices or kept(key[0]), LIST_AGAIN_SECONDS
                where = "those that were kept are taken" if prices else f"none is known of {key[0]}"
                logger.warning("prices cannot be read from AWS's list, %s: %s", where, error)
            self._lists[key] = (time.monotonic() + seconds, prices)
            return prices

    async def spot(self, region: str, types: Sequence[str], *, anew: bool = False) -> Mapping[str, Prices]:
        """Spot prices by instance type and zone; `anew`: not those of a moment ago."""
        now = time.monotonic()
        missing = [each for each in types if anew or self._spot.get((region, each), (0.0, {}))[0] <= now]
        parts = [missing[at : at + TYPES_AT_ONCE] for at in range(0, len(missing), TYPES_AT_ONCE)]
        await asyncio.gather(*(self._ask_spot(region, part) for part in parts))
        return {each: self._spot[region, each][1] for each in types}

    async def _ask_spot(self, region: str, types: Sequence[str]) -> None:
        history = await self.clients.pages(
            "ec2",
            region,
            "describe_spot_price_history",
            "SpotPriceHistory",
            InstanceTypes=list(types),
            ProductDescriptions=["Linux/UNIX"],
            StartTime=datetime.now(UTC),  # the price in force is the last change before it
        )
        found: dict[str, dict[str, tuple[datetime, Decimal]]] = {each: {} for each in types}
        for entry in history:
            zones = found.setdefault(entry["InstanceType"], {})
            at, price = entry["Timestamp"], Decimal(entry["SpotPrice"])
            if entry["AvailabilityZone"] not in zones or at > zones[entry["AvailabilityZone"]][0]:
                zones[entry["AvailabilityZone"]] = (at, price)
        until = time.monotonic() + SPOT_SECONDS
        for instance_type, zones in found.items():
            self._spot[region, instance_type] = (until, {zone: price for zone, (_, price) in zones.items()})

    async def _list(self, region: str, instance_type: str) -> Prices:
        wanted = [*LINUX, ("regionCode", region)]
        if instance_type != ALL:
            wanted.append(("instanceType", instance_type))
        terms = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted]
        products = await self.clients.pages(
            "pricing", LIST_REGION, "get_products", "PriceList", ServiceCode="AmazonEC2", Filters=terms
        )
        return dict(filter(None, (listed(json.loads(str(each))) for each in products)))


def listed(product: Mapping[str, Any]) -> tuple[str, Decimal] | None:
    """Instance type and price of an entry of the list; None for one that costs nothing by the hour."""
    instance_type = product.get("product", {}).get("attributes", {}).get("instanceType")
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            try:
                price = Decimal(dimension["pricePerUnit"]["USD"])
            except (KeyError, InvalidOperation):
                continue
            if dimension.get("unit") == "Hrs" and price > 0 and instance_type:
                return instance_type, price
    return None


@cache
def kept(region: str) -> Prices:
    """The prices of `prices.csv`; its first line says of when they are, and from where."""
    text = (files(__package__) / "prices.csv").read_text()
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row["instance_type"]: Decimal(row["hourly"]) for row in rows if row["region"] == region}
