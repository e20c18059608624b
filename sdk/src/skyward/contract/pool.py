"""ComputePool: what is wanted, and what is.

The spec belongs to people and programs, the operator never writes it. What the operator decides (how many
nodes an elastic pool should have now, for one) stands in the status.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.hardware import Candidate
from skyward.contract.image import Image
from skyward.contract.meta import (
    Model,
    Resource,
    Sha256,
)
from skyward.contract.names import POOL_NAME_LIMIT
from skyward.contract.pool_options import (
    Budget,
    Health,
    Lease,
    Lifetime,
    Nodes,
    Plugin,
    PoolTimeouts,
    Probe,
    Volume,
    Worker,
)
from skyward.contract.pool_status import (
    BudgetStop,
    ComputePoolStatus,
    Failures,
    NodeCounts,
    OfferTried,
    PoolCost,
    PoolDisplay,
    Scaling,
)
from skyward.contract.rules import immutable, list_map, rule, validations


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


class ComputePool(Resource):
    """Machines that are wanted for running tasks: which hardware, how many, which software, what price."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                f"self.metadata.name.size() <= {POOL_NAME_LIMIT} && !self.metadata.name.contains('.')",
                f"metadata.name of a ComputePool may have at most {POOL_NAME_LIMIT} characters:"
                " lower-case letters, digits and hyphens, no dots",
                field=".metadata.name",
            )
        )
    )

    kind: Literal["ComputePool"] = "ComputePool"
    spec: ComputePoolSpec = Field(
        description="What the pool should be; people and programs write it, the operator never does."
    )
    status: ComputePoolStatus = Field(
        ComputePoolStatus(), description="What the operator observed; only it writes here."
    )


__all__ = [
    "ComputePool",
    "ComputePoolSpec",
    "Nodes",
    "Worker",
    "Volume",
    "Plugin",
    "Lifetime",
    "Lease",
    "Budget",
    "Probe",
    "Health",
    "PoolTimeouts",
    "NodeCounts",
    "Scaling",
    "Failures",
    "OfferTried",
    "PoolCost",
    "BudgetStop",
    "PoolDisplay",
    "ComputePoolStatus",
]
