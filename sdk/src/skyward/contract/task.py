"""Task: one expression of a program, or one manifest of a person, that runs on a pool.

Whatever its width (one call, a group, a broadcast, a map of a million items), it is one object. What it runs is
exactly one of: pickled calls, a Python function with JSON arguments, or a command.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.image import PythonVersion
from skyward.contract.meta import (
    DAY,
    INLINE_LIMIT,
    RANGES_LIMIT,
    TRACEBACK_LIMIT,
    Blob,
    Conditions,
    Count,
    EnvVar,
    Json,
    Message,
    Model,
    Money,
    ObjectMeta,
    Observed,
    PoolRef,
    Sha256,
    Word,
    clipped,
)
from skyward.contract.names import API_VERSION, NAME_LIMIT, RANK_LIMIT
from skyward.contract.rules import Extension, immutable, list_map, rule, validations

CALLS_LIMIT = 1_000_000
ITEMS_LIMIT = 10_000

_ENTRYPOINT = (
    r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
)
_ANOTHER = "create another task"


def _added_or_removed(name: str) -> Extension:
    """A field-level rule does not run when the field itself comes or goes."""
    return rule(
        f"has(self.{name}) == has(oldSelf.{name})",
        f"{name} cannot be added or removed after creation: {_ANOTHER}",
        field=f".{name}",
    )


class Calls(Model):
    """Pickled calls, as the Python client sends them."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "has(self.package) != has(self.blob)",
                "calls needs exactly one of package (at most 64 KiB, inside the task) and blob (uploaded to the gateway)",
            )
        )
    )

    python: PythonVersion = Field(
        "3.13", description="Python that pickled the calls, as major.minor; the node's must be the same."
    )
    count: Annotated[int, Field(ge=1, le=CALLS_LIMIT)] = Field(
        1, description="Number of calls in the package, 1 to 1000000."
    )
    package: (
        Annotated[str, Field(min_length=4, max_length=INLINE_LIMIT, json_schema_extra={"format": "byte"})]
        | None
    ) = Field(
        None, description="The package of calls in base64, at most 87384 characters, which hold 64 KiB."
    )
    blob: Blob | None = Field(
        None,
        description=(
            "The package of calls when it is larger: the task waits until the gateway has these bytes."
        ),
    )


class Function(Model):
    """A Python function with JSON arguments."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "has(self.entrypoint) != has(self.source)",
                "function needs exactly one of entrypoint (such as math:factorial) and source (Python text)",
            ),
            rule(
                "!has(self.source) || has(self.name)",
                "function.name is required with source: it names the function in the text that is called",
                field=".name",
            ),
            rule(
                "!has(self.name) || has(self.source)",
                "function.name is only allowed with source: entrypoint names the function after its colon",
                field=".name",
            ),
        )
    )

    entrypoint: (
        Annotated[
            str,
            Field(
                min_length=3,
                max_length=512,
                pattern=_ENTRYPOINT,
                json_schema_extra=validations(
                    rule(
                        rf"self.matches(r'{_ENTRYPOINT}')",
                        "entrypoint is written module:function, such as math:factorial or package.module:Class.method",
                    )
                ),
            ),
        ]
        | None
    ) = Field(None, description="Importable function as module:name, such as math:factorial.")
    source: Annotated[str, Field(min_length=1, max_length=65536)] | None = Field(
        None, description="Python text that defines the function, at most 65536 characters."
    )
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = (
        Field(None, description="Name of the function in source that is called.")
    )
    args: Annotated[tuple[Json, ...], Field(max_length=64)] = Field(
        (),
        description=(
            "Positional arguments as any JSON, at most 64; changing them after creation has no effect."
        ),
    )
    kwargs: Annotated[dict[str, Json], Field(max_length=64)] = Field(
        {},
        description="Keyword arguments as any JSON, at most 64; changing them after creation has no effect.",
    )
    items: Annotated[tuple[Json, ...], Field(min_length=1, max_length=ITEMS_LIMIT)] | None = Field(
        None,
        description=(
            "Makes one call for each of these items, which comes before args, at most 10000. Unset: one call."
        ),
    )


class Command(Model):
    """A program on the node."""

    argv: Annotated[
        tuple[Annotated[str, Field(max_length=8192)], ...], Field(min_length=1, max_length=256)
    ] = Field(
        description="Program and arguments, run without a shell, 1 to 256 words of at most 8192 characters."
    )
    working_directory: Annotated[str, Field(max_length=1024, pattern=r"^/[^\n]*$")] | None = Field(
        None, description="Absolute path of the folder that the command runs in. Unset: a fresh folder."
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=256, json_schema_extra=list_map("name"))] = Field(
        (), description="Environment variables besides those of the pool's image, at most 256."
    )


class Target(Model):
    """Which nodes run the task."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "(self.mode == 'Rank') == has(self.rank)",
                "target.rank is required with mode Rank and only allowed with it",
                says="self.mode == 'Rank' ? 'target.rank is required with mode Rank'"
                " : 'target.rank is only allowed with mode Rank, and mode is ' + self.mode",
                field=".rank",
            )
        )
    )

    mode: Literal["Any", "Head", "Rank", "All"] = Field(
        "Any",
        description="Any free node, the Head (rank 0), the node of one Rank, or All nodes, once on each.",
    )
    rank: Annotated[int, Field(ge=0, le=RANK_LIMIT)] | None = Field(
        None, description="Rank of the node, from 0, with mode Rank."
    )


