"""The status of a node as the API server gets it: what follows from a phase and its reason. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skyward.contract.meta import condition
from skyward.contract.reasons import NODE_CONDITIONS, ConditionType, NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from skyward.contract.meta import Condition
    from skyward.contract.node import ComputeNode

type Judgement = tuple[str, str]
"""Status and reason of a condition."""


def status_patch(
    node: ComputeNode,
    phase: NodePhase,
    reason: NodeReason,
    message: str,
    fields: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """A merge patch of the status. Conditions are a list and so are sent whole."""
    return {
        "observedGeneration": node.metadata.generation,
        "phase": str(phase),
        "reason": str(reason),
        "message": message or None,
        **fields,
        "conditions": conditions(node, phase, reason, message, now),
    }


def conditions(
    node: ComputeNode, phase: NodePhase, reason: NodeReason, message: str, now: datetime
) -> list[dict[str, Any]]:
    """All conditions of a node; a time of transition changes only with the status."""
    judged = judgements(node, phase, reason)
    made = []
    for type_ in NODE_CONDITIONS:
        before = condition(node.status.conditions, type_)
        status, why = judged.get(type_) or kept(before)
        same = before is not None and before.status == status and before.last_transition_time is not None
        since = before.last_transition_time if same and before else now
        entry = {
            "type": str(type_),
            "status": status,
            "reason": why,
            "observedGeneration": node.metadata.generation,
            "lastTransitionTime": timestamp(since or now),
        }
        if message and why == reason:
            entry["message"] = message
        made.append(entry)
    return made


def kept(before: Condition | None) -> Judgement:
    """What a condition said, or that nothing is known yet."""
    if before is None:
        return "Unknown", NodeReason.ACCEPTED
    return before.status, before.reason or NodeReason.ACCEPTED


def judgements(node: ComputeNode, phase: NodePhase, reason: NodeReason) -> dict[ConditionType, Judgement]:
    """The conditions that a phase decides; the others stay as they were."""
    launched = ConditionType.LAUNCHED, ("True", NodeReason.LAUNCHED)
    calm = ConditionType.INTERRUPTED, ("False", NodeReason.NOT_INTERRUPTED)
    not_ready = ConditionType.READY, ("False", reason)
    match phase:
        case NodePhase.PENDING:
            return dict([(ConditionType.LAUNCHED, ("False", reason)), not_ready, calm])
        case NodePhase.LAUNCHING:
            return dict([(ConditionType.LAUNCHED, ("Unknown", reason)), not_ready, calm])
        case NodePhase.CONNECTING | NodePhase.BOOTSTRAPPING:
            return dict([launched, (ConditionType.BOOTSTRAPPED, ("False", reason)), not_ready, calm])
        case NodePhase.READY:
            bootstrapped = ConditionType.BOOTSTRAPPED, ("True", NodeReason.BOOTSTRAPPED)
            answers = "True" if reason == NodeReason.AGENT_READY else "Unknown"
            return dict([launched, bootstrapped, (ConditionType.READY, (answers, reason)), calm])
        case NodePhase.FAILED:
            return dict([not_ready, *failed_step(node, reason), *taken(reason)])
        case NodePhase.DRAINING:
            return dict([not_ready, (ConditionType.DRAINED, ("False", reason)), *taken(reason)])
        case NodePhase.TERMINATING | NodePhase.GONE:
            return dict([not_ready, (ConditionType.DRAINED, ("True", NodeReason.DRAINED))])


def taken(reason: NodeReason) -> list[tuple[ConditionType, Judgement]]:
    """Whether the provider took the machine back, or will; it stays so once it was said."""
    is_taken = reason in (NodeReason.INTERRUPTED, NodeReason.PREEMPTED)
    return [(ConditionType.INTERRUPTED, ("True", reason))] if is_taken else []


def failed_step(node: ComputeNode, reason: NodeReason) -> list[tuple[ConditionType, Judgement]]:
    """The condition at which the way to readiness ended."""
    for type_ in (ConditionType.LAUNCHED, ConditionType.BOOTSTRAPPED):
        before = condition(node.status.conditions, type_)
        if before is None or before.status != "True":
            return [(type_, ("False", reason))]
    return []
