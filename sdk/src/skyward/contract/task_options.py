"""Where a task runs, how long it may take, how often it is tried, what it may cost."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.meta import (
    DAY,
    Model,
    Money,
)
from skyward.contract.names import RANK_LIMIT
from skyward.contract.rules import rule, validations


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
                says="'backoffSeconds is %d but must be at most maxBackoffSeconds, which is %d'"
                ".format([self.backoffSeconds, self.maxBackoffSeconds])",
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
