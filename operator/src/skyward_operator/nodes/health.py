"""Whether nodes that are bad may be replaced, or so many are bad that the cause lies elsewhere. Pure.

A network that fails between operator and machines makes all nodes silent at once, and a check that is wrong
fails on all of them: to replace them would lose work, cost money and mend nothing. So bad nodes are replaced
only while they are no more than the share that `maxUnhealthyPercent` allows, and one of a small pool in any
case: among so few nobody can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import NodePhase, NodeReason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from skyward_operator.nodes.observation import SessionView


SILENT_SECONDS: Final = 20.0
"""A link that broke is mostly back before that."""
FEWEST_SILENT: Final = 3
"""Of fewer nodes chance may silence most."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node of the pool: what its status says, and what is known of its session."""

    phase: str
    reason: str
    session: SessionView | None = None


def spared(members: Iterable[Member], percent: int, patience: float, now: datetime) -> str:
    """Why no bad node of this pool is replaced now; empty if it may be."""
    bad = total = 0
    for each in members:
        if is_bad(each, patience, now):
            bad, total = bad + 1, total + 1
        elif each.phase == NodePhase.READY:
            total += 1
    if bad <= most_replaced(total, percent):
        return ""
    return (
        f"not replaced: {bad} of {total} nodes are bad, and with more than {percent}% "
        "(health.maxUnhealthyPercent) the cause lies elsewhere"
    )


def cut_off(sessions: Iterable[SessionView], patience: float, now: datetime) -> str:
    """Why no silent node of any pool is replaced now: so many are silent at once that the operator itself is
    cut off. Empty otherwise. Pools of one node have no share of their own to judge by."""
    known = [each for each in sessions if each.agent is not None]
    enough = min(SILENT_SECONDS, patience / 2)  # the others are about to be as silent as this one
    silent = sum(is_silent(each, enough, now) for each in known)
    if silent < FEWEST_SILENT or 2 * silent <= len(known):
        return ""
    return "not replaced: most nodes of all pools are silent at once, so it is the operator that is cut off"


def most_replaced(total: int, percent: int) -> int:
    """How many of so many nodes may be bad at once and be replaced."""
    return 0 if percent == 0 else max(1, total * percent // 100)


def is_bad(member: Member, patience: float, now: datetime) -> bool:
    """Whether a node is silent or failed its check, or is being replaced for that."""
    session = member.session
    match member.phase:
        case NodePhase.FAILED | NodePhase.DRAINING:
            return member.reason in (NodeReason.HEARTBEAT_LOST, NodeReason.UNHEALTHY)
        case NodePhase.READY if session is not None:
            return bool(session.ill) or is_silent(session, patience, now)
        case _:
            return False


def is_silent(session: SessionView, patience: float, now: datetime) -> bool:
    """Whether the agent has given no sign for too long."""
    return session.lost is not None and (now - session.lost).total_seconds() > patience
