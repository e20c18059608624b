"""The way down of a node: drain, release, let go. Pure, part of `decide`.

The finalizer goes only after the provider proved that the machine is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.nodes.actions import (
    Again,
    CloseSession,
    Drain,
    Lose,
    RemoveFinalizer,
    Terminate,
    Write,
)
from skyward_operator.nodes.observation import Stage

if TYPE_CHECKING:
    from datetime import datetime

    from skyward.contract.node import ComputeNode
    from skyward_operator.nodes.actions import Action
    from skyward_operator.nodes.observation import Observation

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
        return [*closing, RemoveFinalizer()] if node.metadata.is_deleted else closing
    session = seen.session
    match node.status.phase:
        case NodePhase.TERMINATING | NodePhase.FAILED:
            return release(node, seen, now)
        case NodePhase.READY if session is not None and session.stage is Stage.LINKED:
            text = f"running calls have {DRAIN_GRACE:.0f} s to finish"
            return [Write(NodePhase.DRAINING, NodeReason.DRAINING, text), Drain(DRAIN_GRACE), Again(1)]
        case NodePhase.DRAINING if session is not None and session.stage is Stage.LINKED:
            left = DRAIN_GRACE + DRAIN_SLACK - since_change(node, now)
            if left > 0:
                return [Again(left)] if session.draining else [Drain(DRAIN_GRACE), Again(left)]
    return [
        Write(NodePhase.TERMINATING, NodeReason.TERMINATING),
        Lose(NodeReason.NODE_DELETED),
        CloseSession(),
        Again(0),
    ]


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
