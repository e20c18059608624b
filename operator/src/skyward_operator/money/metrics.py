"""What Prometheus can ask about money: counted when it asks, from what is known without asking anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from skyward.contract.names import POOL
from skyward.contract.pool import ComputePool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from skyward_operator.kube.store import Store
    from skyward_operator.money.purse import Purse

_POOL = ("namespace", "pool")


class CostMetrics(Collector):
    """Cost of the pools that exist, and of their namespaces with all pools that ever were."""

    def __init__(self, store: Store, purse: Purse) -> None:
        self._store = store
        self._purse = purse

    def collect(self) -> Iterator[Metric]:
        """The families; a pool that is gone has no series any more."""
        total = CounterMetricFamily(
            "skyward_cost_dollars", "Cost of a pool since it was made, in US dollars.", labels=_POOL
        )
        hourly = GaugeMetricFamily(
            "skyward_cost_dollars_hourly", "Price of a pool's machines per hour, in US dollars.", labels=_POOL
        )
        on_demand = GaugeMetricFamily(
            "skyward_cost_on_demand_dollars_hourly",
            "Price of the same machines per hour at on-demand rates, in US dollars.",
            labels=_POOL,
        )
        left = GaugeMetricFamily(
            "skyward_budget_remaining_dollars",
            "What is left of the tightest budget of a pool, its own or its namespace's, in US dollars.",
            labels=_POOL,
        )
        places = set[str]()
        for obj in self._store.list(POOL):
            pool = ComputePool.read(obj)
            names = pool.metadata.namespace or "", pool.metadata.name
            balance = self._purse.look(pool)
            total.add_metric(names, float(balance.accrued))
            hourly.add_metric(names, float(balance.hourly))
            on_demand.add_metric(names, float(balance.on_demand_hourly))
            if balance.remaining is not None:
                left.add_metric(names, float(balance.remaining))
            places.add(names[0])
        yield from (total, hourly, on_demand, left, self._namespaces(places))

    def _namespaces(self, places: set[str]) -> Metric:
        family = CounterMetricFamily(
            "skyward_namespace_cost_dollars",
            "Cost of all machines that a namespace ever had, in US dollars.",
            labels=("namespace",),
        )
        for place in sorted(places | self._purse.places):
            family.add_metric((place,), float(self._purse.total(place)))
        return family
