"""ComputeNode: one machine at most, ever.

The operator writes it, people read and delete it. The spec is copied from the pool when the node is made and
never changes, so it has no defaults that a later version could fill differently. The intent to launch stands
in the status before a provider is asked.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.hardware import Candidate
from skyward.contract.image import Image
from skyward.contract.meta import (
    Conditions,
    Count,
    Log,
    Message,
    Model,
    Money,
    ObjectMeta,
    ObjectName,
    Observed,
    Word,
)
from skyward.contract.names import API_VERSION, NAME_LIMIT, RANK_LIMIT
from skyward.contract.pool import PoolTimeouts, Worker
from skyward.contract.rules import list_map, rule, validations


class NodePoolRef(Model):
    """The pool that a node belongs to."""

    name: ObjectName = Field(description="Name of the ComputePool, in the namespace of this node.")
    uid: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="UID of the ComputePool, so that a later pool of the same name is another one."
    )


class ComputeNodeSpec(Model):
    """What the machine should be; copied from the pool and never changed."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self == oldSelf",
                "spec of a ComputeNode cannot be changed after creation: change the pool, or delete the node to replace it",
            )
        )
    )

    pool_ref: NodePoolRef = Field(description="The pool that the node belongs to.")
    rank: Annotated[int, Field(ge=0, le=RANK_LIMIT)] = Field(
        description="Place of the node in its pool, from 0; rank 0 is the head."
    )
    incarnation: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        description="How many nodes of this rank the pool had before this one."
    )
    candidates: Annotated[
        tuple[Candidate, ...], Field(min_length=1, max_length=16, json_schema_extra=list_map("name"))
    ] = Field(description="Hardware that will do, as the pool had it when the node was made.")
    image: Image = Field(description="Software of the node, as the pool had it when the node was made.")
    worker: Worker = Field(
        description="How calls run on the node, as the pool had it when the node was made."
    )
    timeouts: PoolTimeouts = Field(
        description="How long each step may take, as the pool had it when the node was made."
    )
    template_hash: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")] = Field(
        description=(
            "Hash of what the node was made from; it differs from the pool's when the node is out of date."
        )
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


class Launch(Observed):
    """The intent to make a machine, written before the provider is asked."""

    attempt: Count | None = Field(None, description="Number of the attempt, from 1.")
    candidate: Word | None = Field(None, description="Name of the candidate that the offer comes from.")
    offer: LaunchOffer | None = Field(None, description="What the provider is asked for.")
    token: Word | None = Field(
        None,
        description="Idempotency token: the machine carries it, and asking twice with it makes one machine.",
    )
    request_time: datetime | None = Field(None, description="When the provider was asked, in RFC 3339.")
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


class Billing(Observed):
    """The interval in which the machine costs money."""

    start_time: datetime | None = Field(None, description="When billing began, in RFC 3339.")
    end_time: datetime | None = Field(None, description="When billing ended, in RFC 3339.")
    hourly_price: Money | None = Field(None, description="Price in US dollars per hour.")


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
    billing: Billing | None = Field(None, description="The interval in which the machine costs money.")
    display: NodeDisplay | None = Field(None, description="Texts for the columns of kubectl get.")
    conditions: Conditions = Field(
        (), description="Aspects of the node's state: Launched, Bootstrapped, Ready, Interrupted, Drained."
    )


class ComputeNode(Model):
    """One machine of a pool, made and written by the operator. Delete it to have the machine replaced."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                f"self.metadata.name.size() <= {NAME_LIMIT}",
                f"metadata.name of a ComputeNode may have at most {NAME_LIMIT} characters",
            )
        )
    )

    api_version: Literal["skyward.dev/v1alpha1"] = API_VERSION
    kind: Literal["ComputeNode"] = "ComputeNode"
    metadata: ObjectMeta = ObjectMeta()
    spec: ComputeNodeSpec = Field(description="What the machine should be; written once, by the operator.")
    status: ComputeNodeStatus = Field(ComputeNodeStatus(), description="What the operator did and observed.")
