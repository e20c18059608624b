"""What the double asks for: on-demand prices as in `prices.csv` of the adapter, spot at two fifths of them.

Types that have no price there cost by their processors. The prices are written out as the price list is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from moto.ec2.models.instance_types import INSTANCE_TYPES
from tests.aws_double.answers import Answer, answer, document, listed

from skyward_operator.providers.aws.market import kept

if TYPE_CHECKING:
    from tests.aws_double.asked import Asked

PAGE = 100
SPOT_SHARE = Decimal("0.4")
PER_PROCESSOR = Decimal("0.05")


@dataclass(slots=True)
class PriceList:
    """The prices in force. Those of spot can be moved."""

    moved: dict[str, Decimal] = field(default_factory=dict)

    def hourly(self, instance_type: str, market: str) -> Decimal:
        """Dollars per hour."""
        usual = kept("us-east-1").get(instance_type) or PER_PROCESSOR * processors(instance_type)
        return usual if market == "on-demand" else self.moved.get(instance_type, usual * SPOT_SHARE)

    def products(self, asked: Asked) -> Answer:
        """GetProducts."""
        wanted = {each["Field"]: each["Value"] for each in asked.document["Filters"]}
        first = int(asked.document.get("NextToken") or 0)
        names = [wanted["instanceType"]] if "instanceType" in wanted else sorted(INSTANCE_TYPES)
        page = [json.dumps(self._product(name, wanted["regionCode"])) for name in names[first : first + PAGE]]
        more = {"NextToken": str(first + PAGE)} if first + PAGE < len(names) else {}
        return document({"FormatVersion": "aws_v1", "PriceList": page, **more})

    def spot_history(self, asked: Asked, zones: list[str]) -> Answer:
        """DescribeSpotPriceHistory: the price in force, and an older one behind it."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entries = [
            {
                "instanceType": name,
                "productDescription": "Linux/UNIX",
                "spotPrice": f"{price:f}",
                "timestamp": at,
                "availabilityZone": zone,
            }
            for name in asked.members("InstanceType")
            for zone in zones
            for at, price in ((now, self.hourly(name, "spot")), ("2020-01-01T00:00:00Z", Decimal("0.0001")))
        ]
        return answer(asked.action, listed("spotPriceHistorySet", entries))

    def _product(self, name: str, region: str) -> dict[str, Any]:
        price = {"unit": "Hrs", "pricePerUnit": {"USD": f"{self.hourly(name, 'on-demand'):f}"}}
        free = {"unit": "Quantity", "pricePerUnit": {"USD": "0.0000000000"}}
        return {
            "product": {"attributes": {"instanceType": name, "regionCode": region}},
            "terms": {"OnDemand": {"a": {"priceDimensions": {"a.0": free, "a.1": price}}}},
        }


def processors(instance_type: str) -> int:
    """Of a type, by moto's copy of EC2's own list."""
    return int(INSTANCE_TYPES[instance_type].get("VCpuInfo", {}).get("DefaultVCpus", 1))
