"""What goes wrong, as data: a script that the cloud follows, the same each time for the same seed.

A scenario is JSON:

    {"seed": 7,
     "boot_seconds": 2,
     "faults": [
       {"at": "create", "effect": "lose-answer", "times": 1},
       {"at": "create", "effect": "no-capacity", "where": {"market": "spot"}, "times": 2},
       {"at": "list", "effect": "lag", "seconds": 20, "probability": 0.3},
       {"at": "vm", "effect": "preempt", "seconds": 60, "notice_seconds": 15}]}

`skip` and `times` count what the fault could have happened to: the first `skip` go well, the next `times` do
not. Request faults hit a request, those at `vm` decide the fate of a machine when it is ordered.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

type Operation = Literal[
    "any", "offers", "quote", "create", "describe", "list", "terminate", "notices", "console", "side", "vm"
]
type Effect = Literal[
    "slow",
    "cut",
    "lose-answer",
    "internal-error",
    "lose-with-error",
    "unavailable",
    "rate-limit",
    "unauthorized",
    "no-capacity",
    "quota",
    "duplicate",
    "lag",
    "partial",
    "partial-in-silence",
    "slow-boot",
    "boot-never-ends",
    "ssh-refused",
    "wrong-host-key",
    "preempt",
    "vanish",
    "hang",
    "terminate-ignored",
]

AT_CREATE = frozenset({"no-capacity", "quota", "duplicate"})
AT_LIST = frozenset({"lag", "partial", "partial-in-silence"})
AT_VM = frozenset(
    {
        "slow-boot",
        "boot-never-ends",
        "ssh-refused",
        "wrong-host-key",
        "preempt",
        "vanish",
        "hang",
        "terminate-ignored",
    }
)
"""`vanish`: the machine is gone, without notice. `hang`: it is dead, and the cloud says that it runs."""

Seconds = Annotated[float, Field(ge=0, le=10_000_000)]


class Fault(BaseModel):
    """One thing that goes wrong."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: Operation
    effect: Effect
    where: dict[str, str] = Field({}, description="Only for this region, instance_type, market or account.")
    skip: Annotated[int, Field(ge=0)] = 0
    times: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    seconds: Seconds = 1.0
    notice_seconds: Seconds = 0.0
    fraction: Annotated[float, Field(ge=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _fits(self) -> Self:
        limited = {"create": AT_CREATE, "list": AT_LIST, "vm": AT_VM}
        for place, effects in limited.items():
            if self.effect in effects and self.at != place:
                raise ValueError(f"{self.effect} happens at {place!r} only, not at {self.at!r}")
        if self.at == "vm" and self.effect not in AT_VM:
            raise ValueError(f"{self.effect} happens to a request, not to a machine")
        return self


class PriceChange(BaseModel):
    """A list price that changes so many seconds after the scenario began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after_seconds: Seconds
    instance_type: str
    market: Literal["on-demand", "spot"]
    hourly: Annotated[Decimal, Field(ge=0)]


class Capacity(BaseModel):
    """How many of an instance type exist in a region and market. Unset: as many as anybody wants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: str
    instance_type: str
    market: Literal["on-demand", "spot"]
    machines: Annotated[int, Field(ge=0)]


class Scenario(BaseModel):
    """How the cloud behaves. Without anything it is fast, honest and endless."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    boot_seconds: Seconds = 0.0
    terminate_seconds: Seconds = 0.0
    page_size: Annotated[int, Field(ge=1, le=1000)] = 100
    remember_seconds: Seconds = Field(3600.0, description="How long a machine that is gone can be described.")
    clock_skew_seconds: Annotated[float, Field(ge=-1_000_000, le=1_000_000)] = 0.0
    faults: Annotated[tuple[Fault, ...], Field(max_length=256)] = ()
    prices: Annotated[tuple[PriceChange, ...], Field(max_length=256)] = ()
    capacity: Annotated[tuple[Capacity, ...], Field(max_length=256)] = ()
