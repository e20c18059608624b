"""What one look gave, and what is remembered from the looks before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.providers.contract import Machine


@dataclass(frozen=True, slots=True)
class Owner:
    """A node, as far as it says which machine is its own."""

    uid: str
    token: str | None
    """Of the order that it made last."""
    provider_id: str | None
    ended: bool
    """It has written down that its machine is gone."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An orphan as it was seen so far. Times are monotonic, by the operator's own clock: a cloud's may
    be wrong by hours."""

    first: float
    times: int = 1
    """In how many complete listings."""
    ending: bool = False
    """It was asked to end."""
    pool_uid: str = ""


type Memory = Mapping[str, Sighting]
"""By the machine's id, for one account."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One account: what it listed, and after that the nodes there were."""

    machines: Sequence[Machine]
    """Those with this installation's tag that are not gone."""
    complete: bool
    owners: Mapping[str, Owner]
    """All nodes, by UID; listed anew after the machines were."""
    window: float
    """Seconds for which a listing of this account may be wrong."""
    namespaces: frozenset[str] = frozenset()
    """Where nodes were looked for; empty is everywhere."""
    allowed: int = 0
    """So many orphans a person has allowed to be ended at once."""
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """How careful the sweep is."""

    margin: float = 60.0
    """Seconds beyond the window for which an orphan is watched."""
    number: int = 3
    share: float = 0.2
    """More orphans at once than this number, and than this share of the machines, are a sign that it is the
    view that is wrong."""
    listings: int = 2
    """In so many complete listings an orphan has to be seen."""


class Why(StrEnum):
    """Why a machine is an orphan."""

    NO_NODE = "its node does not exist"
    OTHER_ORDER = "its node has made another order since"
    SECOND = "its node has another machine of the same order"
    ENDED = "its node has recorded that it is gone"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A machine that belongs to no node."""

    machine: Machine
    why: Why
