"""What the cloud sells: instance types with hardware, regions and list prices in dollars per hour.

Names, accelerators and sizes are those of a real cloud; the prices are made up, near those of 2026.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKETS = ("on-demand", "spot")


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One row of the catalogue. `spot` is None where the spot market does not sell it."""

    name: str
    accelerator: str | None
    accelerator_count: Decimal
    accelerator_memory_gib: int | None
    form_factor: str | None
    vcpus: int
    memory_gib: int
    disk_gib: int
    architecture: str
    on_demand: Decimal
    spot: Decimal | None
    regions: Sequence[str]

    def price(self, market: str) -> Decimal | None:
        """The list price in a market, if it is sold there."""
        return self.on_demand if market == "on-demand" else self.spot


@cache
def catalog() -> dict[str, InstanceType]:
    """All instance types by name."""
    with files(__package__).joinpath("catalog.csv").open() as file:
        return {row["instance_type"]: _read(row) for row in csv.DictReader(file)}


def _read(row: dict[str, str]) -> InstanceType:
    return InstanceType(
        name=row["instance_type"],
        accelerator=row["accelerator"] or None,
        accelerator_count=Decimal(row["accelerator_count"] or 0),
        accelerator_memory_gib=int(row["accelerator_memory_gib"]) if row["accelerator_memory_gib"] else None,
        form_factor=row["form_factor"] or None,
        vcpus=int(row["vcpus"]),
        memory_gib=int(row["memory_gib"]),
        disk_gib=int(row["disk_gib"]),
        architecture=row["architecture"],
        on_demand=Decimal(row["on_demand"]),
        spot=Decimal(row["spot"]) if row["spot"] else None,
        regions=tuple(row["regions"].split()),
    )


def regions() -> list[str]:
    """All regions."""
    return sorted({region for kind in catalog().values() for region in kind.regions})
