"""What is done about pools, and what they say: tables over pure functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any

import pytest

from skyward.contract.pool import ComputePool
from skyward_operator.kube.merge import merged
from skyward_operator.money.balance import Balance, Stop
from skyward_operator.money.budget import Scope
from skyward_operator.pools.act import node_object, template_hash
from skyward_operator.pools.decide import (
    AddFinalizer,
    CreateNode,
    Decision,
    DeleteNode,
    ForgetPool,
    decide,
)
from skyward_operator.pools.observation import Memory, NodeView, Observation
from skyward_operator.pools.status import pool_state, pool_status
from skyward_operator.pools.unsupported import IGNORED

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE = "t1"


def pool(
    desired: int = 2,
    status: dict[str, Any] | None = None,
    deleted: bool = False,
    generation: int = 1,
    **spec: Any,
) -> ComputePool:
    metadata: dict[str, Any] = {
        "name": "train",
        "namespace": "default",
        "uid": "pool-uid",
        "generation": generation,
        "resourceVersion": "7",
        "finalizers": ["skyward.dev/pool"],
    }
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    body = {"candidates": [{"name": "here", "provider": "local"}], "nodes": {"desired": desired}} | spec
    return ComputePool.read({"metadata": metadata, "spec": body, "status": status or {}})


def node(rank: int, phase: str = "Ready", incarnation: int = 0, **more: Any) -> NodeView:
    more.setdefault("ready_time", NOW - timedelta(hours=1) if phase == "Ready" else None)
    more.setdefault("template", TEMPLATE)
    return NodeView(f"n{rank}-{incarnation}", f"u{rank}-{incarnation}", rank, incarnation, phase, **more)


def seen(made: ComputePool, *nodes: NodeView, memory: Memory | None = None, **more: Any) -> Observation:
    return Observation(made, nodes, template=TEMPLATE, memory=memory or Memory(), **more)


def created(decision: Decision) -> list[tuple[int, int]]:
    return [(a.rank, a.incarnation) for a in decision.actions if isinstance(a, CreateNode)]


def deleted(decision: Decision) -> list[str]:
    return [a.name for a in decision.actions if isinstance(a, DeleteNode)]


def test_missing_ranks_are_made() -> None:
    assert created(decide(seen(pool(3)), NOW)) == [(0, 0), (1, 0), (2, 0)]
    assert created(decide(seen(pool(3), node(0), node(2)), NOW)) == [(1, 0)]


def test_finalizer_comes_before_the_first_node() -> None:
    unguarded = pool(1)
    unguarded = unguarded.model_copy(
        update={"metadata": unguarded.metadata.model_copy(update={"finalizers": ()})}
    )
    assert decide(seen(unguarded), NOW).actions[0] == AddFinalizer()
    assert AddFinalizer() not in decide(seen(pool(1)), NOW).actions


def test_complete_pool_is_left_alone() -> None:
    assert decide(seen(pool(2), node(0), node(1, "Bootstrapping")), NOW).actions == ()


def test_highest_rank_goes_first() -> None:
    assert deleted(decide(seen(pool(1), node(0), node(1), node(2)), NOW)) == ["n2-0", "n1-0"]


def test_suspended_pool_keeps_rank_zero_until_the_others_are_gone() -> None:
    suspended = pool(2, suspend=True)
    assert deleted(decide(seen(suspended, node(0), node(1)), NOW)) == ["n1-0"]
    assert deleted(decide(seen(suspended, node(0), node(1, deleting=True)), NOW)) == []
    assert deleted(decide(seen(suspended, node(0)), NOW)) == ["n0-0"]


def test_lost_node_is_replaced_by_its_next_incarnation() -> None:
    lost = node(1, "Failed", ready_time=NOW, reason="MachineLost")
    decision = decide(seen(pool(2), node(0), lost), NOW)
    assert deleted(decision) == ["n1-0"]
    assert created(decision) == [(1, 1)]
    assert decision.failures.count == 0


def test_node_that_leaves_is_replaced_at_once_and_let_be() -> None:
    leaving = node(0, "Draining", ready_time=NOW, reason="Interrupted")
    decision = decide(seen(pool(2), node(1), leaving), NOW)
    assert (created(decision), deleted(decision)) == ([(0, 1)], [])
    assert decision.failures.count == 0
    making = node(0, "Launching", incarnation=1)
    again = seen(pool(2), node(1), leaving, making)
    assert decide(again, NOW).actions == ()
    phase, reason, text = pool_state(again, decide(again, NOW))
    assert (phase, reason) == ("Provisioning", "Launching")
    assert "n0-0 leaves (Interrupted)" in text
    both = seen(pool(2), node(1), leaving, node(0, incarnation=1))
    assert decide(both, NOW).actions == ()
    assert pool_state(both, decide(both, NOW))[:2] == ("Ready", "ReplacingNodes")
    gone = seen(pool(2), node(1), replace(leaving, phase="Gone"), node(0, incarnation=1))
    assert deleted(decide(gone, NOW)) == ["n0-0"]


def test_node_that_leaves_goes_with_its_pool_and_when_it_is_suspended() -> None:
    leaving = node(1, "Draining", ready_time=NOW, reason="Interrupted")
    assert "n1-0" in deleted(decide(seen(pool(2, deleted=True), node(0), leaving), NOW))
    assert "n1-0" in deleted(decide(seen(pool(2, suspend=True), node(0), leaving), NOW))


def test_machines_that_are_taken_before_they_work_never_stall_a_pool() -> None:
    memory, status = Memory(), dict[str, Any]()
    for turn in range(5):
        taken = node(0, "Failed", incarnation=turn, reason="Interrupted")
        decision = decide(seen(pool(1, status=status), taken, memory=memory), NOW + timedelta(hours=turn))
        assert not decision.stalled
        assert decision.memory.retry_at is not None
        failures = decision.failures
        status = {"failures": {"count": failures.count, "generation": 1, "reason": failures.reason}}
        memory = decision.memory
    assert decision.failures.count == 5


def test_nodes_that_are_soon_ill_stall_their_pool_and_later_ones_do_not() -> None:
    def ill(turn: int, minutes: float) -> NodeView:
        ready = NOW + timedelta(hours=turn) - timedelta(minutes=minutes)
        return node(0, "Draining", incarnation=turn, reason="Unhealthy", ready_time=ready, message="probe")

    for minutes, stalls in ((1, True), (11, False)):
        memory, status, decision = Memory(), dict[str, Any](), None
        for turn in range(3):
            now = NOW + timedelta(hours=turn)
            decision = decide(seen(pool(1, status=status), ill(turn, minutes), memory=memory), now)
            assert bool(created(decision)) is not stalls, "the next one comes after a pause"
            fresh = node(0, incarnation=turn + 1, ready_time=now + timedelta(minutes=1))
            failures = decision.failures
            status = {"failures": {"count": failures.count, "generation": 1, "reason": failures.reason}}
            after = decide(
                seen(pool(1, status=status), fresh, memory=decision.memory), now + timedelta(minutes=2)
            )
            assert after.failures.count == (turn + 1 if stalls else 0), "it is ready, and not well for long"
            memory = after.memory
        assert decision is not None
        assert decision.stalled is stalls
    status = {"failures": {"count": 2, "generation": 1, "reason": "Unhealthy"}}
    fresh = node(0, ready_time=NOW)
    well = seen(pool(1, status=status), fresh, memory=Memory(failed_at=NOW - timedelta(minutes=1)))
    assert decide(well, NOW + timedelta(minutes=9)).failures.count == 2
    assert decide(well, NOW + timedelta(minutes=11)).failures.count == 0


def test_bad_nodes_that_stay_are_said_by_their_pool() -> None:
    text = "no sign of the agent for over 120 s; not replaced: 2 of 2 nodes are bad"
    bad = [node(rank, reason="Unhealthy", message=text) for rank in range(2)]
    made = seen(pool(2), *bad)
    assert decide(made, NOW).actions == ()
    phase, reason, said = pool_state(made, decide(made, NOW))
    assert (phase, reason) == ("Degraded", "NodesUnhealthy")
    assert said == f"n0-0, n1-0: {text}"


def test_incarnation_is_remembered_after_the_object_is_gone() -> None:
    first = decide(seen(pool(1), node(0, "Failed", incarnation=4, ready_time=NOW)), NOW)
    assert created(decide(seen(pool(1), memory=first.memory), NOW)) == [(0, 5)]


def test_double_of_a_rank_is_released() -> None:
    assert deleted(decide(seen(pool(1), node(0), node(0, "Launching", 1)), NOW)) == ["n0-1"]


def test_node_in_the_making_from_an_old_spec_is_replaced() -> None:
    decision = decide(seen(pool(1), node(0, "Bootstrapping", template="old")), NOW)
    assert deleted(decision) == ["n0-0"]
    assert created(decision) == [(0, 1)]


def test_ready_node_from_an_old_spec_stays() -> None:
    assert decide(seen(pool(1), node(0, template="old")), NOW).actions == ()


def failing(reason: str = "BootstrapFailed", incarnation: int = 0, rank: int = 0) -> NodeView:
    return node(rank, "Failed", incarnation, reason=reason, message=f"it was {reason}", log="last lines")


def written(decision: Decision) -> dict[str, Any]:
    failures = decision.failures
    return {
        "failures": {
            "count": failures.count,
            "generation": failures.generation,
            "reason": failures.reason,
            "message": failures.message,
        }
    }


def test_failed_node_is_released_and_replaced_after_a_pause() -> None:
    first = decide(seen(pool(1), failing()), NOW)
    assert deleted(first) == ["n0-0"]
    assert created(first) == []
    assert first.again == pytest.approx(5.0)
    later = NOW + timedelta(seconds=6)
    second = decide(seen(pool(1, status=written(first)), memory=first.memory), later)
    assert created(second) == [(0, 1)]


def test_failed_node_counts_once() -> None:
    first = decide(seen(pool(1), failing()), NOW)
    again = decide(seen(pool(1, status=written(first)), failing(), memory=first.memory), NOW)
    assert again.failures.count == 1


def test_nodes_that_fail_together_count_as_one_failure() -> None:
    decision = decide(seen(pool(3), failing(rank=0), failing(rank=1)), NOW)
    assert decision.failures.count == 1
    both = decide(seen(pool(3, status=written(decision)), failing(rank=2), memory=decision.memory), NOW)
    assert both.failures.count == 1


def test_third_failure_in_a_row_stalls_the_pool() -> None:
    memory, time = Memory(), NOW
    status: dict[str, Any] = {}
    for incarnation in range(3):
        decision = decide(seen(pool(1, status=status), failing(incarnation=incarnation), memory=memory), time)
        memory, status, time = decision.memory, written(decision), time + timedelta(hours=1)
    assert decision.stalled
    assert deleted(decision) == ["n0-2"]
    assert created(decide(seen(pool(1, status=status), memory=memory), time)) == []


@pytest.mark.parametrize(
    "reason", ["PackageNotFound", "PythonNotFound", "ProviderUnknown", "NoMatchingOffer"]
)
def test_failure_that_would_repeat_stalls_at_once(reason: str) -> None:
    decision = decide(seen(pool(2), failing(reason), node(1, "Bootstrapping")), NOW)
    assert decision.stalled
    assert deleted(decision) == ["n0-0"]
    phase, said, message = pool_state(seen(pool(2), failing(reason)), decision)
    assert (phase, said) == ("Stalled", reason)
    assert f"it was {reason}" in message


def test_stalled_pool_goes_on_after_a_change_of_its_spec() -> None:
    decision = decide(seen(pool(1), failing("PackageNotFound")), NOW)
    changed = pool(1, status=written(decision), generation=2)
    assert created(decide(seen(changed, memory=decision.memory), NOW)) == [(0, 1)]


def test_bad_credentials_are_tried_again_slowly() -> None:
    decision = decide(seen(pool(1), failing("InvalidCredentials")), NOW)
    assert not decision.stalled
    assert decision.again == pytest.approx(60.0)
    status = pool_status(seen(pool(1), failing("InvalidCredentials")), decision, NOW)
    valid = next(c for c in status["conditions"] if c["type"] == "CredentialsValid")
    assert (valid["status"], valid["reason"]) == ("False", "InvalidCredentials")


def test_pool_says_that_credentials_are_bad_while_its_node_still_waits_for_good_ones() -> None:
    waiting = node(0, "Pending", reason="InvalidCredentials")
    made = pool(1)
    observation = seen(made, waiting)
    conditions = pool_status(observation, decide(observation, NOW), NOW)["conditions"]
    valid = next(each for each in conditions if each["type"] == "CredentialsValid")
    assert (valid["status"], valid["reason"]) == ("False", "InvalidCredentials")


def test_node_that_works_ends_the_count() -> None:
    first = decide(seen(pool(1), failing()), NOW)
    works = node(0, ready_time=NOW + timedelta(minutes=1))
    after = decide(
        seen(pool(1, status=written(first)), works, memory=first.memory), NOW + timedelta(minutes=2)
    )
    assert after.failures.count == 0


def test_deleted_pool_waits_for_nodes_and_tasks() -> None:
    gone = pool(2, deleted=True)
    assert deleted(decide(seen(gone, node(0), node(1)), NOW)) == ["n0-0", "n1-0"]
    assert decide(seen(gone, node(0, deleting=True)), NOW).actions == ()
    assert decide(seen(gone, live_tasks=1), NOW).actions == ()
    assert decide(seen(gone), NOW).actions == (ForgetPool(),)


def state(*nodes: NodeView, made: ComputePool | None = None, **more: Any) -> tuple[str, str, str]:
    observation = seen(made or pool(2), *nodes, **more)
    phase, reason, message = pool_state(observation, decide(observation, NOW))
    return str(phase), str(reason), message


def test_pool_says_where_it_stands() -> None:
    assert state(node(0), node(1))[:2] == ("Ready", "AllNodesReady")
    assert state()[:2] == ("Provisioning", "Accepted")
    assert state(node(0, "Launching"), node(1, "Bootstrapping"))[:2] == ("Provisioning", "Bootstrapping")
    assert state(node(0), node(1, "Launching"), made=pool(2, nodes={"desired": 2, "min": 1}))[:2] == (
        "Ready",
        "MinimumReady",
    )
    assert state(made=pool(0))[:2] == ("Pending", "NoNodesWanted")
    assert state(made=pool(nodes={"desired": 0, "max": 3}))[:2] == ("Ready", "AwaitingTasks")
    assert state(made=pool(suspend=True))[:2] == ("Suspended", "Suspended")
    assert state(node(0), made=pool(deleted=True))[:2] == ("Deleting", "Deleting")


def test_pool_says_what_its_nodes_are_doing() -> None:
    message = state(
        node(0, "Bootstrapping", message="installing packages"),
        node(1, "Bootstrapping", message="installing packages"),
    )[2]
    assert message == "0 of 2 nodes ready; rank 0, 1: installing packages"


def test_status_holds_what_people_need() -> None:
    observation = seen(pool(2), node(0), node(1))
    status = pool_status(observation, decide(observation, NOW), NOW)
    assert status["display"] == {"nodes": "2/2", "hardware": "local", "hourly": "0.00", "spent": "0.00"}
    assert status["nodes"] == {"total": 2, "ready": 2, "launching": 0, "failed": 0}
    assert status["usable"] is True
    assert status["selector"] == "skyward.dev/pool=train"
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"


def test_status_does_not_change_by_itself() -> None:
    observation = seen(pool(2), node(0), node(1))
    status = pool_status(observation, decide(observation, NOW), NOW)
    again = replace(observation, pool=pool(2, status=status))
    later = pool_status(again, decide(again, NOW), NOW + timedelta(hours=1))
    written = merged({}, status)
    assert merged(written, later) == written


def test_node_object_holds_everything_and_a_stable_name() -> None:
    made = pool(2)
    first, second = node_object(made, CreateNode(1, 0)), node_object(made, CreateNode(1, 0))
    assert first == second
    assert first["metadata"]["name"].startswith("train-1-")
    assert first["spec"]["templateHash"] == template_hash(made)
    assert {"candidates", "image", "worker", "timeouts", "poolRef", "rank"} <= set(first["spec"])


def test_nodes_of_an_earlier_image_stay_and_are_named() -> None:
    phase, reason, message = state(node(0, outdated=True), node(1))
    assert (phase, reason) == ("Ready", "NodesOutdated")
    assert message == "2 of 2 nodes ready; 1 of them with an earlier image or worker setting: n0-0"
    observation = seen(pool(1), node(0, outdated=True))
    decision = decide(observation, NOW)
    assert decision.actions == ()
    assert "kubectl delete skn" in pool_status(observation, decision, NOW)["message"]


def test_fields_without_effect_are_said() -> None:
    def unsupported(**spec: Any) -> dict[str, Any]:
        observation = seen(pool(1, **spec), node(0))
        conditions = pool_status(observation, decide(observation, NOW), NOW)["conditions"]
        return next(each for each in conditions if each["type"] == "Unsupported")

    nothing = unsupported(lifetime={"idleSeconds": 5}, image={"pip": ["six"]})
    assert (nothing["status"], "message" in nothing) == ("False", False)
    some = unsupported(
        budget={"maxTotal": "3"}, lifetime={"lingerSeconds": 60}, image={"includesDigest": "0" * 64}
    )
    assert (some["status"], some["reason"]) == ("True", "FieldsIgnored")
    assert "on spec.lifetime.lingerSeconds, spec.image.includesDigest." in some["message"]


@pytest.mark.parametrize("path", IGNORED)
def test_a_field_without_effect_exists(path: str) -> None:
    attrgetter(path)(pool(1).spec)


def test_deleted_pool_says_what_keeps_it() -> None:
    assert state(node(0), made=pool(deleted=True))[2] == "waiting for 1 node to end"
    assert state(made=pool(deleted=True), live_tasks=2)[2] == "waiting for 2 tasks to end"
    assert state(made=pool(deleted=True))[2] == "all is released"


def test_a_rejected_image_stalls_at_once() -> None:
    failed = node(0, "Failed", reason="ImageRejected", message="env: a command of image.shellVars failed")
    assert decide(seen(pool(1), failed), NOW).stalled


USED_UP = Balance(stop=Stop(Scope.POOL, Decimal(3), "", "the budget is $3 and used up"), percent=100)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


def test_a_pool_whose_budget_is_used_up_releases_all_nodes_and_says_so() -> None:
    observation = seen(pool(2), node(0), node(1, "Bootstrapping"), balance=USED_UP)
    decision = decide(observation, NOW)
    assert deleted(decision) == ["n0-0", "n1-0"]
    assert created(decision) == []
    assert not any(isinstance(action, DeleteNode) and action.if_idle for action in decision.actions)
    status = pool_status(observation, decision, NOW)
    assert (status["phase"], status["reason"]) == ("Stalled", "BudgetExceeded")
    assert status["message"].startswith("the budget is $3 and used up. Raise the budget")
    assert conditions(status)["Stalled"] == ("True", "BudgetExceeded")
    assert conditions(status)["BudgetExceeded"] == ("True", "BudgetExceeded")
    assert status["cost"]["stopped"]["limit"] == "3"


def test_a_pool_whose_budget_was_raised_goes_on() -> None:
    stopped = pool(2, status={"desiredNodes": 0, "cost": {"stopped": {"scope": "Pool", "limit": "3"}}})
    observation = seen(stopped, memory=Memory(wanted=0))
    decision = decide(observation, NOW)
    assert created(decision) == [(0, 0), (1, 0)]
    status = pool_status(observation, decision, NOW)
    assert conditions(status)["BudgetExceeded"] == ("False", "WithinBudget")
    assert status["cost"]["stopped"] is None


def test_a_pool_that_is_deleted_or_suspended_ends_as_ever_with_a_budget_that_is_used_up() -> None:
    gone = decide(seen(pool(2, deleted=True), balance=USED_UP), NOW)
    assert gone.actions == (ForgetPool(),)
    suspended = seen(pool(2, suspend=True), balance=USED_UP)
    assert pool_state(suspended, decide(suspended, NOW))[0] == "Suspended"


REFUSED: dict[str, Any] = {"reason": "BudgetExceeded", "message": "$1 needed"}


def test_a_pool_that_cannot_pay_for_one_node_says_so_and_asks_for_no_more() -> None:
    observation = seen(pool(3), node(0, "Pending", **REFUSED))
    decision = decide(observation, NOW)
    assert decision.actions == ()
    assert pool_state(observation, decision)[:2] == ("Stalled", "BudgetExceeded")


def test_a_pool_with_a_node_goes_on_although_there_is_no_money_for_another() -> None:
    observation = seen(pool(2, nodes={"desired": 2, "min": 1}), node(0), node(1, "Pending", **REFUSED))
    status = pool_status(observation, decide(observation, NOW), NOW)
    assert status["phase"] == "Ready"
    assert status["usable"]
    assert conditions(status)["BudgetExceeded"] == ("True", "BudgetExceeded")


def test_a_cost_that_grows_with_the_time_is_written_once_a_minute() -> None:
    cost = {"hourly": "1", "onDemandHourly": "1", "accrued": "2", "saved": "0", "time": NOW.isoformat()}
    for seconds, hourly, written in (
        (1, 1, False),
        (59, 1, False),
        (60, 1, True),
        (1, 2, True),
        (1, 0, True),
    ):
        balance = Balance(Decimal(hourly), Decimal(hourly), Decimal(3))
        observation = seen(pool(1, status={"cost": cost}), node(0), balance=balance)
        now = NOW + timedelta(seconds=seconds)
        assert ("cost" in pool_status(observation, decide(observation, now), now)) is written


# What the same spec meets again, what passes, and what moves


def failed_pool(reason: str, count: int, *nodes: NodeView, **memory: Any) -> Observation:
    """A pool whose last nodes failed in a row."""
    failures = {"count": count, "generation": 1, "reason": reason, "message": "why"}
    return seen(pool(2, {"failures": failures}), *nodes, memory=Memory(failed_at=NOW, **memory))


@pytest.mark.parametrize("reason", ["InsufficientCapacity", "RateLimited", "ProviderUnavailable"])
def test_a_lack_of_capacity_never_stalls_a_pool(reason: str) -> None:
    decision = decide(failed_pool(reason, 50), NOW)
    assert not decision.stalled
    assert created(decision) == [(0, 0), (1, 0)]


@pytest.mark.parametrize("reason", ["PriceCapExceeded", "QuotaExceeded"])
def test_a_price_or_quota_stalls_a_pool_that_looks_with_one_node_whether_it_has_moved(reason: str) -> None:
    failed = node(0, "Failed", reason=reason, message="why")
    decision = decide(seen(pool(2), failed), NOW)
    assert (decision.stalled, decision.failures.reason, created(decision)) == (True, reason, [])
    assert decision.again == 300.0
    later = NOW + timedelta(seconds=301)
    waiting = failed_pool(reason, 1, retry_at=NOW + timedelta(seconds=300))
    assert created(decide(waiting, NOW)) == []
    assert created(decide(waiting, later)) == [(0, 0)]
    probing = failed_pool(reason, 1, node(0, "Pending"), retry_at=NOW + timedelta(seconds=300))
    assert (created(decide(probing, later)), decide(probing, later).stalled) == ([], True)
    ready = node(0, ready_time=later)
    assert not decide(failed_pool(reason, 1, ready), later).stalled


@pytest.mark.parametrize("reason", ["RequestRejected", "NoMatchingOffer", "ProviderUnknown"])
def test_what_the_same_spec_meets_again_stalls_a_pool_for_good(reason: str) -> None:
    decision = decide(failed_pool(reason, 1), NOW + timedelta(days=1))
    assert (decision.stalled, created(decision), decision.again) == (True, [], None)


def test_a_pool_whose_nodes_have_nothing_to_ask_for_says_what_they_wait_for() -> None:
    waiting = node(0, "Pending", reason="InsufficientCapacity", message="no spot capacity in east")
    made = seen(pool(2), waiting, node(1, "Pending", reason="Accepted"))
    phase, reason, message = pool_state(made, decide(made, NOW))
    assert (phase, reason) == ("Provisioning", "InsufficientCapacity")
    assert "rank 0: no spot capacity in east" in message
    going = seen(pool(2), waiting, node(1, "Launching", reason="Launching"))
    assert pool_state(going, decide(going, NOW))[1] == "Launching"
