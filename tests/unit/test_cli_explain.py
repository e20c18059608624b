"""What `skyward why` says of objects: where they stand, what they wait for, what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from skyward.cli.explain import explain_node, explain_pool, explain_task
from skyward.cli.why import lines, tried_row
from skyward.contract.reasons import NodeReason, PoolReason, TaskReason, next_step

NOW = datetime(2026, 11, 25, 12, 4, 10, tzinfo=UTC)
SINCE = "2026-11-25T12:00:00Z"
TRIED = {
    "candidate": "main",
    "provider": "sim",
    "region": "sim-east",
    "instanceType": "c.small",
    "market": "spot",
    "hourlyPrice": "0.0120",
    "outcome": "InsufficientCapacity",
    "message": "sim: no spot capacity for c.small in sim-east",
    "time": SINCE,
    "retryTime": "2026-11-25T12:06:00Z",
    "count": 3,
}


def made(name: str, spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    """An object."""
    return {"metadata": {"name": name, "creationTimestamp": SINCE}, "spec": spec, "status": status}


def pool(phase: str = "Provisioning", reason: str = "InsufficientCapacity", **status: Any) -> dict[str, Any]:
    """A pool."""
    conditions = [{"type": "Ready", "status": "False", "lastTransitionTime": SINCE}]
    return made(
        "train", {"nodes": {"desired": 2}}, phase=phase, reason=reason, conditions=conditions, **status
    )


def node(phase: str, reason: str, **status: Any) -> dict[str, Any]:
    """A node of the pool."""
    conditions = [{"type": "Ready", "status": "False", "lastTransitionTime": SINCE}]
    return made(
        "train-0", {"poolRef": {"name": "train"}}, phase=phase, reason=reason, conditions=conditions, **status
    )


def task(phase: str, reason: str, **status: Any) -> dict[str, Any]:
    """A task of the pool."""
    return made("fit", {"poolRef": {"name": "train"}}, phase=phase, reason=reason, **status)


def test_a_pool_without_capacity_says_what_it_waits_for_since_when_and_when_it_asks_again() -> None:
    waiting = node("Pending", "InsufficientCapacity", message="no spot capacity in sim-east")
    remedy = next_step("InsufficientCapacity")
    about = explain_pool(
        pool(
            message=f"0 of 2 nodes ready. {remedy}",
            nextTryTime="2026-11-25T12:06:00Z",
            offersTried=[TRIED],
        ),
        [waiting],
    )
    assert lines(about, NOW) == [
        "pool train: Provisioning, InsufficientCapacity, for 4 min 10 s",
        "  0 of 2 nodes ready",
        "  waits for: the provider to have such a machine",
        "  asks again: in 1 min 50 s (12:06:00 UTC)",
        f"  to do: {remedy}",
        "  node train-0: Pending, InsufficientCapacity, for 4 min 10 s",
        "    no spot capacity in sim-east",
        "    waits for: the provider to have such a machine",
        f"    to do: {remedy}",
    ]
    assert tried_row(about.tried[0], NOW) == {
        "AGO": "4 min 10 s",
        "PROVIDER": "sim",
        "REGION": "sim-east",
        "TYPE": "c.small",
        "MARKET": "spot",
        "$/H": "0.0120",
        "OUTCOME": "InsufficientCapacity",
        "TIMES": "3",
        "AGAIN IN": "1 min 50 s",
        "WORDS": "sim: no spot capacity for c.small in sim-east",
    }


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("RequestRejected", "a change of its spec"),
        (
            "PriceCapExceeded",
            "a lower price, or a higher maxHourlyPrice; it looks every 5 minutes with one node",
        ),
    ],
)
def test_a_pool_that_is_stalled_waits_for_somebody_to_act(reason: str, words: str) -> None:
    assert explain_pool(pool("Stalled", reason)).waits_for == words


def test_a_pool_that_has_all_its_nodes_waits_for_nothing() -> None:
    about = explain_pool(pool("Ready", "AllNodesReady"), [node("Ready", "AgentReady")])
    assert (about.waits_for, about.beneath) == ("", ())


def test_a_node_shows_its_pools_offers_only_as_long_as_it_buys() -> None:
    owner = pool(offersTried=[TRIED], nextTryTime="2026-11-25T12:06:00Z")
    buying = explain_node(node("Pending", "InsufficientCapacity"), owner)
    assert (buying.tried, buying.next_try) == ([TRIED], NOW + timedelta(seconds=110))
    booting = explain_node(node("Bootstrapping", "Bootstrapping", bootstrap={"step": "pip"}), owner)
    assert (booting.tried, booting.next_try, booting.message) == ((), None, "pip")


def test_a_node_that_is_ordered_says_what() -> None:
    offer = {"provider": "sim", "region": "sim-east", "instanceType": "c.small", "market": "spot"}
    about = explain_node(node("Launching", "IntentRecorded", launch={"offer": offer}))
    assert about.message == "sim sim-east c.small spot"


def test_a_task_that_waits_for_nodes_has_its_pools_reasons_beneath() -> None:
    about = explain_task(task("Queued", "AwaitingNodes"), pool(), [node("Pending", "InsufficientCapacity")])
    assert about.waits_for == "a node of its pool that is ready"
    (beneath,) = about.beneath
    assert (beneath.subject, beneath.reason) == ("pool train", "InsufficientCapacity")
    assert [each.subject for each in beneath.beneath] == ["node train-0"]


def test_a_task_that_waits_for_room_says_who_has_it() -> None:
    busy = pool("Ready", "AllNodesReady", nodes={"ready": 2})
    busy["spec"]["worker"] = {"concurrency": 4}
    others = [task("Running", "Running", counts={"running": 8}), task("Succeeded", "Succeeded")]
    about = explain_task(task("Queued", "Queued"), busy, [], others)
    assert about.message == (
        "its pool has 2 nodes ready with 8 slots; other tasks of the pool that have not ended: 1, "
        "with 8 calls running"
    )
    assert about.waits_for == "a free slot on a node of its pool"


@pytest.mark.parametrize(
    ("status", "spec", "reason", "words"),
    [
        ({"phase": "Queued", "reason": "AwaitingPayload"}, {}, "AwaitingPayload", "its payload"),
        ({"phase": "Queued", "reason": "BudgetExceeded"}, {}, "BudgetExceeded", "a higher budget"),
        ({"phase": "Suspended", "reason": "Suspended"}, {}, "Suspended", "spec.suspend"),
        ({}, {}, "", "the operator"),
    ],
)
def test_a_task_waits_for_what_its_reason_says(
    status: dict[str, str], spec: dict[str, Any], reason: str, words: str
) -> None:
    about = explain_task(made("fit", {"poolRef": {"name": "train"}} | spec, **status), pool())
    assert about.reason == reason
    assert words in about.waits_for


def test_a_task_without_its_pool_says_that_and_one_that_is_cancelled_too() -> None:
    about = explain_task(task("Queued", "AwaitingNodes"), None)
    assert (about.reason, about.waits_for) == ("PoolNotFound", "its pool to be made")
    leaving = task("Running", "Running")
    leaving["spec"]["cancel"] = True
    assert "cancellation was asked for" in explain_task(leaving, pool()).message


def test_a_task_that_has_ended_waits_for_nothing_even_without_its_pool() -> None:
    ended = task("Failed", "UserException", error={"message": "ValueError: no"})
    about = explain_task(ended, None)
    assert (about.waits_for, about.message) == ("", "ValueError: no")


@pytest.mark.parametrize("reason", [*PoolReason, *NodeReason, *TaskReason])
def test_whatever_a_status_says_is_explained(reason: str) -> None:
    assert explain_pool(pool("Provisioning", reason)).document()
    assert explain_node(node("Pending", reason)).document()
    assert explain_task(task("Queued", reason), pool()).document()