class TaskTimeouts(Model):
    """How long the task may wait and run."""

    queue_seconds: Annotated[int, Field(ge=1, le=30 * DAY)] | None = Field(
        None,
        description=(
            "Seconds that the task may wait before its first call starts, 1 to 2592000. Unset: any time."
        ),
    )
    run_seconds: Annotated[int, Field(ge=1, le=30 * DAY)] | None = Field(
        None,
        description="Seconds that each call may run before it is stopped, 1 to 2592000. Unset: any time.",
    )
    grace_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        10,
        description="Seconds that a call has to end after it is asked to stop, 0 to 3600; then it is killed.",
    )


class Retry(Model):
    """What happens when a call is lost or fails."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.backoffSeconds <= self.maxBackoffSeconds",
                "backoffSeconds must be at most maxBackoffSeconds",
                says="'backoffSeconds is ' + string(self.backoffSeconds) + ' but maxBackoffSeconds is '"
                " + string(self.maxBackoffSeconds) + ': backoffSeconds must be at most maxBackoffSeconds'",
                field=".backoffSeconds",
            )
        )
    )

    on_interruption: Annotated[int, Field(ge=0, le=100)] = Field(
        3,
        description=(
            "Number of retries of a call whose node was lost, 0 to 100; 0 ends such a call as Indeterminate."
        ),
    )
    on_exception: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="Number of retries of a call that raised an exception, 0 to 100."
    )
    backoff_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        1, description="Seconds before the first retry, 0 to 3600; they double with each further one."
    )
    max_backoff_seconds: Annotated[int, Field(ge=0, le=DAY)] = Field(
        60, description="Most seconds between two attempts, 0 to 86400."
    )


class TaskBudget(Model):
    """The most that the task may cost."""

    max_total: Money | None = Field(
        None,
        description=(
            "Most US dollars of node time that the task may use, as a decimal string. Unset: no limit."
        ),
    )


class TaskSpec(Model):
    """What runs, where, and how often it is tried."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "[has(self.calls), has(self.function), has(self.command)].exists_one(given, given)",
                "exactly one of calls, function and command is required",
                says="'exactly one of calls, function and command is required, and '"
                " + string([has(self.calls), has(self.function), has(self.command)].filter(given, given).size())"
                " + ' of them are given'",
            ),
            _added_or_removed("calls"),
            _added_or_removed("function"),
            _added_or_removed("command"),
            _added_or_removed("managedBy"),
            _added_or_removed("ticketHash"),
            rule(
                "self.target.mode != 'All' || ((!has(self.calls) || self.calls.count == 1)"
                " && (!has(self.function) || !has(self.function.items)))",
                "target.mode All runs one call on every node: calls.count must be 1 and function.items must be absent",
                field=".target",
            ),
        )
    )

    pool_ref: Annotated[PoolRef, Field(json_schema_extra=immutable("poolRef", _ANOTHER))] = Field(
        description="The pool that runs the task."
    )
    calls: Annotated[Calls, Field(json_schema_extra=immutable("calls", _ANOTHER))] | None = Field(
        None,
        description=(
            "Pickled calls, as the Python client sends them. One of calls, function and command is required."
        ),
    )
    function: Annotated[Function, Field(json_schema_extra=immutable("function", _ANOTHER))] | None = Field(
        None,
        description="A Python function with JSON arguments. One of calls, function and command is required.",
    )
    command: Annotated[Command, Field(json_schema_extra=immutable("command", _ANOTHER))] | None = Field(
        None, description="A program on the node. One of calls, function and command is required."
    )
    target: Annotated[Target, Field(json_schema_extra=immutable("target", _ANOTHER))] = Field(
        Target(), description="Which nodes run the task."
    )
    parallelism: Annotated[int, Field(ge=1, le=CALLS_LIMIT)] | None = Field(
        None,
        description="Most calls of the task that run at the same time. Unset: as many as the pool has slots.",
    )
    timeouts: TaskTimeouts = Field(TaskTimeouts(), description="How long the task may wait and run.")
    retry: Retry = Field(Retry(), description="What happens when a call is lost or fails.")
    on_error: Literal["Continue", "Stop"] = Field(
        "Continue",
        description=(
            "Whether the other calls go on after one failed for good (Continue) or are cancelled (Stop)."
        ),
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=365 * DAY)] | None = Field(
        None, description="Seconds after its end at which the task and its results are deleted. Unset: never."
    )
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = Field(
        0,
        description=(
            "Tasks of higher priority start first, -1000000 to 1000000; equal ones in order of creation."
        ),
    )
    suspend: bool = Field(
        False, description="True starts no further call until it is false again; running calls finish."
    )
    cancel: bool = Field(False, description="True stops the task for good; running calls are asked to end.")
    managed_by: (
        Annotated[str, Field(min_length=1, max_length=63, json_schema_extra=immutable("managedBy", _ANOTHER))]
        | None
    ) = Field(
        None,
        description="Another controller that runs this task instead of the operator. Unset: the operator.",
    )
    budget: TaskBudget | None = Field(None, description="The most that the task may cost. Unset: no limit.")
    ticket_hash: Annotated[Sha256, Field(json_schema_extra=immutable("ticketHash", _ANOTHER))] | None = Field(
        None,
        description=(
            "SHA-256 of the secret that lets its creator use the gateway for this task, as 64 "
            "hexadecimal digits."
        ),
    )


