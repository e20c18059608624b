"""How far a task is and how it ended: counts, index ranges, the first error; never a list of all calls."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from skyward.contract.meta import (
    INLINE_LIMIT,
    RANGES_LIMIT,
    TRACEBACK_LIMIT,
    Blob,
    Conditions,
    Count,
    Json,
    Message,
    Money,
    Observed,
    Word,
    clipped,
)


class CallCounts(Observed):
    """The task's calls, counted."""

    total: Count = Field(0, description="Number of calls of the task.")
    running: Count = Field(0, description="Number of calls that run now.")
    succeeded: Count = Field(0, description="Number of calls that returned.")
    failed: Count = Field(0, description="Number of calls that failed for good.")


class TaskResult(Observed):
    """What the calls returned."""

    package: Annotated[str, Field(max_length=INLINE_LIMIT)] | None = Field(
        None, description="Outcomes of all calls in base64, when they fit into 64 KiB."
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
    """One try at one call, or at each of several calls in a row that were sent to a node together."""

    index: Count | None = Field(None, description="Index of the call, from 0; of several, the first.")
    count: Count | None = Field(None, description="Number of calls in a row, where it is more than one.")
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
