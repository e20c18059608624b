"""ComputePool: what is wanted, and what is.

The spec belongs to people and programs, the operator never writes it. What the operator decides (how many
nodes an elastic pool should have now, for one) stands in the status.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.hardware import Candidate
from skyward.contract.image import Image
from skyward.contract.meta import (
    DAY,
    Conditions,
    Count,
    Json,
    Log,
    Message,
    Model,
    Money,
    Name,
    ObjectMeta,
    Observed,
    SecretRef,
    Sha256,
    Word,
)
from skyward.contract.names import API_VERSION, POOL_NAME_LIMIT
from skyward.contract.rules import immutable, list_map, rule, validations

Seconds = Annotated[int, Field(ge=0, le=30 * DAY)]


class Nodes(Model):
    """How many nodes: `desired` is the floor, `max` the ceiling, `min` how many make the pool usable."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.min) || self.min <= self.desired",
                "min must be at most desired: it says how many of the desired nodes make the pool usable",
                says="'min is ' + string(self.min) + ' but desired is ' + string(self.desired)"
                " + ': min must be at most desired; to release every node set spec.suspend to true'",
                field=".min",
            ),
            rule(
                "!has(self.max) || self.desired <= self.max",
                "desired must be at most max",
                says="'desired is ' + string(self.desired) + ' but max is ' + string(self.max)"
                " + ': desired must be at most max; raise max first'",
                field=".desired",
            ),
        )
    )

    desired: Annotated[int, Field(ge=0, le=1000)] = Field(
        1,
        description=(
            "Number of nodes that the pool keeps, 0 to 1000; `kubectl scale` writes it. An "
            "elastic pool (max is set) never has fewer."
        ),
    )
    min: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None,
        description=(
            "Number of ready nodes at which the pool takes calls, at most desired. Unset: all desired nodes."
        ),
    )
    max: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None,
        description=(
            "Most nodes that queued calls may raise the pool to, at least desired. Unset: the "
            "pool stays at desired."
        ),
    )


class Worker(Model):
    """How calls run on each node."""

    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Number of calls that one node runs at the same time, 1 to 256."
    )
    buffer: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description=(
            "Number of calls that are sent to a node ahead of a free slot, 0 to 256; hides "
            "latency of short calls."
        ),
    )
    executor: Literal["process", "thread"] = Field(
        "process", description="Whether each slot is a process of its own, or a thread of one shared process."
    )
    reuse: bool = Field(
        True, description="Whether a worker process runs many calls; false starts a fresh one for each call."
    )