class CallCounts(Observed):
    """The task's calls, counted."""

    total: Count = Field(0, description="Number of calls of the task.")
    running: Count = Field(0, description="Number of calls that run now.")
    succeeded: Count = Field(0, description="Number of calls that returned.")
    failed: Count = Field(0, description="Number of calls that failed for good.")


class TaskResult(Observed):
    """What the calls returned."""

    package: Annotated[str, Field(max_length=INLINE_LIMIT, json_schema_extra={"format": "byte"})] | None = (
        Field(None, description="Outcomes of all calls in base64, when they fit into 64 KiB.")
    )
    blob: Blob | None = Field(
        None, description="Outcomes of all calls when they are larger: the gateway has these bytes."
    )
    value: Json = Field(None, description="What a function or command returned, as JSON, when it is small.")


class TaskError(Observed):
    """The first call that failed for good."""

    index: Count | None = Field(None, description="Index of the call, from 0.")
    kind: Word | None = Field(
        None, description="User when the call itself raised, System when something around it failed."
    )
    reason: Word | None = Field(None, description="What ended the call, as one CamelCase word.")
    type: Annotated[str, clipped(256), Field(max_length=256)] | None = Field(
        None, description="Type of the exception."
    )
    message: Message | None = Field(None, description="Message of the exception.")
    traceback: Annotated[str, clipped(TRACEBACK_LIMIT, "tail"), Field(max_length=TRACEBACK_LIMIT)] | None = (
        Field(None, description="Traceback on the node, its end when it is long.")
    )
    node: Annotated[str, Field(max_length=253)] | None = Field(None, description="Node that the call ran on.")


