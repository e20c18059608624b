"""The scheduler: its rules one by one, and what must hold whatever happens."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skyward_operator.tasks.lanes import Job
from skyward_operator.tasks.ranges import Span
from skyward_operator.tasks.scheduler import Assignment, Flight, Scheduler

if TYPE_CHECKING:
    from random import Random


def pool(*slots: int, quorum: int = 1) -> Scheduler:
    scheduler = Scheduler(quorum)
    for rank, count in enumerate(slots):
        scheduler.add_node(f"n{rank}", rank, count)
    return scheduler


def single(uid: str, **options: Any) -> Job:
    return Job(uid, pending=(Span(0),), **options)


def many(uid: str, count: int, **options: Any) -> Job:
    return Job(uid, pending=(Span(0, count),), **options)


def test_single_call_goes_to_a_free_slot() -> None:
    scheduler = pool(1)
    scheduler.submit(single("a"))
    assert scheduler.assign() == [Assignment("a", 0, "n0")]
    assert scheduler.assign() == []


def test_calls_spread_over_nodes_before_they_share_one() -> None:
    scheduler = pool(2, 2)
    scheduler.submit(many("a", 3))
    assert Counter(a.node for a in scheduler.assign()) == {"n0": 2, "n1": 1}


def test_call_waits_until_a_slot_is_released() -> None:
    scheduler = pool(1)
    scheduler.submit(single("a"))
    scheduler.submit(single("b"))
    assert [a.uid for a in scheduler.assign()] == ["a"]
    assert scheduler.release("a", 0)
    assert [a.uid for a in scheduler.assign()] == ["b"]


def test_map_fills_the_buffer_after_the_slots() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(many("a", 20, buffer=2))
    assert Counter(a.node for a in scheduler.assign()) == {"n0": 3, "n1": 3}
    scheduler.release("a", 0)
    assert len(scheduler.assign()) == 1


def test_single_call_never_waits_on_a_node() -> None:
    scheduler = pool(1)
    scheduler.submit(many("a", 3, buffer=2))
    scheduler.submit(single("b"))
    assert [a.uid for a in scheduler.assign()] == ["a"]
    scheduler.release("a", 0)
    assert [a.uid for a in scheduler.assign()] == ["b", "a"]


def test_single_call_goes_before_the_rest_of_a_large_map() -> None:
    scheduler = pool(1)
    scheduler.submit(many("map", 1000))
    scheduler.assign()
    scheduler.submit(single("quick"))
    scheduler.release("map", 0)
    order = [scheduler.assign()[0].uid]
    scheduler.release(order[0], 1 if order[0] == "map" else 0)
    order.append(scheduler.assign()[0].uid)
    assert "quick" in order


def test_equal_tasks_start_in_order_of_arrival() -> None:
    scheduler = pool(1)
    for uid in "abcd":
        scheduler.submit(single(uid))
    order = []
    while assignments := scheduler.assign():
        order.append(assignments[0].uid)
        scheduler.release(order[-1], 0)
    assert order == list("abcd")


def test_higher_priority_goes_first() -> None:
    scheduler = pool(1)
    scheduler.submit(single("low", priority=-1))
    scheduler.submit(single("high", priority=5))
    assert [a.uid for a in scheduler.assign()] == ["high"]


def test_parallelism_bounds_a_job() -> None:
    scheduler = pool(4)
    scheduler.submit(many("a", 10, parallelism=2))
    assert len(scheduler.assign()) == 2
    scheduler.release("a", 0)
    assert scheduler.assign() == [Assignment("a", 2, "n0")]


def test_pinned_call_runs_on_its_rank_only() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(single("a", rank=1))
    scheduler.submit(single("b", rank=1))
    assert scheduler.assign() == [Assignment("a", 0, "n1")]
    scheduler.release("a", 0)
    assert scheduler.assign() == [Assignment("b", 0, "n1")]


def test_pinned_call_waits_for_its_rank_to_exist() -> None:
    scheduler = pool(1)
    scheduler.submit(single("a", rank=3))
    assert scheduler.assign() == []
    scheduler.add_node("n3", 3, 1)
    assert scheduler.assign() == [Assignment("a", 0, "n3")]


def test_pinned_map_shares_its_node_with_others() -> None:
    scheduler = pool(1)
    scheduler.submit(many("pinned", 100, rank=0))
    scheduler.submit(single("free"))
    seen = []
    for _ in range(3):
        (assignment,) = scheduler.assign()
        seen.append(assignment.uid)
        scheduler.release(assignment.uid, assignment.index)
    assert "free" in seen


def test_broadcast_starts_on_all_nodes_at_once() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(single("busy"))
    assert scheduler.assign() == [Assignment("busy", 0, "n0")]
    scheduler.submit(single("all", gang=True))
    assert scheduler.assign() == []
    scheduler.release("busy", 0)
    assert scheduler.assign() == [Assignment("all", 0, "n0"), Assignment("all", 1, "n1")]


def test_broadcast_keeps_freed_slots_from_later_calls() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(single("busy"))
    scheduler.assign()
    scheduler.submit(single("all", gang=True))
    scheduler.submit(single("later"))
    assert scheduler.assign() == []
    scheduler.release("busy", 0)
    assert {a.uid for a in scheduler.assign()} == {"all"}


def test_calls_behind_a_waiting_broadcast_have_all_slots_but_one_per_node() -> None:
    scheduler = pool(2, 3, 1)
    for each in range(2):
        scheduler.submit(single(f"busy{each}", rank=0))
    assert len(scheduler.assign()) == 2
    scheduler.submit(single("all", gang=True))
    scheduler.submit(many("map", 5, buffer=2))
    scheduler.submit(single("pinned", rank=1))
    assert [a.node for a in scheduler.assign()] == ["n1", "n1"]
    assert scheduler.occupancy().kept == 2
    scheduler.release("busy0", 0)
    assert Counter(a.uid for a in scheduler.assign() if a.uid == "all") == {"all": 3}
    assert scheduler.occupancy().kept == 0


def test_higher_priority_goes_before_a_waiting_broadcast() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(single("busy"))
    scheduler.assign()
    scheduler.submit(single("all", gang=True))
    scheduler.submit(single("urgent", priority=1))
    assert [a.uid for a in scheduler.assign()] == ["urgent"]


@given(
    slots=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    jobs=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.booleans()), max_size=8),
    behind=st.integers(1, 40),
    order=st.randoms(use_true_random=False),
)
def test_nobody_starves_where_broadcasts_wait(
    slots: list[int], jobs: list[tuple[int, int, bool]], behind: int, order: Random
) -> None:
    """A broadcast starts no later than what was on its nodes before it has ended, whoever is behind it; and
    while it waits, no slot is free that is not kept for it."""
    scheduler = pool(*slots)
    for number, (count, buffer, gang) in enumerate(jobs):
        job = single(f"g{number}", gang=True) if gang else many(f"j{number}", count, buffer=buffer)
        scheduler.submit(job)
    flying = {(each.uid, each.index) for each in scheduler.assign()}
    scheduler.submit(single("all", gang=True))
    scheduler.submit(many("behind", behind))
    while True:
        flying |= {(each.uid, each.index) for each in scheduler.assign()}
        if not scheduler.waiting("all"):
            break
        mine = {(uid, index) for uid, index in flying if uid != "behind"}
        assert mine, "it waits for nobody but those behind it"
        used = scheduler.occupancy()
        if scheduler.waiting("behind"):
            assert used.slots - used.busy <= used.kept, "a slot is idle that nobody keeps"
        ended = order.choice(sorted(mine))
        flying.discard(ended)
        scheduler.release(*ended)
    while flying:  # and those behind it have their turn
        uid, index = flying.pop()
        scheduler.release(uid, index)
        flying |= {(each.uid, each.index) for each in scheduler.assign()}
    assert not scheduler.waiting("behind")


def test_broadcast_is_not_starved_by_a_map() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(many("map", 1000, buffer=2))
    flying = [(a.uid, a.index) for a in scheduler.assign()]
    scheduler.submit(single("all", gang=True))
    for step in range(100):
        uid, index = flying.pop(0)
        scheduler.release(uid, index)
        new = scheduler.assign()
        flying += [(a.uid, a.index) for a in new]
        if any(a.uid == "all" for a in new):
            assert step < 20
            return
    pytest.fail("the broadcast never started")


def test_two_broadcasts_start_one_after_the_other() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(single("first", gang=True))
    scheduler.submit(single("second", gang=True))
    assert {a.uid for a in scheduler.assign()} == {"first"}
    scheduler.release("first", 0)
    assert scheduler.assign() == []
    scheduler.release("first", 1)
    assert {a.uid for a in scheduler.assign()} == {"second"}


def test_broadcast_waits_for_its_quorum() -> None:
    scheduler = pool(1, quorum=2)
    scheduler.submit(single("all", gang=True))
    scheduler.submit(single("other"))
    assert scheduler.assign() == [Assignment("other", 0, "n0")]
    scheduler.add_node("n1", 1, 1)
    scheduler.release("other", 0)
    assert len(scheduler.assign()) == 2


def test_broadcast_indexes_are_dense_when_ranks_have_gaps() -> None:
    scheduler = Scheduler()
    for rank in (0, 4, 7):
        scheduler.add_node(f"n{rank}", rank, 1)
    scheduler.submit(single("all", gang=True))
    assert [(a.index, a.node) for a in scheduler.assign()] == [(0, "n0"), (1, "n4"), (2, "n7")]


def test_lost_node_gives_its_calls_back() -> None:
    scheduler = pool(2)
    scheduler.submit(many("a", 3))
    scheduler.assign()
    assert scheduler.remove_node("n0") == [Flight("a", 0), Flight("a", 1)]
    scheduler.requeue("a", 0)
    scheduler.requeue("a", 1)
    scheduler.add_node("n1", 0, 3)
    assert [a.index for a in scheduler.assign()] == [0, 1, 2]


def test_lost_member_of_a_broadcast_waits_for_its_rank() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(single("all", gang=True))
    scheduler.assign()
    scheduler.remove_node("n1")
    scheduler.requeue("all", 1, rank=1)
    scheduler.release("all", 0)
    assert scheduler.assign() == []
    scheduler.add_node("n1b", 1, 1)
    assert scheduler.assign() == [Assignment("all", 1, "n1b")]


def test_lost_member_of_a_broadcast_takes_any_node_when_not_pinned() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(single("all", gang=True))
    scheduler.assign()
    scheduler.remove_node("n1")
    scheduler.requeue("all", 1)
    assert scheduler.assign() == []
    scheduler.release("all", 0)
    assert scheduler.assign() == [Assignment("all", 1, "n0")]


def test_paused_node_gets_nothing_until_it_is_back() -> None:
    scheduler = pool(1)
    scheduler.pause_node("n0")
    scheduler.submit(single("a"))
    assert scheduler.assign() == []
    scheduler.add_node("n0", 0, 1)
    assert len(scheduler.assign()) == 1


def test_withdrawn_job_keeps_its_slots_until_released() -> None:
    scheduler = pool(1)
    scheduler.submit(many("a", 5))
    scheduler.assign()
    assert scheduler.withdraw("a") == [Assignment("a", 0, "n0")]
    scheduler.submit(single("b"))
    assert scheduler.assign() == []
    scheduler.release("a", 0)
    assert [a.uid for a in scheduler.assign()] == ["b"]


def test_adopted_call_takes_a_slot() -> None:
    scheduler = pool(1)
    scheduler.adopt("a", 4, "n0")
    scheduler.submit(Job("a", pending=(Span(5),), in_flight=1))
    assert scheduler.assign() == []
    scheduler.release("a", 4)
    assert scheduler.assign() == [Assignment("a", 5, "n0")]


def test_occupancy_counts_slots() -> None:
    scheduler = pool(2, 1)
    scheduler.submit(many("a", 10, buffer=1))
    scheduler.assign()
    occupancy = scheduler.occupancy()
    assert (occupancy.nodes, occupancy.slots, occupancy.busy) == (2, 3, 3)


def test_cost_of_an_assignment_does_not_grow_with_the_backlog() -> None:
    scheduler = pool(*[1] * 16)
    for number in range(20_000):
        scheduler.submit(single(f"t{number}"))
    looked_at = 0
    original = Scheduler._step

    def counted(self: Scheduler) -> list[Assignment]:
        nonlocal looked_at
        looked_at += 1
        return original(self)

    Scheduler._step = counted  # type: ignore[method-assign]
    try:
        flying = scheduler.assign()
        for _ in range(2_000):
            done = flying.pop(0)
            scheduler.release(done.uid, done.index)
            flying += scheduler.assign()
    finally:
        Scheduler._step = original  # type: ignore[method-assign]
    assert looked_at < 2 * (2_000 + 17)
    assert len(scheduler._load) < 64 + 4 * 16 + 2


def test_slice_is_as_large_as_tuned_and_smaller_towards_the_end() -> None:
    scheduler = pool(1)
    scheduler.submit(many("a", 40))
    sizes = []
    while assignments := scheduler.assign():
        (assignment,) = assignments
        sizes.append(assignment.count)
        scheduler.release("a", assignment.index)
        scheduler.tune("a", 0, 8)
    assert sum(sizes) == 40
    assert sizes[:3] == [1, 8, 8]
    assert sizes[-2:] == [1, 1]
    assert sorted(sizes[1:], reverse=True) == sizes[1:]


def test_slice_is_not_smaller_than_is_worth_it() -> None:
    scheduler = pool(1)
    scheduler.submit(many("a", 40, size=16, least=6))
    sizes = []
    while assignments := scheduler.assign():
        sizes.append(assignments[0].count)
        scheduler.release("a", assignments[0].index)
    assert (sum(sizes), min(sizes[:-1])) == (40, 6)


def test_slower_node_gets_smaller_slices() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(many("a", 1000, size=50))
    scheduler.tune_node("a", "n1", 5)
    scheduler.tune_node("a", "n0", 80)
    assert {a.node: a.count for a in scheduler.assign()} == {"n0": 50, "n1": 5}


def test_last_long_calls_wait_for_whoever_is_free_first() -> None:
    scheduler = pool(1, 1)
    scheduler.submit(many("a", 8, buffer=2))
    ahead = [a.index for a in scheduler.assign() if a.node == "n0"]
    assert len(ahead) == 3
    for index in ahead[:2]:
        scheduler.release("a", index)
        assert scheduler.assign() == []
    scheduler.release("a", ahead[2])
    assert [(a.index, a.node) for a in scheduler.assign()] == [(6, "n0")]


def test_slice_has_no_more_calls_than_fit() -> None:
    scheduler = pool(1)
    scheduler.submit(many("a", 100, size=64, fits=lambda first, count: min(count, 10 - first % 10)))
    (first,) = scheduler.assign()
    scheduler.advance("a", 0, 7)
    assert scheduler.node_of("a", 7) == first.node
    assert not scheduler.release("a", 0)
    assert scheduler.release("a", 7)
    assert (first.count, scheduler.assign()[0].index) == (10, 10)


def test_what_is_put_back_goes_first_and_in_one_slice() -> None:
    scheduler = pool(1)
    scheduler.submit(many("a", 100, size=4))
    scheduler.assign()
    scheduler.release("a", 0)
    scheduler.requeue("a", 1, 3)
    assert scheduler.assign() == [Assignment("a", 1, "n0", 3)]


def test_slots_of_many_nodes_share_what_is_left() -> None:
    scheduler = pool(*[1] * 10)
    scheduler.submit(many("a", 100, size=64))
    assert {assignment.count for assignment in scheduler.assign()} <= {3, 4, 5}


def test_slots_are_idle_only_where_nothing_waits_for_them() -> None:
    scheduler = pool(2, 2)
    scheduler.submit(many("a", 3))
    assert scheduler.idle() == 0
    scheduler.assign()
    assert scheduler.idle() == 1
    scheduler.submit(single("all", gang=True))
    assert scheduler.idle() == 0


class AnyHistory(RuleBasedStateMachine):
    """Jobs come, nodes come and go, calls end in any order: nothing is lost, doubled or overbooked."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.nodes: dict[str, tuple[int, int]] = {}
        self.flying: dict[tuple[str, int], str] = {}
        self.counts: dict[tuple[str, int], int] = {}
        self.waiting: dict[str, set[int]] = {}
        self.buffers: dict[str, int] = {}
        self.gangs: dict[str, int | None] = {}
        self.ended: set[tuple[str, int]] = set()
        self.counter = 0

    @initialize(slots=st.integers(1, 3))
    def begin(self, slots: int) -> None:
        self.node(slots=slots)

    @rule(slots=st.integers(1, 3))
    @precondition(lambda self: len(self.nodes) < 5)
    def node(self, slots: int) -> None:
        used = {rank for rank, _ in self.nodes.values()}
        rank = next(r for r in range(10) if r not in used)
        self.counter += 1
        self.nodes[f"n{self.counter}"] = rank, slots
        self.scheduler.add_node(f"n{self.counter}", rank, slots)

    @rule(
        count=st.integers(1, 40),
        buffer=st.integers(0, 2),
        priority=st.integers(0, 2),
        rank=st.none() | st.integers(0, 3),
        parallelism=st.none() | st.integers(1, 3),
        size=st.integers(1, 5),
    )
    def job(
        self, count: int, buffer: int, priority: int, rank: int | None, parallelism: int | None, size: int
    ) -> None:
        self.counter += 1
        uid = f"j{self.counter}"
        self.waiting[uid] = set(range(count))
        self.buffers[uid] = buffer if count > 1 else 0
        self.scheduler.submit(
            Job(uid, (Span(0, count),), priority, rank, parallelism=parallelism, buffer=self.buffers[uid])
        )
        self.scheduler.tune(uid, self.buffers[uid], size)

    @rule(priority=st.integers(0, 2))
    def broadcast(self, priority: int) -> None:
        self.counter += 1
        uid = f"g{self.counter}"
        self.gangs[uid] = None
        self.waiting[uid], self.buffers[uid] = set(), 0
        self.scheduler.submit(Job(uid, (Span(0),), priority, gang=True))

    @rule()
    def assign(self) -> None:
        assignments = self.scheduler.assign()
        starts: dict[str, list[Assignment]] = {}
        for each in assignments:
            key = each.uid, each.index
            for index in range(each.index, each.index + each.count):
                assert index not in self.aboard(each.uid), "a call was handed out twice at once"
                assert (each.uid, index) not in self.ended, "a call was handed out after its end"
                if each.uid in self.gangs and self.gangs[each.uid] is None:
                    starts.setdefault(each.uid, []).append(each)
                else:
                    assert index in self.waiting[each.uid], "an unknown call was handed out"
                    self.waiting[each.uid].remove(index)
            self.flying[key], self.counts[key] = each.node, each.count
        for uid, calls in starts.items():
            assert [call.node for call in calls] == sorted(self.nodes, key=lambda n: self.nodes[n][0])
            assert [call.index for call in calls] == list(range(len(self.nodes)))
            self.gangs[uid] = len(calls)

    def aboard(self, uid: str) -> set[int]:
        """The calls of a job that are on nodes."""
        return {
            index
            for (each, first), count in self.counts.items()
            if each == uid
            for index in range(first, first + count)
        }

    @rule(data=st.data())
    @precondition(lambda self: self.flying)
    def end(self, data: st.DataObject) -> None:
        uid, first = key = data.draw(st.sampled_from(sorted(self.flying)))
        node, count = self.flying.pop(key), self.counts.pop(key)
        ended = data.draw(st.integers(1, count))
        self.ended.update((uid, index) for index in range(first, first + ended))
        if ended == count:
            assert self.scheduler.release(*key)
            return
        self.scheduler.advance(uid, first, first + ended)
        self.flying[uid, first + ended], self.counts[uid, first + ended] = node, count - ended

    @rule(data=st.data())
    @precondition(lambda self: self.flying)
    def retry(self, data: st.DataObject) -> None:
        uid, first = key = data.draw(st.sampled_from(sorted(self.flying)))
        del self.flying[key]
        count = self.counts.pop(key)
        self.scheduler.release(*key)
        self.waiting[uid].update(range(first, first + count))
        rank = data.draw(st.none() | st.integers(0, 3))
        if rank is None:
            self.scheduler.requeue(uid, first, count)
        else:
            for index in range(first, first + count):
                self.scheduler.requeue(uid, index, rank=rank)

    @rule(data=st.data())
    @precondition(lambda self: any(count > 1 for count in self.counts.values()))
    def give_back(self, data: st.DataObject) -> None:
        uid, first = key = data.draw(st.sampled_from(sorted(k for k, n in self.counts.items() if n > 1)))
        back = data.draw(st.integers(1, self.counts[key] - 1))
        self.counts[key] -= back
        begin = first + self.counts[key]
        self.waiting[uid].update(range(begin, begin + back))
        self.scheduler.requeue(uid, begin, back)

    @rule(data=st.data())
    @precondition(lambda self: len(self.nodes) > 1)
    def lose(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.nodes)))
        del self.nodes[name]
        lost = {(flight.uid, flight.index) for flight in self.scheduler.remove_node(name)}
        assert lost == {key for key, node in self.flying.items() if node == name}
        for uid, index in sorted(lost):
            del self.flying[uid, index]
            count = self.counts.pop((uid, index))
            self.waiting[uid].update(range(index, index + count))
            if uid in self.gangs:
                self.scheduler.requeue(uid, index)
            else:
                self.scheduler.requeue(uid, index, count)

    @invariant()
    def slots_are_respected(self) -> None:
        for name, (_, slots) in self.nodes.items():
            held = [uid for (uid, _), node in self.flying.items() if node == name]
            assert len(held) == len(self.scheduler.in_flight(name))
            assert len(held) <= slots * (1 + max((self.buffers[uid] for uid in held), default=0))
            assert sum(self.buffers[uid] == 0 for uid in held) <= slots

    def teardown(self) -> None:
        """Let everything end: every call must have had its turn."""
        if not self.nodes:
            return
        for rank in range(4):
            if rank not in {r for r, _ in self.nodes.values()}:
                self.counter += 1
                self.nodes[f"n{self.counter}"] = rank, 1
                self.scheduler.add_node(f"n{self.counter}", rank, 1)
        for _ in range(1000):
            self.assign()
            if not self.flying:
                break
            for key in list(self.flying):
                del self.flying[key]
                self.scheduler.release(*key)
                first, count = key[1], self.counts.pop(key)
                self.ended.update((key[0], index) for index in range(first, first + count))
        assert not any(self.waiting.values()), f"calls were lost: {self.waiting}"
        assert all(size is not None for size in self.gangs.values()), "a broadcast never started"


AnyHistory.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase
