"""The simulated cloud's JSON, read strictly: what has another shape is an error here, not further in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel

from skyward_operator.providers import contract

INTERRUPTED = "interrupted:"
"""How the cloud begins to say why a machine is gone that it took back."""


class Accelerator(BaseModel):
    """Accelerators of an offer."""

    name: str
    count: Decimal
    memory_gib: int | None
    form_factor: str | None = None


class Offer(BaseModel):
    """Something that is sold."""

    region: str
    instance_type: str
    market: Literal["on-demand", "spot"]
    hourly: Decimal
    on_demand_hourly: Decimal
    vcpus: int
    memory_gib: int
    disk_gib: int
    architecture: str
    accelerator: Accelerator | None

    def offer(self, provider: str, candidate: str) -> contract.Offer:
        """As the contract has it."""
        has = self.accelerator
        return contract.Offer(
            provider=provider,
            region=self.region,
            instance_type=self.instance_type,
            market=self.market,
            hourly_price=self.hourly,
            on_demand_price=self.on_demand_hourly,
            vcpus=self.vcpus,
            memory_gib=self.memory_gib,
            disk_gib=self.disk_gib,
            architecture=self.architecture,
            accelerator=(
                contract.Accelerator(has.name, has.count, has.memory_gib, has.form_factor) if has else None
            ),
            candidate=candidate,
        )


class Offers(BaseModel):
    """All of them."""

    offers: list[Offer]


class Quote(BaseModel):
    """A price in force."""

    hourly: Decimal


class Address(BaseModel):
    """Where SSH answers."""

    host: str
    port: int
    user: str


class Instance(BaseModel):
    """A machine."""

    id: str
    client_token: str
    tags: dict[str, str]
    state: contract.MachineState
    address: Address | None
    host_key: str | None
    created: datetime
    message: str

    def machine(self) -> contract.Machine:
        """As the contract has it."""
        where = self.address
        return contract.Machine(
            id=self.id,
            token=self.client_token,
            tags=self.tags,
            state=self.state,
            address=contract.Address(where.host, where.port, where.user) if where else None,
            host_key=self.host_key,
            created=self.created,
            message=self.message,
            preempted=self.message.startswith(INTERRUPTED),
        )


class Page(BaseModel):
    """Some of the machines."""

    instances: list[Instance]
    next_page: str | None
    complete: bool


class Interruption(BaseModel):
    """A machine that will be taken back."""

    instance: str
    at: datetime


class Interruptions(BaseModel):
    """All of them."""

    interruptions: list[Interruption]


class SideResource(BaseModel):
    """An SSH key or a security group."""

    id: str


class SideResources(BaseModel):
    """All of them."""

    side: list[SideResource]


class Console(BaseModel):
    """What a machine said."""

    console: str
