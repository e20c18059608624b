"""What the operator asks of every provider, in plain words.

Calls return at once and are polled: `create` says that a machine was ordered, `describe` how far it is.
`create` is idempotent by token: the same token never buys a second machine, whoever asks, however often.
`terminate` is idempotent too, and "already gone" is success. Absence must be proven: a listing that may be
incomplete says so. Errors are those of `errors.py`, nothing else leaves an adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal
    from pathlib import Path

    from skyward.contract.hardware import Candidate

TAG_INSTALLATION = "skyward.dev/installation"
TAG_POOL = "skyward.dev/pool"
TAG_NODE = "skyward.dev/node"
TAG_NODE_UID = "skyward.dev/node-uid"
TAG_TOKEN = "skyward.dev/token"  # noqa: S105 - the name of a tag


class MachineState(StrEnum):
    """How far a machine is, as its provider sees it."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do, for callers that must work around what it cannot."""

    idempotency_token: bool
    """The provider itself refuses to buy twice for one token."""
    visibility_seconds: float
    """How long a new machine may be missing from a listing."""
    host_key: bool
    """`Machine.host_key` is known before the first connection; else it is pinned on first use."""
    user_data: bool = False
    spot: bool = False
    regions: bool = False


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Accelerators of one machine."""

    name: str
    count: Decimal
    memory_gib: int | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that can be bought now. Prices are dollars per hour; None is "not known", never "free"."""

    provider: str
    region: str
    instance_type: str
    market: str
    hourly_price: Decimal | None
    on_demand_price: Decimal | None
    vcpus: int | None = None
    memory_gib: int | None = None
    disk_gib: int | None = None
    architecture: str | None = None
    accelerator: Accelerator | None = None
    candidate: str = ""
    """Name of the candidate of the pool that this answers."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where SSH answers."""

    host: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as the provider describes it. `host_key` is a public key line, e.g. `ssh-ed25519 AAAA…`."""

    id: str
    token: str
    tags: Mapping[str, str]
    state: MachineState
    address: Address | None = None
    host_key: str | None = None
    created: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """An order. `token` identifies it for ever; `tags` are found again by `list`."""

    offer: Offer
    token: str
    name: str
    tags: Mapping[str, str]
    ssh_public_key: str
    user_data: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """Machines found. `complete` is false if some may be missing, and then absence proves nothing."""

    machines: Sequence[Machine]
    complete: bool


@dataclass(frozen=True, slots=True)
class Setup:
    """What an adapter is made from. Credentials are the data of the Secret a candidate refers to."""

    data_dir: Path
    credentials: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Provider(Protocol):
    """One account at one place that has machines."""

    @property
    def name(self) -> str:
        """The word in `candidates[].provider`."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this adapter can do."""
        ...

    async def offers(self, candidate: Candidate) -> Sequence[Offer]:
        """What could be bought for this candidate now. Raises Rejected if it can never be."""
        ...

    async def create(self, request: CreateRequest) -> Machine:
        """Order a machine, or return the one that this token already ordered."""
        ...

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """All machines that carry all of these tags."""
        ...

    async def describe(self, machine_id: str) -> Machine | None:
        """The machine, or None if the provider says that it does not exist."""
        ...

    async def terminate(self, machine_id: str, token: str) -> bool:
        """Have the machine ended. True once it is proven gone, False while it is still going.

        A machine that carries another token is not touched: ids may be used again.
        """
        ...

    async def aclose(self) -> None:
        """Release what the adapter holds; machines stay."""
        ...
