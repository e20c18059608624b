"""An offer, as the SDK shows it."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Offer:
    """One kind of machine that could be bought now. Prices are US dollars per hour; None is not known.

    `candidate` is the name of the candidate that it answers, c0 for the first Spec. `refusal` says why the
    operator would not ask for it now (it was refused a while ago); None: it would.
    """

    provider: str
    region: str
    instance_type: str
    market: str
    hourly_price: Decimal | None = None
    on_demand_price: Decimal | None = None
    vcpus: int | None = None
    memory_gib: int | None = None
    disk_gib: int | None = None
    architecture: str | None = None
    accelerator: str | None = None
    accelerator_count: Decimal | None = None
    accelerator_memory_gib: int | None = None
    candidate: str = ""
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that has no offer, and why."""

    candidate: str
    provider: str
    reason: str
    message: str