class Volume(Model):
    """Object storage that appears as a folder on every node."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!(self.mountPath in ['/', '/bin', '/boot', '/dev', '/etc', '/home', '/lib', '/opt', '/opt/skyward',"
                " '/proc', '/root', '/run', '/sbin', '/sys', '/tmp', '/usr', '/var'])",
                "mountPath must be a folder of its own such as /data, not one of the operating system's",
                field=".mountPath",
            )
        )
    )

    mount_path: Annotated[
        str, Field(min_length=2, max_length=256, pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$")
    ] = Field(description="Absolute path of the folder on the node, such as /data.")
    bucket: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        description="Name of the bucket at the storage service."
    )
    prefix: Annotated[str, Field(max_length=1024)] = Field(
        "", description="Only keys below this prefix are shown; empty means the whole bucket."
    )
    read_only: bool = Field(True, description="Whether writing to the folder is refused.")
    mode: Literal["mount", "sync"] = Field(
        "mount", description="Whether keys are read on demand (mount), or copied before and after (sync)."
    )
    endpoint: Annotated[str, Field(max_length=1024, pattern=r"^https?://.+$")] | None = Field(
        None, description="URL of the S3-compatible service. Unset: the service of the node's provider."
    )
    region: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Region of the bucket. Unset: the region of the node."
    )
    credentials_ref: SecretRef | None = Field(
        None,
        description="Secret with the access keys of the storage service. Unset: the machine's own identity.",
    )


class Plugin(Model):
    """A framework integration that prepares nodes and calls."""

    name: Name = Field(description="Name of the plugin, such as torch, jax or accelerate.")
    parameters: Annotated[dict[str, Json], Field(max_length=64)] = Field(
        {}, description="Options of the plugin, as any JSON; the plugin's documentation lists them."
    )


class Lifetime(Model):
    """When machines end on their own."""

    ttl_seconds: Seconds = Field(
        600,
        description=(
            "Seconds after which a machine that hears nothing from the operator powers itself "
            "off; 0 turns this off. At most 30 days."
        ),
    )
    idle_seconds: Seconds = Field(
        60,
        description=(
            "Seconds that a node above desired must be idle before an elastic pool releases it. "
            "At most 30 days."
        ),
    )
    linger_seconds: Seconds = Field(
        0,
        description=(
            "Seconds that the nodes are kept after the pool's client is done, for the next run. "
            "At most 30 days."
        ),
    )
    max_lifetime_seconds: Annotated[int, Field(ge=0, le=365 * DAY)] = Field(
        0,
        description="Seconds after which each node is drained and released, whatever it runs; 0 means never.",
    )


class Lease(Model):
    """Ends the pool when the program that made it is gone."""

    duration_seconds: Annotated[int, Field(ge=30, le=30 * DAY)] = Field(
        description=(
            "Seconds after its client's last sign of life at which the pool is deleted, 30 to 2592000."
        )
    )


class Budget(Model):
    """The most that the pool may cost."""

    max_total: Money | None = Field(
        None, description="Most US dollars that the pool may cost over its life, as a decimal string."
    )
    max_hourly: Money | None = Field(
        None, description="Most US dollars per hour that all nodes together may cost, as a decimal string."
    )
    unknown_price: Literal["Deny", "Allow"] = Field(
        "Deny",
        description="Whether machines whose price the provider does not tell may be started under a budget.",
    )
    on_exceeded: Literal["Drain", "Stop"] = Field(
        "Drain",
        description="Whether running calls finish (Drain) or are stopped (Stop) when the budget is used up.",
    )


class Probe(Model):
    """A command that tells whether a node is well."""

    command: Annotated[
        tuple[Annotated[str, Field(max_length=4096)], ...], Field(min_length=1, max_length=64)
    ] = Field(description="Program and arguments, run on the node without a shell; exit status 0 means well.")
    period_seconds: Annotated[int, Field(ge=5, le=3600)] = Field(
        30, description="Seconds between two runs, 5 to 3600."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = Field(
        10, description="Seconds after which a run counts as failed, 1 to 600."
    )
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="Number of failed runs in a row at which the node is replaced, 1 to 100."
    )


class Health(Model):
    """When a node is bad enough to be replaced."""

    unhealthy_after_seconds: Annotated[int, Field(ge=10, le=DAY)] = Field(
        120,
        description=(
            "Seconds without an answer from its agent after which a node counts as lost, 10 to 86400."
        ),
    )
    max_unhealthy_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        40,
        description=(
            "Percentage of bad nodes above which none is replaced, since the cause then lies elsewhere."
        ),
    )
    probe: Probe | None = Field(
        None, description="Command that checks each node regularly. Unset: only the agent is watched."
    )


class PoolTimeouts(Model):
    """How long each step of making a node may take."""

    provision_seconds: Annotated[int, Field(ge=10, le=DAY)] = Field(
        1800,
        description="Seconds from the request to the provider until the machine has an address, 10 to 86400.",
    )
    ssh_seconds: Annotated[int, Field(ge=5, le=DAY)] = Field(
        600, description="Seconds until the machine's SSH server answers, 5 to 86400."
    )
    bootstrap_seconds: Annotated[int, Field(ge=10, le=DAY)] = Field(
        1800, description="Seconds for installing the image and starting the agent, 10 to 86400."
    )


class ComputePoolSpec(Model):
    """What the pool should be."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "has(self.ticketHash) == has(oldSelf.ticketHash)",
                "ticketHash cannot be added or removed after creation: create the pool with it",
                field=".ticketHash",
            ),
        )
    )

    candidates: Annotated[
        tuple[Candidate, ...], Field(min_length=1, max_length=16, json_schema_extra=list_map("name"))
    ] = Field(
        description="Hardware that will do, in order of preference: 1 to 16 entries, told apart by name."
    )
    selection: Literal["cheapest", "first", "available"] = Field(
        "cheapest",
        description=(
            "How an offer is chosen: cheapest compares prices over all candidates, first keeps "
            "their order, available takes what starts soonest."
        ),
    )
    nodes: Nodes = Field(Nodes(), description="How many nodes the pool has.")
    image: Image = Field(Image(), description="Software that every node has before it takes calls.")
    worker: Worker = Field(Worker(), description="How calls run on each node.")
    volumes: Annotated[tuple[Volume, ...], Field(max_length=16, json_schema_extra=list_map("mountPath"))] = (
        Field((), description="Object storage that appears as folders on every node, at most 16.")
    )
    plugins: Annotated[tuple[Plugin, ...], Field(max_length=16, json_schema_extra=list_map("name"))] = Field(
        (), description="Framework integrations, applied in order, at most 16."
    )
    lifetime: Lifetime = Field(Lifetime(), description="When machines end on their own.")
    lease: Lease | None = Field(
        None,
        description=(
            "Deletes the pool when the program that made it is gone. Unset: the pool stays until "
            "it is deleted."
        ),
    )
    budget: Budget | None = Field(None, description="The most that the pool may cost. Unset: no limit.")
    health: Health = Field(Health(), description="When a node is bad enough to be replaced.")
    timeouts: PoolTimeouts = Field(
        PoolTimeouts(), description="How long each step of making a node may take."
    )
    suspend: bool = Field(
        False,
        description=(
            "True lets running calls finish and releases every machine; the pool stays and costs nothing."
        ),
    )
    ticket_hash: (
        Annotated[Sha256, Field(json_schema_extra=immutable("ticketHash", "create another pool"))] | None
    ) = Field(
        None,
        description=(
            "SHA-256 of the secret that lets its creator use the gateway for this pool, as 64 "
            "hexadecimal digits."
        ),
    )


