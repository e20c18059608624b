"""What is known about one node when it is decided on: plain values, no connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.pool_options import Health
from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.checkup import NOTHING, Checkup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from skyward_operator.providers.contract import Machine, Offer


PATIENCE: Final = float(Health().unhealthy_after_seconds)
CREDENTIALS: Final = (NodeReason.CREDENTIALS_NOT_FOUND, NodeReason.INVALID_CREDENTIALS)
"""Reasons that other credentials cure."""


class Stage(StrEnum):
    """How far the session with a node's machine is."""

    CONNECTING = "connecting"
    AWAITING_PIN = "awaiting pin"
    CONNECTED = "connected"
    BOOTSTRAPPING = "bootstrapping"
    LINKED = "linked"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a session gave up. `permanent`: the same again fails again."""

    reason: NodeReason
    message: str
    permanent: bool
    log: str = ""


@dataclass(frozen=True, slots=True)
class Agent:
    """What an agent said when it welcomed us."""

    boot_id: str
    python: str
    version: str
    slots: int
    held: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Armed:
    """The dead-man's switch of a machine: what keeps it running there, and after how much silence it ends
    it."""

    keeper: str
    ttl: int


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session at one moment. `progress` is when something last went forward."""

    stage: Stage
    started: datetime
    progress: datetime
    lost: datetime | None = None
    """When the agent was last heard, if it is not heard now."""
    heard: datetime | None = None
    host_key: str | None = None
    """The host key seen on first contact, until it is pinned."""
    step: str | None = None
    step_began: datetime | None = None
    last_line: str | None = None
    agent: Agent | None = None
    admitted: bool = False
    cordoned: bool = False
    """It takes no more calls, and was told why."""
    notice: datetime | None = None
    """When its machine is taken, as the machine itself says."""
    ill: str = ""
    """What its agent says is wrong with the node."""
    watch: str = ""
    """The digest of the checks that its agent makes."""
    draining: bool = False
    failure: Failure | None = None
    trouble: str = ""
    """Why the last connection failed, in words."""
    switch: Armed | None = None
    """None: not known in this session."""


class Absent:
    """The provider says that there is no such machine."""


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a candidate gave no offer, or why an offer was refused."""

    reason: NodeReason
    message: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class Offers:
    """What may be bought now; why the rest may not, and after how many seconds to look again."""

    found: tuple[Offer, ...]
    refusals: tuple[Refusal, ...] = ()
    again: float = 15.0


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that a decision may look at besides the node object and the time."""

    session: SessionView | None = None
    machine: Machine | Absent | None = None
    """None: nobody asked, or nobody could."""
    trouble: Refusal | None = None
    """Why the provider could not be asked for the machine."""
    offers: Offers | None = None
    """None: nobody asked."""
    unasked: bool = False
    """This process recorded the launch intent and has not asked the provider yet."""
    idempotent: bool = False
    """The provider refuses to make a second machine for one token."""
    notice: datetime | None = None
    """When the machine is taken, as the provider's API says."""
    busy: bool = False
    """Calls, or results that are not durable, are on a node that leaves, or nobody knows yet."""
    patience: float = PATIENCE
    """Seconds without a sign of the agent until the node is given up while its provider still shows it."""
    checks: Checkup = NOTHING
    """How the agent of a node that takes calls shall check it."""
    spared: str = ""
    """Why no node is replaced for being bad, if that is so."""
    grace: float | None = None
    """Seconds that running calls have when the node goes, where a budget says so."""
