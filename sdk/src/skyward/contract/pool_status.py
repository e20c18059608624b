"""What the operator observed of a pool."""

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


class NodeCounts(Observed):
    """The pool's nodes, counted."""

    total: Count = Field(0, description="Number of nodes that exist, ready or not.")
    ready: Count = Field(0, description="Number of nodes that take calls.")
    launching: Count = Field(0, description="Number of nodes that are being made.")
    failed: Count = Field(0, description="Number of nodes that failed and are being released.")


class Scaling(Observed):
    """The latest change of the number of nodes that are wanted."""

    from_nodes: Count = Field(0, description="Number of nodes that were wanted before.")
    to_nodes: Count = Field(0, description="Number of nodes that are wanted since.")
    reason: Word | None = Field(None, description="ScalingUp or ScalingDown.")
    message: Message | None = Field(None, description="Why so many are wanted.")
    time: datetime | None = Field(None, description="When that was decided, in RFC 3339.")


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
    candidate: Word | None = Field(
        None, description="Name of the candidate; an entry without instanceType is about all of it."
    )
    count: Count | None = Field(None, description="How often it ended in the same way.")
    retry_time: datetime | None = Field(
        None, description="When it may be asked for again, in RFC 3339. Unset: not as the spec is."
    )


class BudgetStop(Observed):
    """A budget that is used up; it stays so until it is raised."""

    scope: Word | None = Field(None, description="Whose budget it is: Pool or Namespace.")
    limit: Money | None = Field(None, description="The budget that was used up, in US dollars.")
    period: Word | None = Field(
        None, description="The day or month that it was for, such as 2026-11. Unset: for ever."
    )
    message: Message | None = Field(None, description="What was spent, and what is kept back.")


class PoolCost(Observed):
    """What the pool costs, in US dollars."""

    hourly: Money | None = Field(None, description="Price of all nodes together per hour, in US dollars.")
    accrued: Money | None = Field(None, description="Cost so far, in US dollars.")
    on_demand_hourly: Money | None = Field(
        None, description="Price of the same nodes at on-demand rates per hour, in US dollars."
    )
    saved: Money | None = Field(None, description="Saved so far against on-demand rates, in US dollars.")
    time: datetime | None = Field(
        None,
        description=(
            "When this was counted, in RFC 3339: written when nodes or prices change, and once a minute."
        ),
    )
    budget_percent: Count | None = Field(
        None, description="How much of a budget is spent at least: 50, 80 or 100 percent. Unset: less."
    )
    stopped: BudgetStop | None = Field(
        None, description="The budget that is used up. Unset: none is, or there is none."
    )


class PoolDisplay(Observed):
    """Texts for the columns of `kubectl get`."""

    nodes: Word | None = Field(None, description="Ready and wanted nodes, such as 2/2.")
    hardware: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Hardware of the nodes, such as 8xH100 aws."
    )
    hourly: Word | None = Field(None, description="Price per hour in US dollars, such as 4.20.")
    spent: Word | None = Field(
        None, description="Cost so far and spec.budget.maxTotal in US dollars, such as 11.40/50.00."
    )


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
    scaling: Scaling | None = Field(
        None, description="The latest change of desiredNodes, and why. Unset: it has not changed yet."
    )
    nodes: NodeCounts | None = Field(None, description="The pool's nodes, counted.")
    usable: bool | None = Field(
        None,
        description=(
            "Whether the pool takes calls: enough nodes are ready, or they are made when a task is queued."
        ),
    )
    failures: Failures | None = Field(
        None, description="Failed attempts at making a node since the last one that worked."
    )
    offers_tried: Annotated[tuple[OfferTried, ...], Field(max_length=32)] = Field(
        (), description="Latest offers that were asked for and how that ended, newest first, at most 32."
    )
    next_try_time: datetime | None = Field(
        None,
        description=(
            "When a node that waits for an offer asks again, in RFC 3339. Unset: none waits, or it asks "
            "within seconds."
        ),
    )
    cost: PoolCost | None = Field(None, description="What the pool costs.")
    display: PoolDisplay | None = Field(None, description="Texts for the columns of kubectl get.")
    conditions: Conditions = Field(
        (), description="Aspects of the pool's state: Ready, Provisioning, Stalled and others."
    )
