"""The way down of a node: drain, release, let go. Pure, part of `decide`.

The finalizer goes only after the provider proved that the machine is gone, and what was made beside it is
removed: of a pool, the last node to go takes that along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.nodes.actions import (
    Again,
    CleanUp,
    CloseSession,
    Drain,
    Lose,
    RemoveFinalizer,
    StartSession,
    Terminate,
    Write,
)
from skyward_operator.nodes.observation import Absent, Stage
from skyward_operator.providers.contract import MachineState

if TYPE_CHECKING:
    from datetime import datetime

    from skyward.contract.node import ComputeNode
    from skyward_operator.nodes.actions import Action
    from skyward_operator.nodes.observation import Observation
    from skyward_operator.providers.contract import Machine

DRAIN_GRACE = 10.0
DRAIN_SLACK = 5.0

PENDING, LAUNCHED, UNKNOWN = "Pending", "Launched", "Unknown"
"""Outcomes of a launch; any other is the reason of a refusal."""


def release(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Have the machine of a failed node end; the object stays and says why."""
    actions: list[Action] = [CloseSession()] if seen.session is not None else []
    if holds_machine(node):
        actions += [Terminate(), Again(poll(since_change(node, now)))]
    return actions


def end(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Bring a node down, and let its object go once the machine is proven gone."""
    if not holds_machine(node):
        closing: list[Action] = [CloseSession()] if seen.session is not None else []
        if not node.metadata.is_deleted:
            return closing
        asked: list[Action] = [CleanUp()] if node.status.launch is not None else []
        return [*closing, *asked, RemoveFinalizer()]
    session = seen.session
    match node.status.phase:
        case NodePhase.TERMINATING | NodePhase.FAILED:
            return release(node, seen, now)
        case NodePhase.READY:
            grace = grace_of(seen)
            text = f"running calls have {grace:.0f} s to finish"
            linked = session is not None and session.stage is Stage.LINKED
            drains: list[Action] = [Drain(grace, why_of(seen))] if linked else []
            return [Write(NodePhase.DRAINING, NodeReason.DRAINING, text), *drains, Again(1 if linked else 0)]
        case NodePhase.DRAINING if waiting := drain(node, seen, now):
            return waiting
    return [
        Write(NodePhase.TERMINATING, NodeReason.TERMINATING),
        Lose(NodeReason.NODE_DELETED),
        CloseSession(),
        Again(0),
    ]


def drain(node: ComputeNode, seen: Observation, now: datetime) -> list[Action]:
    """Let running calls finish and collect results, also what an earlier operator left; empty when done.

    The time counts anew for a session that began later: its agent may hold results that nobody has. It counts
    from the deletion for a node that drained before by itself.
    """
    session = seen.session
    if gone(seen.machine) or node.status.address is None:
        return []
    if session is None:
        return [StartSession(resume=True), Again(1)]
    if session.stage is Stage.ENDED:
        return []
    deleted = node.metadata.deletion_timestamp
    begun = max(each for each in (session.started, deleted) if each is not None)
    passed = min(since_change(node, now), (now - begun).total_seconds())
    grace = grace_of(seen)
    left = grace + DRAIN_SLACK - passed
    if left <= 0:
        return []
    if session.stage is not Stage.LINKED:
        return [Again(min(1.0, left))]
    return [Again(left)] if session.draining else [Drain(grace, why_of(seen)), Again(left)]


def grace_of(seen: Observation) -> float:
    """Seconds that running calls have to finish."""
    return DRAIN_GRACE if seen.grace is None else seen.grace


def why_of(seen: Observation) -> str:
    """What running calls are told of their end: `sky.current().stopping`."""
    return "scale_down" if seen.grace is None else "budget"


def gone(machine: Machine | Absent | None) -> bool:
    """Whether the provider says that the machine is no more."""
    return isinstance(machine, Absent) or (machine is not None and machine.state is MachineState.GONE)


def holds_machine(node: ComputeNode) -> bool:
    """Whether a machine may exist for this node: one was asked for, and not proven gone since."""
    status = node.status
    if status.launch is None or status.phase == NodePhase.GONE:
        return False
    if status.billing is not None and status.billing.end_time is not None:
        return False
    return status.provider_id is not None or status.launch.outcome in (PENDING, UNKNOWN, LAUNCHED, None)


def since_change(node: ComputeNode, now: datetime) -> float:
    """Seconds since a condition of the node last changed."""
    times = [each.last_transition_time for each in node.status.conditions if each.last_transition_time]
    return (now - max(times)).total_seconds() if times else 0.0


def poll(age: float) -> float:
    """Seconds until a provider is asked again: quick at first, then a tenth of the time already waited."""
    return min(5.0, max(0.05, age / 10))
