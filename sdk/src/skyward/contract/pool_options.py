"""The parts of a pool's spec: size, workers, volumes, lifetime, money, health, time-outs.

Of these, a node copies what its machine is made from.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.meta import (
    DAY,
    INLINE_LIMIT,
    Json,
    Model,
    Money,
    Name,
    SecretRef,
)
from skyward.contract.rules import rule, validations

Seconds = Annotated[int, Field(ge=0, le=30 * DAY)]


class Nodes(Model):
    """How many nodes: `desired` is the floor, `max` the ceiling, `min` how many make the pool usable."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.min) || self.min <= self.desired",
                "min must be at most desired: it says how many of the desired nodes make the pool usable",
                says="'min is %d but desired is %d: min must be at most desired;"
                " to release every node set spec.suspend to true'.format([self.min, self.desired])",
                field=".min",
            ),
            rule(
                "!has(self.max) || self.desired <= self.max",
                "desired must be at most max",
                says="'desired is %d but max is %d: desired must be at most max; raise max first'"
                ".format([self.desired, self.max])",
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
            "Number of ready nodes at which the pool takes calls, at most desired. Unset: all desired nodes. "
            "With desired 0 and max, nodes are made when a task is queued."
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
                "!(self.mountPath in ['/', '/bin', '/boot', '/dev', '/etc', '/home', '/lib', '/opt',"
                " '/opt/skyward', '/proc', '/root', '/run', '/sbin', '/sys', '/tmp', '/usr', '/var'])",
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
            "Seconds for which fewer nodes must have been enough before an elastic pool releases one above "
            "desired: the one that has been idle longest, and none that runs something. At most 30 days."
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
        description=(
            "Whether running calls have drainSeconds to finish (Drain) or are stopped at once (Stop) when "
            "the budget is used up."
        ),
    )
    drain_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        30,
        description=(
            "Seconds that running calls have to finish when the budget is used up, 0 to 3600; what they cost "
            "is kept back for them."
        ),
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


class Checker(Model):
    """A function that tells whether a node is well."""

    function: Annotated[
        str,
        Field(
            min_length=4,
            max_length=INLINE_LIMIT,
            json_schema_extra=validations(
                rule("self.size() % 4 == 0", "function must be base64, whose length is a multiple of 4")
            ),
        ),
    ] = Field(
        description=(
            "The pickled function in base64, of at most 64 KiB: it is called without arguments in a process "
            "of its own, and what it returns says whether the node is well. The SDK writes it "
            "(sky.HealthChecker)."
        )
    )
    period_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        30, description="Seconds between two runs, 1 to 3600."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = Field(
        15, description="Seconds after which a run counts as failed and is killed, 1 to 600."
    )
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="Number of failed runs in a row at which the node is replaced, 1 to 100."
    )
    initial_delay_seconds: Annotated[int, Field(ge=0, le=DAY)] = Field(
        0, description="Seconds from the moment at which the agent has the check until its first run."
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
    checker: Checker | None = Field(
        None, description="Function that checks each node regularly, beside the probe or alone."
    )


class PoolTimeouts(Model):
    """How long each step of making a node may take."""

    provision_seconds: Annotated[int, Field(ge=10, le=DAY)] = Field(
        1800,
        description=(
            "Seconds for which a node waits for an offer that is not refused, and then seconds from the "
            "request to the provider until the machine has an address, 10 to 86400."
        ),
    )
    ssh_seconds: Annotated[int, Field(ge=5, le=DAY)] = Field(
        600, description="Seconds until the machine's SSH server answers, 5 to 86400."
    )
    bootstrap_seconds: Annotated[int, Field(ge=10, le=DAY)] = Field(
        1800, description="Seconds for installing the image and starting the agent, 10 to 86400."
    )
