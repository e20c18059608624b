"""ComputeNode: one machine at most, ever.

The operator writes it, people read and delete it. The spec is copied from the pool when the node is made and
never changes, so it has no defaults that a later version could fill differently. The intent to launch stands
in the status before a provider is asked.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from skyward.contract.hardware import Candidate
from skyward.contract.image import Image
from skyward.contract.meta import (
    Model,
    ObjectName,
    Resource,
)
from skyward.contract.names import NAME_LIMIT, RANK_LIMIT
from skyward.contract.node_status import (
    Address,
    AgentInfo,
    Billing,
    BootstrapProgress,
    ComputeNodeStatus,
    Interruption,
    Launch,
    LaunchOffer,
    NodeDisplay,
    PriceChange,
)
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
                "spec of a ComputeNode cannot be changed after creation:"
                " change the pool, or delete the node to replace it",
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


class ComputeNode(Resource):
    """One machine of a pool, made and written by the operator. Delete it to have the machine replaced."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                f"self.metadata.name.size() <= {NAME_LIMIT} && !self.metadata.name.contains('.')",
                f"metadata.name of a ComputeNode may have at most {NAME_LIMIT} characters:"
                " lower-case letters, digits and hyphens, no dots",
                field=".metadata.name",
            )
        )
    )

    kind: Literal["ComputeNode"] = "ComputeNode"
    spec: ComputeNodeSpec = Field(description="What the machine should be; written once, by the operator.")
    status: ComputeNodeStatus = Field(ComputeNodeStatus(), description="What the operator did and observed.")


__all__ = [
    "ComputeNode",
    "ComputeNodeSpec",
    "NodePoolRef",
    "LaunchOffer",
    "Launch",
    "Address",
    "AgentInfo",
    "BootstrapProgress",
    "Billing",
    "Interruption",
    "PriceChange",
    "NodeDisplay",
    "ComputeNodeStatus",
]
