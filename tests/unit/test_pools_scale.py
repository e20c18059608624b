"""How many nodes an elastic pool wants, and which of them go: tables over pure functions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.test_pools_decide import NOW, created, deleted, node, pool, seen, state

from skyward_operator.pools.decide import Decision, DeleteNode, decide
from skyward_operator.pools.observation import Demand, Memory
from skyward_operator.pools.scale import Need, Needs, needed_nodes, next_change, wanted_nodes
from skyward_operator.pools.status import pool_status, scaling

IDLE = 60


def spec(desired: int, most: int | None, **more: Any) -> Any:
    nodes: dict[str, Any] = {"desired": desired} | ({"max": most} if most else {})
    return pool(nodes=nodes, **more).spec


def ago(seconds: float) -> Any:
    return NOW - timedelta(seconds=seconds)


SCALE = [
    # desired, max, queued, running, current, earlier needs (nodes, seconds ago), wanted
    (2, None, 100, 0, 2, (), 2),
    (2, 8, 0, 0, None, (), 2),
    (2, 8, 6, 2, 2, (), 8),
    (2, 8, 3, 2, 2, (), 5),
    (2, 8, 100, 2, 2, (), 8),
    (0, 4, 1, 0, 0, (), 1),
    (0, 4, 0, 0, 1, ((1, 0),), 1),
    (0, 4, 0, 0, 1, ((1, 60), (0, 30)), 0),
    (1, 4, 0, 2, 4, ((4, 60), (2, 1)), 2),
    # the most that was needed lately, not what is needed now
    (0, 9, 1, 0, 7, ((7, 60), (3, 10), (1, 0)), 3),
    # whoever lowers max is obeyed at once
    (0, 2, 9, 9, 7, ((7, 0),), 2),
    (0, 2, 0, 0, 7, ((7, 0),), 2),
    # whoever raises desired too
    (5, 9, 0, 0, 1, ((1, 0),), 5),
]


@pytest.mark.parametrize(("desired", "most", "queued", "running", "current", "before", "wanted"), SCALE)
def test_elastic_pool_follows_its_calls(
    desired: int,
    most: int | None,
    queued: int,
    running: int,
    current: int | None,
    before: tuple[tuple[int, float], ...],
    wanted: int,
) -> None:
    needs = tuple(Need(nodes, ago(seconds)) for nodes, seconds in before)
    # the last need lasts until the look, and what is older counts from its own end
    found = wanted_nodes(spec(desired, most), Demand(queued, running), current, needs, NOW)
    assert found.nodes == wanted


def look(needs: Needs, calls: int, current: int, seconds: float) -> tuple[int, Needs]:
    found = wanted_nodes(spec(0, 9), Demand(running=calls), current, needs, NOW + timedelta(seconds=seconds))
    return found.nodes, found.needs


def test_a_need_counts_from_its_end_also_where_nobody_looked_meanwhile() -> None:
    wanted, needs = look((), 3, 0, 0)
    wanted, needs = look(needs, 0, wanted, 3600)  # one long call, and no look while it ran
    assert wanted == 3
    wanted, needs = look(needs, 0, wanted, 3600 + IDLE - 1)
    assert wanted == 3
    assert look(needs, 0, wanted, 3600 + IDLE)[0] == 0


def test_what_is_remembered_is_bounded_by_the_levels_of_need() -> None:
    needs: Needs = ()
    for second in range(1000):
        _, needs = look(needs, second % 10, 9, second / 100)
        assert [each.nodes for each in needs] == sorted({each.nodes for each in needs}, reverse=True)


def test_the_next_look_is_when_a_need_ends() -> None:
    needs = (Need(3, ago(20)), Need(1, NOW))
    assert next_change(spec(0, 9), needs, NOW) == pytest.approx(IDLE - 20)
    assert next_change(spec(3, 9), needs, NOW) is None
    assert next_change(spec(0, 9), needs[1:], NOW) is None


def test_calls_that_are_not_known_yet_release_nothing() -> None:
    """After a start of the operator: what was wanted stays, however long it takes to catch up."""
    needs: Needs = ()
    for second in (0, 10 * IDLE):
        found = wanted_nodes(spec(0, 9), None, 4, needs, NOW + timedelta(seconds=second))
        needs = found.needs
        assert found.nodes == 4
    shrinking = decide(seen(elastic(status={"desiredNodes": 3}), node(0), node(1), node(2), demand=None), NOW)
    assert (shrinking.actions, shrinking.again) == ((), 1.0)


def test_who_is_idle_is_known_before_a_pool_that_was_scaled_down_releases_anybody() -> None:
    smaller = seen(pool(1), *map(node, range(3)), demand=None)
    assert (decide(smaller, NOW).actions, decide(smaller, NOW).again) == ((), 1.0)
    suspended = seen(pool(1, suspend=True), *map(node, range(3)), demand=None)
    assert deleted(decide(suspended, NOW)) == ["n2-0", "n1-0"]


def test_a_start_of_the_operator_begins_the_idle_time_anew() -> None:
    found = wanted_nodes(spec(0, 9), Demand(), 4, (), NOW)
    assert found.nodes == 4
    after = wanted_nodes(spec(0, 9), Demand(), 4, found.needs, NOW + timedelta(seconds=IDLE))
    assert after.nodes == 0


def test_slots_of_a_node_count_in_scaling() -> None:
    assert needed_nodes(Demand(queued=9), 4) == 3


BOUND = [
    # queued and running, bound, slots, held, needed
    (0, {0: 50}, 1, {0}, 1),
    (0, {2: 1}, 1, set(), 2),
    (0, {2: 1}, 1, {0, 1, 2}, 2),
    (4, {2: 9}, 2, {0, 1, 2}, 3),
    (0, {2: 1}, 1, {0, 1}, 3),
]


@pytest.mark.parametrize(("calls", "bound", "slots", "held", "needed"), BOUND)
def test_calls_bound_to_a_rank_need_that_rank_only(
    calls: int, bound: dict[int, int], slots: int, held: set[int], needed: int
) -> None:
    assert needed_nodes(Demand(queued=calls, bound=bound), slots, held) == needed


def elastic(desired: int = 0, most: int = 8, status: dict[str, Any] | None = None, **more: Any) -> Any:
    return pool(nodes={"desired": desired, "max": most}, status=status, **more)


def idle_for(seconds: float, nodes: int = 0) -> Memory:
    """What is remembered where so many nodes were enough for so long."""
    return Memory(wanted=9, needs=(Need(9, ago(seconds)), Need(nodes, NOW)))


def if_idle(decision: Decision) -> dict[str, bool]:
    return {a.name: a.if_idle for a in decision.actions if isinstance(a, DeleteNode)}


def test_who_has_been_idle_longest_goes_first() -> None:
    memory = Memory(
        wanted=4,
        needs=(Need(4, ago(IDLE)), Need(2, NOW)),
        busy_at={"n1-0": ago(500), "n2-0": ago(900), "n3-0": ago(70)},
    )
    nodes = [node(rank, ready_time=ago(3600)) for rank in range(4)]
    decision = decide(seen(elastic(), *nodes, memory=memory, demand=Demand(running=2)), NOW)
    assert if_idle(decision) == {"n2-0": True, "n1-0": True}


def test_a_node_that_came_late_has_not_been_idle_for_long() -> None:
    memory = Memory(wanted=3, needs=(Need(3, ago(IDLE)), Need(2, NOW)))
    nodes = [node(0), node(1, ready_time=ago(900)), node(2, ready_time=ago(5))]
    decision = decide(seen(elastic(), *nodes, memory=memory, demand=Demand(running=2)), NOW)
    assert deleted(decision) == ["n1-0"]


def test_a_node_that_runs_something_stays_and_keeps_its_rank() -> None:
    demand = Demand(running=1, busy=frozenset({"n3-0"}))
    decision = decide(seen(elastic(), *map(node, range(4)), memory=idle_for(IDLE), demand=demand), NOW)
    assert deleted(decision) == ["n2-0", "n1-0"]  # not the head, while rank 3 lives
    left = seen(elastic(), node(0), node(3), memory=decision.memory, demand=demand)
    assert decide(left, NOW).actions == ()


def test_where_every_node_runs_something_none_goes() -> None:
    busy = frozenset({"n0-0", "n1-0", "n2-0"})
    demand = Demand(running=3, busy=busy, tasks=1)
    made = elastic(worker={"concurrency": 4})
    decision = decide(seen(made, *map(node, range(3)), memory=idle_for(IDLE), demand=demand), NOW)
    assert (decision.wanted, decision.actions, decision.again) == (1, (), 1.0)


def test_who_lowers_max_releases_busy_nodes_after_the_idle_ones() -> None:
    demand = Demand(running=2, busy=frozenset({"n1-0", "n3-0"}))
    lowered = elastic(most=2, status={"desiredNodes": 4})
    decision = decide(seen(lowered, *map(node, range(4)), demand=demand), NOW)
    assert if_idle(decision) == {"n2-0": True, "n3-0": False}


def test_who_scales_a_pool_down_releases_its_idle_nodes() -> None:
    demand = Demand(running=1, busy=frozenset({"n3-0"}))
    assert deleted(decide(seen(pool(2), *map(node, range(4)), demand=demand), NOW)) == ["n2-0", "n1-0"]


def test_what_is_not_bought_goes_before_what_is_made_and_what_is_ready() -> None:
    nodes = [node(0), node(1), node(2, "Bootstrapping"), node(3, "Pending"), node(4)]
    decision = decide(seen(elastic(), *nodes, memory=idle_for(IDLE, 2), demand=Demand(running=3)), NOW)
    assert deleted(decision) == ["n3-0", "n2-0"]


def test_nodes_in_the_making_count() -> None:
    nodes = [node(0, "Pending"), node(1, "Launching"), node(2, "Bootstrapping")]
    for _ in range(3):
        assert decide(seen(elastic(), *nodes, demand=Demand(queued=3)), NOW).actions == ()


def test_free_ranks_are_filled_from_the_lowest() -> None:
    assert created(decide(seen(elastic(), node(0), node(3), demand=Demand(queued=4)), NOW)) == [
        (1, 0),
        (2, 0),
    ]


def test_a_lost_rank_is_made_again_where_lower_ones_are_free() -> None:
    lost = node(4, "Failed", ready_time=ago(5))
    decision = decide(seen(elastic(), node(0), lost, demand=Demand(running=2)), NOW)
    assert created(decision) == [(4, 1)]


def test_a_rank_that_calls_wait_for_is_made_first() -> None:
    demand = Demand(bound={5: 3}, tasks=1)
    assert created(decide(seen(elastic(), demand=demand), NOW)) == [(0, 0), (5, 0)]
    assert created(decide(seen(elastic(), node(0), node(1), demand=demand), NOW)) == [(5, 0)]


def test_a_rank_that_calls_are_bound_to_goes_after_others() -> None:
    demand = Demand(running=1, bound={2: 1}, busy=frozenset())
    decision = decide(seen(elastic(), *map(node, range(4)), memory=idle_for(IDLE), demand=demand), NOW)
    assert deleted(decision) == ["n3-0", "n1-0"]


def test_a_node_of_a_rank_too_many_makes_room_for_one_that_calls_wait_for() -> None:
    """A pool that was scaled down while rank 3 was busy has ranks 0 and 3; rank 1 is one of its two."""
    waits = Demand(bound={1: 1}, tasks=1)
    busy = Demand(running=1, bound={1: 1}, busy=frozenset({"n3-0"}), tasks=1)
    assert decide(seen(pool(2), node(0), node(3), demand=busy), NOW).actions == ()
    assert decide(seen(pool(2), node(0), node(3), demand=busy), NOW).again == 1.0
    assert if_idle(decide(seen(pool(2), node(0), node(3), demand=waits), NOW)) == {"n3-0": True}
    assert created(decide(seen(pool(2), node(0), demand=waits), NOW)) == [(1, 0)]


def test_the_head_goes_last_of_all_and_only_if_it_is_idle() -> None:
    to_zero = idle_for(IDLE)
    both = seen(elastic(), node(0), node(1), memory=to_zero)
    assert deleted(decide(both, NOW)) == ["n1-0"]
    assert deleted(decide(seen(elastic(), node(0), node(1, deleting=True), memory=to_zero), NOW)) == []
    assert if_idle(decide(seen(elastic(), node(0), memory=to_zero), NOW)) == {"n0-0": True}
    held = Demand(busy=frozenset({"n0-0"}), tasks=1)  # a result there is not durable yet
    assert deleted(decide(seen(elastic(), node(0), memory=to_zero, demand=held), NOW)) == []


def test_without_a_head_the_others_go_all_the_same() -> None:
    assert deleted(decide(seen(elastic(), node(1), memory=idle_for(IDLE)), NOW)) == ["n1-0"]


def test_a_pool_with_tasks_is_looked_at_again_and_one_without_only_when_it_shrinks() -> None:
    assert decide(seen(elastic(), demand=Demand(tasks=1)), NOW).again == 1.0
    assert decide(seen(elastic()), NOW).again is None
    waits = Memory(wanted=2, needs=(Need(2, ago(50)), Need(0, ago(40))))
    assert decide(seen(elastic(), node(0), node(1), memory=waits), NOW).again == pytest.approx(10)


def test_pool_says_what_it_decided_and_why() -> None:
    made = elastic(desired=1, most=3, status={"desiredNodes": 1})
    observation = seen(made, node(0), demand=Demand(queued=4, running=1))
    status = pool_status(observation, decide(observation, NOW), NOW)
    assert status["scaling"] == {
        "fromNodes": 1,
        "toNodes": 3,
        "reason": "ScalingUp",
        "message": "from 1 to 3 nodes: 5 calls could use 5; spec.nodes.max is 3",
        "time": "2026-01-01T00:00:00Z",
    }
    observation = seen(elastic(1, 9), node(0), node(1), memory=idle_for(IDLE))
    said = scaling(observation, decide(observation, NOW))
    assert said is not None
    assert said["message"] == "from 9 to 1 node: fewer were enough for 60 s; spec.nodes.desired is 1"
    observation = seen(pool(2, suspend=True, status={"desiredNodes": 2}), node(0), node(1))
    said = scaling(observation, decide(observation, NOW))
    assert said is not None
    assert said["message"] == "from 2 to 0 nodes: spec.suspend is true"


def test_pool_says_nothing_of_scaling_that_did_not_happen() -> None:
    observation = seen(elastic(status={"desiredNodes": 2}), node(0), node(1), demand=Demand(running=2))
    assert "scaling" not in pool_status(observation, decide(observation, NOW), NOW)


def usable(*nodes: Any, made: Any, **more: Any) -> bool:
    observation = seen(made, *nodes, **more)
    return bool(pool_status(observation, decide(observation, NOW), NOW)["usable"])


def test_a_pool_that_makes_nodes_for_calls_takes_calls_without_nodes() -> None:
    assert usable(made=elastic())
    assert not usable(made=elastic(desired=1))
    assert not usable(made=elastic(suspend=True))
    assert not usable(made=elastic(deleted=True))
    assert not usable(made=pool(0))
    assert not usable(node(0, "Failed", reason="PackageNotFound"), made=elastic(), demand=Demand(queued=1))


def test_enough_nodes_make_a_pool_usable() -> None:
    some = pool(nodes={"desired": 4, "min": 2, "max": 8})
    assert not usable(node(0), made=some)
    assert usable(node(0), node(1), made=some)


def test_a_pool_that_makes_its_first_node_for_a_call_says_how_far_it_is() -> None:
    first = Demand(queued=1, tasks=1)
    assert state(node(0, "Launching"), made=elastic(), demand=first)[:2] == ("Provisioning", "Launching")
    failed = state(node(0, "Failed", reason="BootstrapFailed", message="no"), made=elastic(), demand=first)
    assert failed[:2] == ("Pending", "BootstrapFailed")
    grows = state(node(0), node(1, "Launching"), made=elastic(), demand=Demand(queued=1, running=1))
    assert grows[:2] == ("Ready", "ScalingUp")


def test_pool_that_shrinks_says_what_becomes_of_its_nodes() -> None:
    two = idle_for(IDLE, 2)
    going = state(node(0), node(1), node(2, deleting=True), made=elastic(2), memory=two)
    assert going == ("Ready", "ScalingDown", "2 of 2 nodes ready: 1 being released")
    busy = Demand(running=1, busy=frozenset({"n1-0", "n2-0"}))
    kept = state(*map(node, range(3)), made=elastic(), memory=idle_for(IDLE), demand=busy)
    assert kept[2] == "3 nodes ready, 1 wanted: 3 nodes, of which those that are idle go"
    last = state(node(0, deleting=True), made=elastic(), memory=idle_for(IDLE))
    assert last == ("Ready", "ScalingDown", "no node wanted: 1 being released")