class Attempt(Observed):
    """One try at one call."""

    index: Count | None = Field(None, description="Index of the call, from 0.")
    attempt: Count | None = Field(None, description="Number of the attempt at this call, from 1.")
    node: Annotated[str, Field(max_length=253)] | None = Field(None, description="Node that it ran on.")
    rank: Count | None = Field(None, description="Rank of that node.")
    start_time: datetime | None = Field(None, description="When it began, in RFC 3339.")
    end_time: datetime | None = Field(None, description="When it ended, in RFC 3339.")
    cause: Word | None = Field(None, description="What ended it, as one CamelCase word.")


class Attempts(Observed):
    """How often calls were tried."""

    total: Count = Field(0, description="Number of attempts at all calls.")
    interrupted: Count = Field(0, description="Number of attempts whose node was lost.")
    recent: Annotated[tuple[Attempt, ...], Field(max_length=32)] = Field(
        (), description="Latest attempts that did not return, newest first, at most 32."
    )


class TaskCost(Observed):
    """What the task used, in US dollars."""

    total: Money | None = Field(
        None, description="Share of the nodes' price for the time that calls took, in US dollars."
    )


class TaskDisplay(Observed):
    """Texts for the columns of `kubectl get`."""

    progress: Word | None = Field(None, description="Finished and all calls, such as 12/100.")
    duration: Word | None = Field(None, description="Time from the first start to the end, such as 1m12s.")


class TaskStatus(Observed):
    """How far the task is and how it ended."""

    observed_generation: int | None = Field(
        None, ge=0, le=2**53, description="The metadata.generation that this status answers to."
    )
    phase: Word | None = Field(
        None,
        description=(
            "Where the task stands: Queued, Running, Recovering, Suspended; at the end Succeeded, "
            "Failed or Cancelled."
        ),
    )
    reason: Word | None = Field(None, description="Why the task is in its phase, as one CamelCase word.")
    message: Message | None = Field(None, description="The reason in a sentence, with the next step.")
    start_time: datetime | None = Field(None, description="When the first call started, in RFC 3339.")
    completion_time: datetime | None = Field(None, description="When the task ended, in RFC 3339.")
    counts: CallCounts | None = Field(None, description="The task's calls, counted.")
    succeeded_indexes: Annotated[str, Field(max_length=RANGES_LIMIT)] | None = Field(
        None, description="Indexes of calls that returned, as ranges such as 0-41,43."
    )
    failed_indexes: Annotated[str, Field(max_length=RANGES_LIMIT)] | None = Field(
        None, description="Indexes of calls that failed for good, as ranges such as 42,90-95."
    )
    result: TaskResult | None = Field(None, description="What the calls returned.")
    error: TaskError | None = Field(None, description="The first call that failed for good.")
    attempts: Attempts | None = Field(None, description="How often calls were tried.")
    node: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Node that runs or ran the task; the number of nodes when there are several."
    )
    cost: TaskCost | None = Field(None, description="What the task used.")
    display: TaskDisplay | None = Field(None, description="Texts for the columns of kubectl get.")
    conditions: Conditions = Field(
        (), description="Aspects of the task's state: Scheduled, Running, Succeeded, Failed."
    )


class Task(Model):
    """Work for a pool: pickled calls, a Python function with JSON arguments, or a command."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                f"self.metadata.name.size() <= {NAME_LIMIT}",
                f"metadata.name of a Task may have at most {NAME_LIMIT} characters",
                says="'metadata.name has ' + string(self.metadata.name.size())"
                f" + ' characters; a task name may have at most {NAME_LIMIT}'",
            )
        )
    )

    api_version: Literal["skyward.dev/v1alpha1"] = API_VERSION
    kind: Literal["Task"] = "Task"
    metadata: ObjectMeta = ObjectMeta()
    spec: TaskSpec = Field(description="What runs, where, and how often it is tried.")
    status: TaskStatus = Field(TaskStatus(), description="How far the task is and how it ended.")
