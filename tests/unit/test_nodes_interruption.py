"""Tables of what is done about nodes that leave: announced by their provider, or not well."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.test_nodes_decide import (
    AGENT,
    CONNECTING,
    NOW,
    READY,
    kinds,
    machine,
    node,
    step,
    view,
    written,
)

from skyward.contract.node import ComputeNode
from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp
from skyward_operator.nodes.actions import (
    Again,
    Avoid,
    CloseSession,
    Cordon,
    Drain,
    Lose,
    StartSession,
    Write,
)
from skyward_operator.nodes.health import Member, cut_off, most_replaced, spared
from skyward_operator.nodes.interruption import ILL_GRACE, TAKEN_SLACK
from skyward_operator.nodes.observation import ABSENT, PATIENCE, Failure, Observation, Stage
from skyward_operator.nodes.status import status_patch
from skyward_operator.providers.contract import MachineState

SOON = NOW + timedelta(seconds=90)
LINKED = view(Stage.LINKED, agent=AGENT, admitted=True, cordoned=True)
LOST = view(Stage.CONNECTING, lost=NOW, trouble="refused")
INTERRUPTED: dict[str, Any] = {
    **READY,
    "phase": "Draining",
    "reason": "Interrupted",
    "interruption": {"noticeTime": timestamp(NOW), "deadline": timestamp(SOON), "source": "Machine"},
    "conditions": [
        {"type": "Drained", "status": "False", "reason": "Interrupted", "lastTransitionTime": timestamp(NOW)}
    ],
}
UNWELL: dict[str, Any] = {
    name: "Unhealthy" if name == "reason" else value
    for name, value in INTERRUPTED.items()
    if name != "interruption"
}
TAKEN = machine(MachineState.GONE, preempted=True, message="capacity was taken back")


@pytest.mark.parametrize(
    ("seen", "source"),
    [
        (Observation(session=replace(LINKED, notice=SOON)), "Machine"),
        (Observation(session=LINKED, notice=SOON), "Provider"),
        (Observation(session=replace(LINKED, notice=SOON), notice=SOON + timedelta(seconds=5)), "Machine"),
        (Observation(session=None, notice=SOON), "Provider"),
    ],
)
def test_a_notice_is_durable_before_the_node_is_cordoned(seen: Observation, source: str) -> None:
    actions = step(READY, seen)
    assert actions[:3] == [written(actions), Avoid(), Cordon(SOON)]
    write = written(actions)
    assert (write.phase, write.reason) == (NodePhase.DRAINING, NodeReason.INTERRUPTED)
    assert write.fields["interruption"]["source"] == source
    assert write.fields["interruption"]["deadline"] == timestamp(SOON)
    assert "90 s" in write.message


def test_a_notice_for_a_node_that_is_being_made_gives_it_up_at_once() -> None:
    seen = Observation(session=view(Stage.BOOTSTRAPPING), notice=SOON)
    actions = step(CONNECTING, seen)
    assert kinds(actions) == [Avoid, Write, CloseSession]
    assert written(actions).reason == NodeReason.INTERRUPTED


def test_a_node_that_leaves_waits_for_its_calls_also_after_the_announced_time() -> None:
    for later in (10, 89, 3600):
        assert step(INTERRUPTED, Observation(session=LINKED, busy=True), later) == [Again(1.0)]


def test_a_node_that_leaves_is_given_back_when_nothing_is_left_on_it() -> None:
    actions = step(INTERRUPTED, Observation(session=LINKED, busy=False), later=1)
    assert kinds(actions) == [Write, Lose, CloseSession]
    assert written(actions).phase == NodePhase.TERMINATING


def test_a_notice_that_is_heard_again_changes_nothing() -> None:
    seen = Observation(session=replace(LINKED, notice=SOON), notice=SOON, busy=True)
    assert step(INTERRUPTED, seen) == [Again(1.0)]


def test_a_restarted_operator_meets_the_node_and_cordons_it_again() -> None:
    assert step(INTERRUPTED, Observation(busy=True))[0] == StartSession(resume=True)
    fresh = replace(LINKED, cordoned=False)
    assert step(INTERRUPTED, Observation(session=fresh, busy=True))[0] == Cordon(SOON)


@pytest.mark.parametrize(
    ("seen", "later", "lost"),
    [
        (Observation(session=LOST, machine=TAKEN, busy=True), 91, NodeReason.INTERRUPTED),
        (Observation(session=LOST, machine=ABSENT, busy=True), 91, NodeReason.INTERRUPTED),
        (Observation(session=LOST, machine=machine(), busy=True), 89, None),
        (Observation(session=LOST, machine=machine(), busy=True), 91, NodeReason.INTERRUPTED),
        (Observation(session=LOST, machine=None, busy=True), 91, NodeReason.INTERRUPTED),
        (Observation(session=LOST, busy=True, patience=30), 31, NodeReason.HEARTBEAT_LOST),
        (
            Observation(session=replace(LOST, failure=Failure(NodeReason.HOST_KEY_MISMATCH, "x", True))),
            1,
            NodeReason.HOST_KEY_MISMATCH,
        ),
    ],
)
def test_a_node_that_leaves_is_lost_with_its_machine(
    seen: Observation, later: float, lost: NodeReason | None
) -> None:
    actions = step(INTERRUPTED, seen, later)
    assert [action.reason for action in actions if isinstance(action, Lose)] == ([lost] if lost else [])


def test_after_the_announced_time_a_short_silence_is_enough() -> None:
    broken = replace(LOST, lost=SOON)
    seen = Observation(session=broken, machine=machine(), busy=True)
    assert kinds(step(INTERRUPTED, seen, later=90 + TAKEN_SLACK - 1)) == []
    assert Lose in kinds(step(INTERRUPTED, seen, later=90 + TAKEN_SLACK + 1))


def test_a_notice_by_a_clock_that_is_an_hour_behind_takes_no_machine_at_once() -> None:
    long_ago = INTERRUPTED["interruption"] | {"deadline": timestamp(NOW - timedelta(hours=1))}
    seen = Observation(session=LOST, machine=machine(), busy=True)
    assert Lose not in kinds(step(INTERRUPTED | {"interruption": long_ago}, seen, later=20))
    assert Lose in kinds(step(INTERRUPTED | {"interruption": long_ago}, seen, later=31))


@pytest.mark.parametrize(
    ("gone", "reason"),
    [(TAKEN, NodeReason.PREEMPTED), (ABSENT, NodeReason.MACHINE_LOST)],
)
def test_a_machine_that_is_gone_without_notice_is_told_as_it_is(gone: Any, reason: NodeReason) -> None:
    actions = step(READY, Observation(session=LOST, machine=gone), later=5)
    assert written(actions).reason == reason
    assert (Avoid() in actions) is (reason is NodeReason.PREEMPTED)
    booting = step(CONNECTING, Observation(session=LOST, machine=gone), later=5)
    assert (written(booting).reason, Avoid() in booting) == (reason, Avoid() in actions)
    announced = step(INTERRUPTED, Observation(session=LOST, machine=gone, busy=True), later=5)
    assert Avoid() not in announced, "it is avoided since the notice"


def test_deleting_a_node_that_leaves_ends_it_as_any_other_with_its_grace_from_then_on() -> None:
    before = timestamp(NOW - timedelta(seconds=60))
    long_ago = [each | {"lastTransitionTime": before} for each in INTERRUPTED["conditions"]]
    status, seen = INTERRUPTED | {"conditions": long_ago}, Observation(session=LINKED, busy=True)
    assert kinds(step(status, seen, later=1, deleted=True)) == [Drain]
    assert Lose(NodeReason.NODE_DELETED) in step(status, seen, later=60, deleted=True)


def test_the_condition_says_who_takes_the_machine_and_stays_true() -> None:
    first = step(READY, Observation(session=LINKED, notice=SOON))
    write = written(first)
    patch = status_patch(node(READY), write.phase, write.reason, write.message, write.fields, NOW)
    (said,) = [each for each in patch["conditions"] if each["type"] == "Interrupted"]
    assert (said["status"], said["reason"]) == ("True", "Interrupted")
    assert "takes the machine back" in said["message"]
    after = ComputeNode.read({"metadata": {"name": "p"}, "spec": spec(), "status": READY | patch})
    later = status_patch(after, NodePhase.TERMINATING, NodeReason.INTERRUPTED, "", {}, NOW)
    assert [each["status"] for each in later["conditions"] if each["type"] == "Interrupted"] == ["True"]


def spec() -> dict[str, Any]:
    return node().spec.document() | {"poolRef": {"name": "p", "uid": "pu"}}


# Nodes that are not well


def test_an_unwell_node_leaves_and_its_calls_have_a_while() -> None:
    ill = replace(LINKED, ill="probe: exit status 3", cordoned=False)
    actions = step(READY, Observation(session=ill))
    assert kinds(actions) == [Write, Cordon]
    assert (written(actions).phase, written(actions).reason) == (NodePhase.DRAINING, NodeReason.UNHEALTHY)
    assert "exit status 3" in written(actions).message
    assert step(UNWELL, Observation(session=LINKED, busy=True), ILL_GRACE - 1) == [Again(1.0)]
    late = step(UNWELL, Observation(session=LINKED, busy=True), ILL_GRACE + 1)
    assert Lose(NodeReason.UNHEALTHY) in late


def test_nothing_is_replaced_while_the_cause_lies_elsewhere() -> None:
    ill = replace(LINKED, ill="probe: exit status 3")
    silent = replace(LOST, trouble="no route")
    for session, later in ((ill, 1.0), (silent, PATIENCE + 1)):
        actions = step(READY, Observation(session=session, spared="not replaced: 3 of 4"), later)
        assert kinds(actions) == [Write]
        assert (written(actions).phase, written(actions).reason) == (NodePhase.READY, NodeReason.UNHEALTHY)
        assert "3 of 4" in written(actions).message
        again = step(READY, Observation(session=session, spared="not replaced: 3 of 4"), later + 60)
        assert written(again) == written(actions), "the status would be written again and again"


@pytest.mark.parametrize(
    ("total", "percent", "most"),
    [(1, 40, 1), (2, 40, 1), (4, 40, 1), (5, 40, 2), (10, 40, 4), (10, 0, 0), (1, 0, 0), (3, 100, 3)],
)
def test_so_many_bad_nodes_are_replaced_at_once(total: int, percent: int, most: int) -> None:
    assert most_replaced(total, percent) == most
    silent = replace(LOST, lost=NOW - timedelta(seconds=61))

    def pool(bad: int) -> list[Member]:
        ready = NodePhase.READY
        return [Member(ready, "Reconnecting", silent)] * bad + [Member(ready, "AgentReady", LINKED)] * (
            total - bad
        )

    assert not spared(pool(most), percent, 60, NOW)
    if most < total:
        text = spared(pool(most + 1), percent, 60, NOW)
        assert f"{most + 1} of {total} nodes are bad" in text
        assert f"{percent}%" in text


def test_nodes_that_are_being_replaced_count_as_bad_until_they_are_gone() -> None:
    well = [Member(NodePhase.READY, "AgentReady", LINKED)] * 3
    ill = Member(NodePhase.READY, "AgentReady", replace(LINKED, ill="probe"))
    assert not spared([*well, ill], 40, 60, NOW)
    for phase, reason in (("Draining", "Unhealthy"), ("Failed", "HeartbeatLost")):
        assert spared([*well, ill, Member(phase, reason)], 30, 60, NOW)
    assert not spared([*well, ill, Member("Draining", "Interrupted")], 30, 60, NOW)


@pytest.mark.parametrize(
    ("silent", "heard", "is_cut_off"),
    [(1, 0, False), (2, 0, False), (3, 0, True), (3, 2, True), (3, 3, False), (10, 9, True), (3, 500, False)],
)
def test_most_nodes_of_all_pools_are_silent_only_when_the_operator_is_cut_off(
    silent: int, heard: int, is_cut_off: bool
) -> None:
    gone = replace(LOST, agent=AGENT, lost=NOW - timedelta(seconds=30))
    brief, new = replace(gone, lost=NOW - timedelta(seconds=3)), replace(gone, agent=None)
    sessions = [gone] * silent + [brief if number % 2 else LINKED for number in range(heard)] + [new] * 5
    assert bool(cut_off(sessions, 120, NOW)) is is_cut_off
    short = [replace(each, lost=each.lost and NOW - timedelta(seconds=6)) for each in sessions[:silent]]
    assert bool(cut_off([*short, *sessions[silent:]], 10, NOW)) is is_cut_off
    assert not cut_off([*short, *sessions[silent:]], 120, NOW)


def test_a_silent_node_that_leaves_is_kept_while_the_operator_is_cut_off() -> None:
    seen = Observation(session=LOST, busy=True, patience=30)
    assert Lose in kinds(step(UNWELL, seen, 31))
    assert Lose not in kinds(step(UNWELL, replace(seen, spared="most nodes are silent"), 31))


def test_a_node_whose_agent_was_not_heard_yet_is_not_bad() -> None:
    fresh = replace(LOST, lost=None)
    assert not spared([Member(NodePhase.READY, "AgentReady", fresh)] * 4, 0, 60, NOW)