class NodeCounts(Observed):
    """The pool's nodes, counted."""

    total: Count = Field(0, description="Number of nodes that exist, ready or not.")
    ready: Count = Field(0, description="Number of nodes that take calls.")
    launching: Count = Field(0, description="Number of nodes that are being made.")
    failed: Count = Field(0, description="Number of nodes that failed and are being released.")


class Failures(Observed):
    """Failed attempts at making a node since the last one that worked."""

    count: Count = Field(
        0, description="Number of failures in a row; 3 stop the pool until its spec changes."
    )
    generation: int | None = Field(
        None, ge=0, le=2**53, description="The metadata.generation that the failures belong to."
    )
    reason: Word | None = Field(None, description="Reason of the last failure.")
    message: Message | None = Field(None, description="What happened at the last failure.")
    log: Log | None = Field(None, description="Last lines of the failed step's output.")


class OfferTried(Observed):
    """One offer that the operator asked for, and how that ended."""

    provider: Word | None = Field(None, description="Provider that was asked.")
    region: Word | None = Field(None, description="Region of the offer.")
    instance_type: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Instance type of the offer."
    )
    market: Word | None = Field(None, description="Market of the offer: spot or on-demand.")
    hourly_price: Money | None = Field(None, description="Price of the offer in US dollars per hour.")
    outcome: Word | None = Field(None, description="Launched, or the reason of the refusal.")
    message: Annotated[Message, Field(max_length=4096)] | None = Field(
        None, description="The provider's own words."
    )
    time: datetime | None = Field(None, description="When the provider answered, in RFC 3339.")


class PoolCost(Observed):
    """What the pool costs, in US dollars."""

    hourly: Money | None = Field(None, description="Price of all nodes together per hour, in US dollars.")
    accrued: Money | None = Field(None, description="Cost so far, in US dollars.")
    on_demand_hourly: Money | None = Field(
        None, description="Price of the same nodes at on-demand rates per hour, in US dollars."
    )
    saved: Money | None = Field(None, description="Saved so far against on-demand rates, in US dollars.")


class PoolDisplay(Observed):
    """Texts for the columns of `kubectl get`."""

    nodes: Word | None = Field(None, description="Ready and wanted nodes, such as 2/2.")
    hardware: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Hardware of the nodes, such as 8xH100 aws."
    )
    hourly: Word | None = Field(None, description="Price per hour in US dollars, such as 4.20.")


class ComputePoolStatus(Observed):
    """What the operator observed."""

    observed_generation: int | None = Field(
        None, ge=0, le=2**53, description="The metadata.generation that this status answers to."
    )
    phase: Word | None = Field(
        None,
        description=(
            "Where the pool stands: Pending, Provisioning, Ready, Degraded, Stalled, Suspended or Deleting."
        ),
    )
    reason: Word | None = Field(None, description="Why the pool is in its phase, as one CamelCase word.")
    message: Message | None = Field(None, description="The reason in a sentence, with the next step.")
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Label selector that finds the pool's nodes; part of the scale subresource."
    )
    desired_nodes: Count | None = Field(
        None,
        description=(
            "Number of nodes that the operator wants now: spec.nodes.desired, or more in an elastic pool."
        ),
    )
    nodes: NodeCounts | None = Field(None, description="The pool's nodes, counted.")
    usable: bool | None = Field(
        None, description="Whether enough nodes are ready for the pool to take calls."
    )
    failures: Failures | None = Field(
        None, description="Failed attempts at making a node since the last one that worked."
    )
    offers_tried: Annotated[tuple[OfferTried, ...], Field(max_length=32)] = Field(
        (), description="Latest offers that were asked for and how that ended, newest first, at most 32."
    )
    cost: PoolCost | None = Field(None, description="What the pool costs.")
    display: PoolDisplay | None = Field(None, description="Texts for the columns of kubectl get.")
    conditions: Conditions = Field(
        (), description="Aspects of the pool's state: Ready, Provisioning, Stalled and others."
    )


class ComputePool(Model):
    """Machines that are wanted for running tasks: which hardware, how many, with which software, at what price."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                f"self.metadata.name.size() <= {POOL_NAME_LIMIT} && !self.metadata.name.contains('.')",
                f"metadata.name of a ComputePool may have at most {POOL_NAME_LIMIT} characters:"
                " lower-case letters, digits and hyphens, no dots",
                says="'metadata.name \"' + self.metadata.name + '\" has ' + string(self.metadata.name.size())"
                f" + ' characters; a pool name may have at most {POOL_NAME_LIMIT}:"
                " lower-case letters, digits and hyphens, no dots'",
            )
        )
    )

    api_version: Literal["skyward.dev/v1alpha1"] = API_VERSION
    kind: Literal["ComputePool"] = "ComputePool"
    metadata: ObjectMeta = ObjectMeta()
    spec: ComputePoolSpec = Field(
        description="What the pool should be; people and programs write it, the operator never does."
    )
    status: ComputePoolStatus = Field(
        ComputePoolStatus(), description="What the operator observed; only it writes here."
    )
