"""The conditions that follow from a node's phase."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from skyward.contract.node import ComputeNode
from skyward.contract.reasons import NODE_CONDITIONS, NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp
from skyward_operator.nodes.status import status_patch

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def node(status: dict[str, Any]) -> ComputeNode:
    """A node object with this status."""
    spec = {
        "poolRef": {"name": "p", "uid": "pu"},
        "rank": 0,
        "incarnation": 0,
        "candidates": [{"name": "main", "provider": "local"}],
        "image": {},
        "worker": {},
        "timeouts": {},
        "templateHash": "ab",
    }
    return ComputeNode.read({"metadata": {"name": "n", "generation": 1}, "spec": spec, "status": status})


def patch(status: dict[str, Any], phase: NodePhase, reason: NodeReason, later: float = 0) -> dict[str, Any]:
    """The patch that is sent."""
    return status_patch(node(status), phase, reason, "why", {}, NOW + timedelta(seconds=later))


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    """One condition of a status."""
    (found,) = [each for each in status["conditions"] if each["type"] == type_]
    return dict(found)


def test_all_conditions_are_there_from_the_first_write() -> None:
    first = patch({}, NodePhase.PENDING, NodeReason.NO_MATCHING_OFFER)
    assert [each["type"] for each in first["conditions"]] == list(NODE_CONDITIONS)
    assert all(each["reason"] for each in first["conditions"])


def test_a_transition_time_changes_only_with_the_status() -> None:
    ready = patch({}, NodePhase.READY, NodeReason.AGENT_READY)
    again = patch(ready, NodePhase.READY, NodeReason.AGENT_READY, later=60)
    assert again == ready
    lost = patch(ready, NodePhase.READY, NodeReason.RECONNECTING, later=60)
    assert condition(lost, "Ready")["status"] == "Unknown"
    assert condition(lost, "Ready")["lastTransitionTime"] == timestamp(NOW + timedelta(seconds=60))
    assert condition(lost, "Launched") == condition(ready, "Launched")


def test_a_failure_is_shown_at_the_step_that_failed() -> None:
    connecting = patch({}, NodePhase.CONNECTING, NodeReason.CONNECTING)
    failed = patch(connecting, NodePhase.FAILED, NodeReason.PACKAGE_NOT_FOUND)
    assert condition(failed, "Launched")["status"] == "True"
    assert condition(failed, "Bootstrapped")["reason"] == "PackageNotFound"
    assert condition(failed, "Bootstrapped")["message"] == "why"
