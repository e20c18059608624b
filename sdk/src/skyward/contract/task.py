"""Task: one expression of a program, or one manifest of a person, that runs on a pool.

Whatever its width (one call, a group, a broadcast, a map of a million items), it is one object. What it
runs is exactly one of: pickled calls, a Python function with JSON arguments, or a command.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.meta import (
    DAY,
    Model,
    PoolRef,
    Resource,
    Sha256,
)
from skyward.contract.names import NAME_LIMIT
from skyward.contract.payloads import CALLS_LIMIT, Calls, Command, Function
from skyward.contract.rules import Extension, immutable, rule, validations
from skyward.contract.task_options import Retry, Target, TaskBudget, TaskTimeouts
from skyward.contract.task_status import (
    Attempt,
    Attempts,
    CallCounts,
    TaskCost,
    TaskDisplay,
    TaskError,
    TaskResult,
    TaskStatus,
)

_ANOTHER = "create another task"


def _added_or_removed(name: str) -> Extension:
    """A field-level rule does not run when the field itself comes or goes."""
    return rule(
        f"has(self.{name}) == has(oldSelf.{name})",
        f"{name} cannot be added or removed after creation: {_ANOTHER}",
        field=f".{name}",
    )


class TaskSpec(Model):
    """What runs, where, and how often it is tried."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "[has(self.calls), has(self.function), has(self.command)].exists_one(given, given)",
                "exactly one of calls, function and command is required",
                says="'exactly one of calls, function and command is required, and %d of them are given'"
                ".format([[has(self.calls), has(self.function), has(self.command)]"
                ".filter(given, given).size()])",
            ),
            _added_or_removed("calls"),
            _added_or_removed("function"),
            _added_or_removed("command"),
            _added_or_removed("managedBy"),
            _added_or_removed("ticketHash"),
            rule(
                "self.target.mode != 'All' || !has(self.calls) || self.calls.count == 1",
                "target.mode All runs one call on every node: calls.count must be 1",
                field=".target",
            ),
            rule(
                "self.target.mode != 'All' || !has(self.calls) || !has(self.calls.open)",
                "target.mode All is not for open calls: each of them runs on one node",
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


class Task(Resource):
    """Work for a pool: pickled calls, a Python function with JSON arguments, or a command."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                f"self.metadata.name.size() <= {NAME_LIMIT} && !self.metadata.name.contains('.')",
                f"metadata.name of a Task may have at most {NAME_LIMIT} characters:"
                " lower-case letters, digits and hyphens, no dots",
                field=".metadata.name",
            )
        )
    )

    kind: Literal["Task"] = "Task"
    spec: TaskSpec = Field(description="What runs, where, and how often it is tried.")
    status: TaskStatus = Field(TaskStatus(), description="How far the task is and how it ended.")


__all__ = [
    "Task",
    "TaskSpec",
    "Calls",
    "Function",
    "Command",
    "Target",
    "TaskTimeouts",
    "Retry",
    "TaskBudget",
    "CallCounts",
    "TaskResult",
    "TaskError",
    "Attempt",
    "Attempts",
    "TaskCost",
    "TaskDisplay",
    "TaskStatus",
]
