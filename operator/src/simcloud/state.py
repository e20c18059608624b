"""The state of the cloud, as it follows from the ledger. Nothing else changes it."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from simcloud.catalog import catalog
from simcloud.faults import Fate

if TYPE_CHECKING:
    from simcloud.ledger import Event


class Condition(StrEnum):
    """How far an instance is."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    GONE = "gone"


class Interval(BaseModel):
    """A time that is paid for, at one price."""

    hourly: Decimal
    began: float
    ended: float | None = None

    def amount(self, now: float) -> Decimal:
        """Dollars until now, by the second."""
        seconds = Decimal(str(round(max(0.0, (self.ended or now) - self.began), 3)))
        return (seconds * self.hourly / 3600).quantize(Decimal("0.000001"))


class Instance(BaseModel):
    """One machine, from its order on. It is paid for from then until it is gone."""

    id: str
    account: str
    token: str
    name: str
    region: str
    instance_type: str
    market: str
    tags: dict[str, str]
    ssh_key: str
    security_group: str | None
    user_data: str | None
    hourly: Decimal
    max_hourly: Decimal | None
    created: float
    host: str
    port: int
    metadata_key: str
    host_key: str = ""
    """The public host key that the machine has."""
    fate: Fate = Fate()
    running: float | None = None
    noticed: float | None = None
    """When an interruption was announced."""
    interrupted_at: float | None = None
    """When it will be interrupted."""
    stopping: float | None = None
    gone: float | None = None
    hung: bool = False
    power_off_ends: bool = True
    """Whether it is paid for no more once it was powered off from inside."""
    cause: str = ""
    intervals: list[Interval] = Field(default_factory=list)

    def condition(self, at: float | None = None) -> Condition:
        """How far it is, or was at a time."""
        for reached, condition in (
            (self.gone, Condition.GONE),
            (self.stopping, Condition.STOPPING),
            (self.running, Condition.RUNNING),
        ):
            if reached is not None and (at is None or reached <= at):
                return condition
        return Condition.PENDING

    def amount(self, now: float) -> Decimal:
        """What it has cost until now."""
        return sum((interval.amount(now) for interval in self.intervals), Decimal(0))


class SideResource(BaseModel):
    """A thing beside the machines: an SSH key or a security group."""

    id: str
    account: str
    kind: str
    name: str
    tags: dict[str, str]
    content: dict[str, Any]
    created: float


class State:
    """All accounts' instances and side resources, the prices, and the clock's shift."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.by_token: dict[tuple[str, str], str] = {}
        self.side: dict[str, SideResource] = {}
        self.prices: dict[tuple[str, str], Decimal] = {}
        self.shift = 0.0

    def price(self, instance_type: str, market: str) -> Decimal | None:
        """The price in force, if it is sold in this market."""
        listed = catalog()[instance_type].price(market)
        return None if listed is None else self.prices.get((instance_type, market), listed)

    def live(self, account: str | None = None) -> list[Instance]:
        """Instances that exist, and are paid for."""
        return [
            each
            for each in self.instances.values()
            if each.gone is None and (account is None or each.account == account)
        ]

    def users(self, resource: SideResource) -> int:
        """How many instances use a side resource."""
        return sum(resource.id in (each.ssh_key, each.security_group) for each in self.live())

    def apply(self, event: Event) -> None:
        """Take in one event of the ledger."""
        time = event["time"]
        match event["kind"]:
            case "created":
                self._created(Instance.model_validate(event["instance"]))
            case "running":
                self.instances[event["id"]].running = time
            case "noticed":
                self.instances[event["id"]].noticed = time
                self.instances[event["id"]].interrupted_at = event["at"]
            case "doomed":
                instance = self.instances[event["id"]]
                instance.fate = instance.fate.model_copy(update=event["fate"])
            case "hung":
                self.instances[event["id"]].hung = True
            case "stopping":
                self.instances[event["id"]].stopping = time
                self.instances[event["id"]].cause = event["cause"]
            case "gone":
                self._gone(self.instances[event["id"]], time, event["cause"])
            case "side-created":
                resource = SideResource.model_validate(event["resource"])
                self.side[resource.id] = resource
            case "side-deleted":
                del self.side[event["id"]]
            case "priced":
                self._priced(event["instance_type"], event["market"], Decimal(event["hourly"]), time)
            case "clock":
                self.shift += event["seconds"]

    def _created(self, instance: Instance) -> None:
        instance.intervals = [Interval(hourly=instance.hourly, began=instance.created)]
        self.instances[instance.id] = instance
        self.by_token.setdefault((instance.account, instance.token), instance.id)

    def _gone(self, instance: Instance, time: float, cause: str) -> None:
        instance.gone, instance.cause = time, cause
        instance.intervals[-1].ended = time

    def _priced(self, instance_type: str, market: str, hourly: Decimal, time: float) -> None:
        """On-demand instances keep the price that they were ordered at; the spot market moves them all."""
        self.prices[instance_type, market] = hourly
        if market != "spot":
            return
        for instance in self.live():
            if (instance.instance_type, instance.market) == (instance_type, market):
                instance.intervals[-1].ended = time
                instance.intervals.append(Interval(hourly=hourly, began=time))
