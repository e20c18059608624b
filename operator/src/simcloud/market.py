"""What is sold, for how much, and to whom not: prices, capacity, quotas."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from simcloud import errors
from simcloud.catalog import MARKETS, catalog, regions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from simcloud.accounts import Account
    from simcloud.catalog import InstanceType
    from simcloud.cloud import Cloud
    from simcloud.orders import Order


class Market:
    """The shop of one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def offers(
        self, region: str | None = None, instance_type: str | None = None, market: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """What is sold, whether or not there is any left just now: no cloud tells that beforehand."""
        for kind in catalog().values():
            for place in kind.regions:
                for each in MARKETS:
                    price = self._cloud.state.price(kind.name, each)
                    wanted = (
                        region in (None, place),
                        instance_type in (None, kind.name),
                        market in (None, each),
                    )
                    if price is not None and all(wanted):
                        yield offer(kind, place, each, price)

    def quote(self, region: str, instance_type: str, market: str) -> Decimal:
        """The price in force. Refuses what is not sold, and says what is."""
        kind = catalog().get(instance_type)
        if kind is None:
            raise errors.invalid(f"instance_type {instance_type!r} is none of: {', '.join(catalog())}")
        if region not in kind.regions:
            sold = ", ".join(kind.regions) if region in regions() else ", ".join(regions())
            raise errors.invalid(f"{instance_type} is not sold in region {region!r}; regions: {sold}")
        price = self._cloud.state.price(instance_type, market) if market in MARKETS else None
        if price is None:
            raise errors.invalid(f"{instance_type} is not sold in market {market!r}")
        return price

    def admit(self, account: Account, order: Order, kinds: Collection[str]) -> Decimal:
        """The price at which an order is taken; refuses one that cannot be."""
        price = self.quote(order.region, order.instance_type, order.market)
        if order.max_hourly is not None and price > order.max_hourly:
            text = f"the price is {price:f}/h, more than the {order.max_hourly:f}/h allowed"
            raise errors.Refusal(409, "PriceTooHigh", text)
        if "quota" in kinds:
            raise errors.quota_exceeded(order.instance_type, 0)
        self._keep_quotas(account, catalog()[order.instance_type])
        if "no-capacity" in kinds or self._left(order) == 0:
            raise errors.no_capacity(order.instance_type, order.region, order.market)
        return price

    def _keep_quotas(self, account: Account, kind: InstanceType) -> None:
        live = self._cloud.state.live(account.name)
        for quota, limit in account.quotas.items():
            if quota == "instances":
                after = Decimal(len(live) + 1)
            elif quota == kind.accelerator:
                types = [catalog()[each.instance_type] for each in live]
                after = sum(
                    (each.accelerator_count for each in types if each.accelerator == quota),
                    kind.accelerator_count,
                )
            else:
                continue
            if after > limit:
                raise errors.quota_exceeded(quota, limit)

    def _left(self, order: Order) -> int | None:
        """How many more there are, or None without a limit."""
        what = (order.region, order.instance_type, order.market)
        for capacity in self._cloud.scenario.capacity:
            if (capacity.region, capacity.instance_type, capacity.market) == what:
                taken = [(each.region, each.instance_type, each.market) for each in self._cloud.state.live()]
                return max(0, capacity.machines - taken.count(what))
        return None


def offer(kind: InstanceType, region: str, market: str, price: Decimal) -> dict[str, Any]:
    """One offer as the API shows it; money is a decimal string."""
    accelerator = {
        "name": kind.accelerator,
        "count": f"{kind.accelerator_count:f}",
        "memory_gib": kind.accelerator_memory_gib,
        "form_factor": kind.form_factor,
    }
    return {
        "region": region,
        "instance_type": kind.name,
        "market": market,
        "hourly": f"{price:f}",
        "on_demand_hourly": f"{kind.on_demand:f}",
        "vcpus": kind.vcpus,
        "memory_gib": kind.memory_gib,
        "disk_gib": kind.disk_gib,
        "architecture": kind.architecture,
        "accelerator": accelerator if kind.accelerator else None,
    }
