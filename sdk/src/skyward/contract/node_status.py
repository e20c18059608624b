"""What the operator did about one machine, and what it observed.

The launch intent stands here before a provider is asked, so that a restart finds the machine again.
"""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from skyward.contract.meta import (
    Conditions,
    Count,
    Log,
    Message,
    Money,
    Observed,
    Word,
)


class LaunchOffer(Observed):
    """What the provider was asked for."""

    provider: Word | None = Field(None, description="Provider of the machine.")
    region: Word | None = Field(None, description="Region of the machine.")
    instance_type: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Instance type of the machine."
    )
    market: Word | None = Field(None, description="Market of the offer: spot or on-demand.")
    hourly_price: Money | None = Field(None, description="Price in US dollars per hour.")
    on_demand_price: Money | None = Field(
        None, description="On-demand price of the same machine in US dollars per hour."
    )
    billing_unit_seconds: Count | None = Field(
        None, description="Seconds that are billed as a whole, once they have begun."
    )
    billing_minimum_seconds: Count | None = Field(
        None, description="Seconds that are billed at least, however short the machine is there."
    )
    reserved_seconds: Count | None = Field(
        None,
        description=(
            "Seconds from the decision to end the machine until it is surely gone: what they cost is kept "
            "back from budgets."
        ),
    )


class Launch(Observed):
    """The intent to make a machine, written before the provider is asked."""

    attempt: Count | None = Field(None, description="Number of the attempt, from 1.")
    candidate: Word | None = Field(None, description="Name of the candidate that the offer comes from.")
    offer: LaunchOffer | None = Field(None, description="What the provider is asked for.")
    token: Word | None = Field(
        None,
        description="Idempotency token: the machine carries it, and asking twice with it makes one machine.",
    )
    request_time: datetime | None = Field(None, description="When the intent was written, in RFC 3339.")
    asked_time: datetime | None = Field(
        None,
        description=(
            "When the provider was asked again, in RFC 3339: a machine may be missing from listings for a "
            "while after it was ordered."
        ),
    )
    boot_ttl_seconds: Count | None = Field(
        None,
        description=(
            "Seconds of silence after which the machine ends, as it is told at its first boot; 0 or unset: "
            "it is told with the first connection."
        ),
    )
    power_off_ends_billing: bool | None = Field(
        None,
        description="Whether a machine that powers itself off costs nothing any more at this provider.",
    )
    outcome: Word | None = Field(
        None, description="Pending, Launched, Unknown, or the reason of the refusal."
    )


class Address(Observed):
    """Where the machine's SSH server listens."""

    host: Annotated[str, Field(max_length=253)] | None = Field(None, description="Host name or IP address.")
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="TCP port of the SSH server."
    )
    user: Word | None = Field(None, description="User that the operator logs in as.")


class AgentInfo(Observed):
    """The program that runs calls on the node."""

    boot_id: Word | None = Field(
        None, description="Identity of the agent's run; it changes when the agent restarts."
    )
    python: Word | None = Field(None, description="Version of Python that calls run with.")
    version: Word | None = Field(None, description="Version of skyward on the node.")


class DeadMan(Observed):
    """The switch on the machine that powers it off when the operator is silent for too long."""

    keeper: Word | None = Field(
        None,
        description="What starts it again when it is killed: systemd, or processes that watch each other.",
    )
    ttl_seconds: Count | None = Field(
        None, description="Seconds of silence after which the machine ends; 0 means never."
    )


class BootstrapProgress(Observed):
    """How far the installation of the node's software is."""

    step: Word | None = Field(
        None, description="Step that is under way, such as uv, python, apt, pip or agent."
    )
    start_time: datetime | None = Field(None, description="When the installation began, in RFC 3339.")
    last_line: Annotated[Message, Field(max_length=4096)] | None = Field(
        None, description="Last line of its output."
    )
    log: Log | None = Field(None, description="Last lines of its output when it failed.")


class PriceChange(Observed):
    """A price that moved while the machine was running."""

    since_time: datetime | None = Field(None, description="When the price began, in RFC 3339.")
    hourly_price: Money | None = Field(None, description="Price in US dollars per hour from then on.")


class Billing(Observed):
    """The interval in which the machine costs money."""

    start_time: datetime | None = Field(None, description="When billing began, in RFC 3339.")
    end_time: datetime | None = Field(None, description="When billing ended, in RFC 3339.")
    hourly_price: Money | None = Field(None, description="Price in US dollars per hour when billing began.")
    prices: Annotated[tuple[PriceChange, ...], Field(max_length=64)] = Field(
        (), description="Changes of the price since, oldest first, at most 64."
    )


class Interruption(Observed):
    """What the provider announced: it takes the machine back."""

    notice_time: datetime | None = Field(None, description="When the operator heard of it, in RFC 3339.")
    deadline: datetime | None = Field(None, description="When the machine is taken, in RFC 3339.")
    source: Word | None = Field(
        None, description="Who said so first: Machine (from inside of it) or Provider (its API)."
    )


class NodeDisplay(Observed):
    """Texts for the columns of `kubectl get`."""

    hourly: Word | None = Field(None, description="Price per hour in US dollars, such as 4.20.")
    address: Annotated[str, Field(max_length=320)] | None = Field(
        None, description="Address as ssh takes it, user@host:port."
    )


class ComputeNodeStatus(Observed):
    """What the operator did and observed."""

    observed_generation: int | None = Field(
        None, ge=0, le=2**53, description="The metadata.generation that this status answers to."
    )
    phase: Word | None = Field(
        None,
        description=(
            "Where the node stands: Pending, Launching, Connecting, Bootstrapping, Ready, "
            "Draining, Terminating, Failed or Gone."
        ),
    )
    reason: Word | None = Field(None, description="Why the node is in its phase, as one CamelCase word.")
    message: Message | None = Field(None, description="The reason in a sentence, with the next step.")
    launch: Launch | None = Field(
        None, description="The intent to make a machine, written before the provider is asked."
    )
    provider_id: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Identity of the machine at its provider."
    )
    address: Address | None = Field(None, description="Where the machine's SSH server listens.")
    host_key: Annotated[str, Field(max_length=1024)] | None = Field(
        None,
        description=(
            "Public host key of the machine, as one line of OpenSSH; connections to any other are refused."
        ),
    )
    host_key_fingerprint: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Fingerprint of the host key, as ssh shows it."
    )
    agent: AgentInfo | None = Field(None, description="The program that runs calls on the node.")
    slots: Count | None = Field(None, description="Number of calls that the node runs at the same time.")
    bootstrap: BootstrapProgress | None = Field(
        None, description="How far the installation of the software is."
    )
    heartbeat_time: datetime | None = Field(
        None, description="When the agent last answered, in RFC 3339; written at most once a minute."
    )
    ready_time: datetime | None = Field(None, description="When the node first took calls, in RFC 3339.")
    dead_man: DeadMan | None = Field(
        None,
        description="The switch on the machine that powers it off when the operator is silent for too long.",
    )
    billing: Billing | None = Field(None, description="The interval in which the machine costs money.")
    interruption: Interruption | None = Field(
        None, description="The provider's notice that it takes the machine back; a notice is final."
    )
    display: NodeDisplay | None = Field(None, description="Texts for the columns of kubectl get.")
    conditions: Conditions = Field(
        (), description="Aspects of the node's state: Launched, Bootstrapped, Ready, Interrupted, Drained."
    )
