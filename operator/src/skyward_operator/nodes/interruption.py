"""What to do about a node that leaves: its provider takes the machine back, or it is not well. Pure.

A node that leaves takes no more calls and holds its rank no longer, so its pool makes another one at once.
What has not begun on it comes back; what runs may end, and is lost with the machine if it does not. When
nothing is left on the node its machine is given back, before the provider takes it if that can be.

A notice is final: a node that was announced does not go back into service, since another one has its rank by
then. If the provider does not follow it, running calls end in their own time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp
from skyward_operator.nodes.actions import (
    Again,
    Avoid,
    CloseSession,
    Cordon,
    Lose,
    StartSession,
    Write,
)
from skyward_operator.nodes.observation import Absent, Stage
from skyward_operator.nodes.wind_down import gone, since_change

if TYPE_CHECKING:
    from datetime import datetime

    from skyward.contract.node import ComputeNode
    from skyward_operator.nodes.actions import Action
    from skyward_operator.nodes.observation import Observation
    from skyward_operator.providers.contract import Machine

LEAVING: Final = (NodeReason.INTERRUPTED, NodeReason.UNHEALTHY)
"""Why a node drains that nobody has deleted."""
TAKEN_SLACK: Final = 5.0
"""Seconds of silence after the announced time until the machine counts as taken, whatever its API shows."""
LEAST_NOTICE: Final = 30.0
"""Seconds after a notice in which its time has not come: the provider's clock may be wrong."""
ILL_GRACE: Final = 30.0
"""Seconds that calls on a node which is not well have to end: those that hang would hang for ever."""
_LOOK: Final = 1.0


def is_leaving(node: ComputeNode) -> bool:
    """Whether the node drains although nobody has deleted it."""
    status = node.status
    return status.phase == NodePhase.DRAINING and status.reason in LEAVING and not node.metadata.is_deleted


def announced(seen: Observation) -> tuple[datetime, str] | None:
    """When the machine is taken and who says so; of two that say it, the machine was asked more often."""
    if seen.session is not None and seen.session.notice is not None:
        return seen.session.notice, "Machine"
    return (seen.notice, "Provider") if seen.notice is not None else None


def leave_on_notice(node: ComputeNode, at: datetime, source: str, now: datetime) -> list[Action]:
    """Write the notice down, then hand the node nothing more and tell what runs there."""
    left = max(0.0, (at - now).total_seconds())
    said = "the machine" if source == "Machine" else "the provider's API"
    text = (
        f"{said} says that the provider takes the machine back in {left:.0f} s; running calls have until "
        "then, the others go to other nodes"
    )
    told = {"noticeTime": timestamp(now), "deadline": timestamp(at), "source": source}
    write = Write(NodePhase.DRAINING, NodeReason.INTERRUPTED, text, {"interruption": told})
    return [write, Avoid(), Cordon(at), Again(0)]


def leave_unwell(ill: str) -> list[Action]:
    """A node that failed its health check: its calls have a while to end."""
    text = f"{ill}; running calls have {ILL_GRACE:.0f} s, the others go to other nodes"
    return [Write(NodePhase.DRAINING, NodeReason.UNHEALTHY, text), Cordon(), Again(0)]


def retreat(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """The next step of a node that leaves: until nothing is left on it, or it is lost."""
    session, reason = seen.session, NodeReason(node.status.reason or NodeReason.INTERRUPTED)
    if gone(seen.machine):
        return lose_machine(node, seen.machine)
    if session is None:
        return [StartSession(resume=True), Again(_LOOK)]
    if session.failure is not None:
        return lose(session.failure.reason, session.failure.message)
    if session.stage is not Stage.LINKED:
        return _unheard(node, seen, now)
    if not seen.busy:
        text = "nothing is left on the node: its machine is given back"
        return [Write(NodePhase.TERMINATING, reason, text), Lose(reason), CloseSession(), Again(0)]
    if reason is NodeReason.UNHEALTHY and since_change(node, now) > ILL_GRACE:
        return lose(reason, f"a call did not end within {ILL_GRACE:.0f} s on a node that is not well")
    cordon: list[Action] = [] if session.cordoned else [Cordon(due(node))]
    return [*cordon, Again(_LOOK)]


def _unheard(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Its agent does not answer: after the announced time it does not come back."""
    session = seen.session
    assert session is not None  # noqa: S101 - the caller has looked
    silent = (now - (session.lost or session.started)).total_seconds()
    if is_over(node, now) and silent > TAKEN_SLACK:
        return lose(NodeReason.INTERRUPTED, f"the machine was taken as announced: {session.trouble}")
    if silent > seen.patience and not seen.spared:
        return lose(NodeReason.HEARTBEAT_LOST, f"no sign of the agent for {silent:.0f} s: {session.trouble}")
    return [Again(_LOOK)]


def due(node: ComputeNode) -> datetime | None:
    """When the machine is taken, if that was announced."""
    return node.status.interruption.deadline if node.status.interruption is not None else None


def is_over(node: ComputeNode, now: datetime) -> bool:
    """Whether the announced time has passed, also if the provider's clock is behind."""
    told = node.status.interruption
    if told is None or told.deadline is None or now < told.deadline:
        return False
    return told.notice_time is None or (now - told.notice_time).total_seconds() >= LEAST_NOTICE


def lose_machine(node: ComputeNode, machine: Machine | Absent | None) -> list[Action]:
    """Give a node up whose machine is gone. One that was announced is avoided since then."""
    known = node.status.interruption is not None
    return [*([] if known else avoid(machine)), *lose(cause(node, machine), gone_message(machine))]


def avoid(machine: Machine | Absent | None) -> list[Action]:
    """Buy elsewhere for a while, if the provider took this machine."""
    taken = machine is not None and not isinstance(machine, Absent) and machine.preempted
    return [Avoid()] if taken else []


def cause(node: ComputeNode, machine: Machine | Absent | None) -> NodeReason:
    """Why a machine is gone that nobody here ended."""
    if node.status.interruption is not None:
        return NodeReason.INTERRUPTED
    return NodeReason.PREEMPTED if avoid(machine) else NodeReason.MACHINE_LOST


def gone_message(machine: Machine | Absent | None) -> str:
    """How the provider put it."""
    text = machine.message if machine is not None and not isinstance(machine, Absent) else ""
    return text or "the provider has no such machine any more"


def lose(reason: NodeReason, message: str) -> list[Action]:
    """Give a node up, with what ran on it."""
    return [Write(NodePhase.FAILED, reason, message), Lose(reason), CloseSession(), Again(0)]
