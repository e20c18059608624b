"""What can be decided about a node; `act.py` does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from skyward.contract.reasons import NodePhase, NodeReason
    from skyward_operator.nodes.checkup import Checkup
    from skyward_operator.providers.contract import Offer


@dataclass(frozen=True, slots=True)
class Guard:
    """Put the finalizer on the node, before anything is bought for it."""


@dataclass(frozen=True, slots=True)
class RecordIntent:
    """Make durable what will be asked for; fails if the node has moved on."""

    offer: Offer
    attempt: int


@dataclass(frozen=True, slots=True)
class Create:
    """Ask the provider for the machine that was recorded."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look for the machine of the recorded token: an earlier answer may have been lost."""


@dataclass(frozen=True, slots=True)
class Write:
    """Have the status say this, as far as it does not say it yet."""

    phase: NodePhase
    reason: NodeReason
    message: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartSession:
    """Connect to the machine. `resume`: its agent ran before, try it without a bootstrap."""

    resume: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """Make the host key that was seen durable, then trust it."""

    host_key: str


@dataclass(frozen=True, slots=True)
class Admit:
    """Let the node take calls."""


@dataclass(frozen=True, slots=True)
class Lose:
    """Give up what runs on the node."""

    reason: NodeReason


@dataclass(frozen=True, slots=True)
class Cordon:
    """Hand the node no more calls, have those back that have not begun, and tell the others what is ahead:
    at `due` the machine is taken."""

    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Examine:
    """Have the agent check the node's health in this way."""

    checks: Checkup


@dataclass(frozen=True, slots=True)
class Avoid:
    """Buy elsewhere for a while: what was bought for this node was taken back."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Let running calls finish within `grace` seconds, then have the agent end. They are told `why`."""

    grace: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Have the provider end the machine, and record when it is proven gone."""


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Remove what was made beside the machine, as far as no other machine uses it."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the object go."""


@dataclass(frozen=True, slots=True)
class Again:
    """Look at the node again after this many seconds, if nothing happens before."""

    seconds: float


type Action = (
    Guard
    | RecordIntent
    | Create
    | LookUp
    | Write
    | StartSession
    | Pin
    | Admit
    | Lose
    | Cordon
    | Examine
    | Avoid
    | Drain
    | CloseSession
    | Terminate
    | CleanUp
    | RemoveFinalizer
    | Again
)
