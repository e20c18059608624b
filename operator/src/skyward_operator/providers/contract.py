"""What the operator asks of every provider, in plain words.

Calls return at once and are polled: `create` says that a machine was ordered, `describe` how far it is.
What a provider can do is declared (`Capabilities`), never guessed. Where it honours tokens, the same token
never buys a second machine, whoever asks, however often; where it does not, the caller looks before it buys
again. `terminate` can be repeated, and "already gone" is success. Absence must be proven: a listing that may
be incomplete says so. Errors are those of `errors.py`, nothing else leaves an adapter.

Anybody can add an adapter: a class that is called with a `Setup` and keeps `Provider`, under an entry point
of the group `skyward.providers`, named as in `candidates[].provider`. `conformance.py` has the tests that it
has to pass.
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
class Metadata:
    """An address inside of a machine that answers 404 until the provider takes it back, and then a JSON
    object with the time. The agent asks it every `every` seconds."""

    base: str
    """Where the service is, such as http://169.254.169.254."""
    path: str
    time_field: str
    """The member of the answer with the time, in RFC 3339."""
    base_variable: str = ""
    """A variable of the machine's environment that stands for `base` where it is set."""
    headers: Mapping[str, str] = field(default_factory=dict)
    token_path: str = ""
    """PUT here first, with `token_headers`; what it answers goes into the header `token_header`."""
    token_header: str = ""
    token_headers: Mapping[str, str] = field(default_factory=dict)
    every: float = 5.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can do, for callers that must work around what it cannot."""

    idempotency_token: bool
    """The provider itself refuses to buy twice for one token."""
    visibility_seconds: float
    """How long a machine may be missing from a listing, counted from when its order was sent, and one that
    is gone still be in it. 0: an order that is not in a listing was never taken."""
    host_key: bool
    """`Machine.host_key` is known before the first connection; else it is pinned on first use."""
    stop_ends_billing: bool
    """A machine that powers itself off costs nothing any more."""
    power_off: str = "shutdown -h now"
    """What ends the machine from inside, run there as root by the dead-man's switch. Empty: nothing does, so
    that only the operator can end it."""
    user_data: bool = False
    """`CreateRequest.user_data` is what cloud-init does at the first boot: a script, or a cloud-config
    document where `host_key` is false, since that gives the machine one."""
    tags: bool = True
    """Machines carry tags of ours; else they are found by name."""
    private_network: bool = False
    """Machines of one region reach each other by addresses of their own."""
    side_resources: bool = False
    """Something besides machines is made in the account, and `clean_up` removes it."""
    spot: bool = False
    regions: bool = False
    interruption_notice_seconds: float | None = None
    """How long before it takes a machine back the provider says so by `interruptions`; None: it does not."""
    metadata: Metadata | None = None
    """Where a machine itself can see that it will be taken back; None: nowhere."""
    prices_move: bool = False
    """What a running spot machine costs follows the market, and `quote` tells it."""
    billing_unit_seconds: int = 1
    """A machine is paid for in units of so many seconds, each one whole once it has begun."""
    billing_minimum_seconds: int = 0
    """So many seconds are paid for a machine at least."""

    @property
    def ends_by_itself(self) -> bool:
        """Whether the dead-man's switch of a machine ends what it costs."""
        return self.stop_ends_billing and bool(self.power_off)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Accelerators of one machine."""

    name: str
    count: Decimal
    memory_gib: int | None = None
    form_factor: str | None = None
    """How it is built in, such as SXM or PCIe."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that can be bought now. Prices are dollars per hour; None is "not known", never "free"."""

    provider: str
    region: str
    """The smallest place that sells it: a zone where the provider has them."""
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
    preempted: bool = False
    """The provider took it back, as it may; false where it does not say."""


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """An order. `token` identifies it for ever; `tags` are found again by `list`."""

    offer: Offer
    token: str
    name: str
    tags: Mapping[str, str]
    ssh_public_key: str
    user_data: str | None = None
    max_hourly_price: Decimal | None = None
    """Where a market moves: not above this, even if the offer's price has changed."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    disk_gib: int | None = None
    """Disk that is asked for, where a machine's disk is not given by its type."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Machines found. `complete` is false if some may be missing, and then absence proves nothing."""

    machines: Sequence[Machine]
    complete: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """The provider will take this machine back at this time."""

    machine_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Setup:
    """What an adapter is made from. Credentials are the data of the Secret that a candidate refers to.

    Without any, an adapter may use the operator's own identity. It never mixes the two: whoever can write a
    Secret must not have the operator's identity sent to an address of theirs.
    """

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
        """What is sold that fits this candidate; there may be none left of it.

        Raises Rejected, naming the field, for what can never be had here.
        """
        ...

    async def quote(self, offer: Offer) -> Offer:
        """The same offer at the price in force. Raises Rejected if it is not sold any more."""
        ...

    async def create(self, request: CreateRequest) -> Machine:
        """Order a machine, or return the one that this token already ordered (GONE, if it was).

        Makes what the machine needs beside it (an SSH key, a security group) first, with the tags of its
        installation and pool. Raises UnknownOutcome whenever a machine may have been bought without an id.
        """
        ...

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """All machines that carry all of these tags, from all pages and regions; host keys may be missing."""
        ...

    async def describe(self, machine_id: str) -> Machine | None:
        """The machine, or None if the provider says that it does not exist."""
        ...

    async def terminate(self, machine_id: str, token: str) -> bool:
        """Have the machine ended. True once it is proven gone, False while it is still going.

        A machine that carries another token is not touched: ids may be used again.
        """
        ...

    async def interruptions(self, tags: Mapping[str, str]) -> Sequence[Notice]:
        """Machines with these tags that will be taken back, as far as the provider says so."""
        ...

    async def console(self, machine_id: str) -> str:
        """The end of what the machine itself said while it booted; empty if the provider has nothing."""
        ...

    async def clean_up(self, tags: Mapping[str, str]) -> bool:
        """Remove side resources with these tags that no machine uses. True when none with them is left."""
        ...

    async def aclose(self) -> None:
        """Release what the adapter holds; machines stay."""
        ...
