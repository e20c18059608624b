"""Nodes that take no more calls: what has not begun moves without a trace, what runs may end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import FakeNode, node_object, until
from tests.fake.test_tasks_dispatch import World, drive
from tests.fake.test_tasks_open_restarts import FUNCTION, Client

from skyward.contract.names import NODE
from skyward.wire.digest import digest
from skyward.wire.envelopes import parse_attempt
from skyward.wire.frames import FrameKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FIRST = ("default", "node-0")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        for rank in range(2):
            await made.api.create(NODE, node_object(f"node-{rank}", rank))
        yield made


async def test_a_call_that_runs_may_end_and_no_other_follows_it(world: World) -> None:
    await world.pool(2)
    leaving, other = world.node(0), world.node(1)
    await world.task(count=6)
    world.fleet.cordon(FIRST)
    (running,) = leaving.waiting()
    await drive(other)
    assert leaving.waiting() == [running]
    assert world.fleet.listener.busy(*FIRST)
    leaving.finish(running, body=b"value")
    status = await world.ends()
    assert (status["phase"], status["attempts"]["total"]) == ("Succeeded", 6)
    await until(lambda: not world.fleet.listener.busy(*FIRST))
    assert len(leaving.calls) == 1


async def test_what_has_not_begun_comes_back_and_is_no_interruption(world: World) -> None:
    await world.pool(worker={"concurrency": 1, "buffer": 3})
    leaving = world.node(0)
    uid = await world.task(count=40)
    leaving.finish()
    await until(lambda: any(attempt in leaving.counts for attempt in leaving.waiting()))
    held = leaving.waiting()
    world.fleet.cordon(FIRST)
    assert leaving.recalled == held
    begun, *waiting = held
    for attempt in reversed(waiting):
        leaving.give_back(attempt)
    other = world.node(1)
    await drive(other)
    leaving.finish_some(begun, [(b"value", None)] * leaving.counts.get(begun, 1))
    await drive(other)
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert (status["attempts"]["total"], status["attempts"]["interrupted"]) == (40, 0)
    assert sorted(index for index, _ in leaving.items() + other.items() if index >= 0)[-1] == 39
    assert len(world.outcomes(status, uid)) == 40


async def test_what_runs_to_the_end_of_the_machine_is_lost_and_on_record(world: World) -> None:
    await world.pool(2)
    leaving, other = world.node(0), world.node(1)
    uid = await world.task(count=2)
    world.fleet.cordon(FIRST)
    (lost,) = leaving.waiting()
    _, index, _ = parse_attempt(lost)
    leaving.die("Interrupted")
    await drive(other)
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert (status["attempts"]["total"], status["attempts"]["interrupted"]) == (3, 1)
    (recent,) = status["attempts"]["recent"]
    assert (recent["index"], recent["cause"], recent["node"]) == (index, "Interrupted", "node-0")
    assert (index, 2) in other.items()
    assert len(world.outcomes(status, uid)) == 2


async def test_a_call_that_must_not_be_repeated_is_indeterminate_only_if_it_had_begun(world: World) -> None:
    await world.pool(worker={"concurrency": 1, "buffer": 1})
    leaving = world.node(0, slots=1)
    await world.task("first", retry={"onInterruption": 0})
    world.fleet.cordon(FIRST)
    await world.task("second", retry={"onInterruption": 0})
    leaving.die("Interrupted")
    assert (await world.ends("first"))["reason"] == "Indeterminate"
    await drive(world.node(1))
    assert (await world.ends("second"))["phase"] == "Succeeded"


async def test_the_replacement_of_a_rank_has_its_calls_while_the_old_node_still_works(world: World) -> None:
    await world.pool(1)
    leaving = world.node(0)
    await world.task("runs")
    world.fleet.cordon(FIRST)
    await world.task("head", target={"mode": "Head"})
    new = FakeNode(world.fleet, "node-0-new", 0)
    new.up()
    assert len(new.waiting()) == 1
    context = new.calls[0][0]["context"]
    assert (context["node"], context["total_nodes"], context["id"]) == (0, 1, "node-0-new")
    leaving.down()
    leaving.draining = True
    leaving.up()  # back after a break: the rank stays where it is
    new.finish()
    assert (await world.ends("head"))["phase"] == "Succeeded"
    leaving.die("Interrupted")
    await world.task("again", target={"mode": "Head"})
    await drive(new)
    assert (await world.ends("again"))["phase"] == "Succeeded"
    assert (await world.ends("runs"))["attempts"]["interrupted"] == 1


async def test_a_broadcast_goes_on_with_a_member_that_leaves_as_its_policy_says(
    world: World,
) -> None:
    await world.pool(2)
    leaving, other = world.node(0), world.node(1)
    uid = await world.task(target={"mode": "All"})
    await until(lambda: leaving.waiting() and other.waiting())
    world.fleet.cordon(FIRST)
    other.finish(f"{uid}.1.1", body=b"second")
    leaving.die("Interrupted")
    await until(lambda: other.waiting() == [f"{uid}.0.2"])
    other.finish(body=b"first, again")
    status = await world.ends()
    assert status["phase"] == "Succeeded"
    assert status["attempts"]["recent"][0]["cause"] == "Interrupted"


async def test_a_broadcast_without_retries_ends_when_its_member_is_taken(world: World) -> None:
    await world.pool(2)
    leaving, other = world.node(0), world.node(1)
    uid = await world.task(target={"mode": "All"}, retry={"onInterruption": 0})
    await until(lambda: leaving.waiting() and other.waiting())
    world.fleet.cordon(FIRST)
    leaving.die("Interrupted")
    other.finish(f"{uid}.1.1", body=b"second")
    assert (await world.ends())["reason"] == "Indeterminate"


async def test_a_new_broadcast_waits_for_the_replacement(world: World) -> None:
    await world.pool(2)
    leaving, other = world.node(0), world.node(1)
    await world.task("runs", target={"mode": "Head"})
    world.fleet.cordon(FIRST)
    uid = await world.task("all", target={"mode": "All"})
    await world.says("AwaitingNodes", "all")
    assert other.waiting() == []
    new = FakeNode(world.fleet, "node-0-new", 0)
    new.up()
    await until(lambda: new.waiting() and other.waiting())
    assert all(f"{uid}." not in attempt for attempt in leaving.waiting())
    await drive(new, other)
    assert (await world.ends("all"))["phase"] == "Succeeded"


async def test_a_restarted_operator_hands_nothing_to_a_node_that_leaves(world: World) -> None:
    await world.pool(2)
    leaving, other = world.node(0), world.node(1)
    await world.task("first", target={"mode": "Head"})
    world.fleet.cordon(FIRST)
    await world.api.patch_status(NODE, "default", "node-0", {"phase": "Draining"})
    await world.restart(leaving, other)
    assert world.fleet.listener.busy(*FIRST)
    leaving.draining = True
    leaving.up()
    other.up()
    await world.task("second", count=3)
    await drive(other)
    assert len(leaving.waiting()) == 1
    leaving.finish()
    for name in ("first", "second"):
        status = await world.ends(name)
        assert (status["phase"], status["attempts"]["interrupted"]) == ("Succeeded", 0)


async def test_a_call_that_got_lost_on_its_way_to_a_node_that_leaves_goes_elsewhere(world: World) -> None:
    await world.pool(2)
    leaving, other = world.node(0), world.node(1)
    uid = await world.task()
    leaving.held.clear()  # the frame never arrived
    leaving.down()
    world.fleet.cordon(FIRST)
    leaving.draining = True
    leaving.up()
    await until(other.waiting)
    assert other.waiting() == [f"{uid}.0.1"]
    other.finish()
    status = await world.ends()
    assert (status["attempts"]["total"], status["attempts"]["interrupted"]) == (1, 0)


async def test_calls_of_an_executor_move_while_those_that_run_may_end(world: World) -> None:
    await world.pool(worker={"concurrency": 1, "buffer": 1})
    uid = await world.task(calls={"python": "3.13", "open": True})
    leaving, client = world.node(0), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    world.fleet.cordon(FIRST)
    client.call(world, uid, 1)
    assert leaving.waiting() == [f"{uid}.0.1"]
    other = world.node(1)
    assert other.waiting() == [f"{uid}.1.1"]
    leaving.finish(body=b"zero")
    other.finish(body=b"one")
    assert {index: outcome.body for index, outcome in client.told.items()} == {0: b"zero", 1: b"one"}
    client.say(world, uid, FrameKind.ACK, indexes=[0, 1])
    await until(lambda: not world.fleet.listener.busy(*FIRST))


async def test_a_call_of_an_executor_that_was_taken_is_tried_again_and_its_client_hears_it_once(
    world: World,
) -> None:
    await world.pool()
    uid = await world.task(calls={"python": "3.13", "open": True})
    leaving, client = world.node(0), Client()
    client.attach(world, uid)
    client.call(world, uid, 0)
    world.fleet.cordon(FIRST)
    leaving.die("Interrupted")
    other = world.node(1)
    assert other.waiting() == [f"{uid}.0.2"]
    other.finish(body=b"again")
    assert client.told[0].body == b"again"


async def test_a_generator_goes_on_while_its_node_leaves_and_breaks_off_when_it_is_taken(
    world: World,
) -> None:
    await world.pool()
    uid = await world.task(calls={"python": "3.13", "open": True})
    leaving, client = world.node(0), Client()
    client.attach(world, uid)
    client.call(world, uid)
    client.say(world, uid, FrameKind.CALL, b"args", index=0, function=digest(FUNCTION), stream=True)
    world.fleet.cordon(FIRST)
    credits = len(leaving.passed_on)
    leaving.streams(FrameKind.ITEM, body=b"item", seq=0)
    client.say(world, uid, FrameKind.CREDIT, index=0, number=1, taken=1)
    assert len(leaving.passed_on) > credits, "its reader is not heard any more"
    leaving.die("Interrupted")
    await until(lambda: client.told)
    error = client.told[0].error
    assert error is not None
    assert (error.reason, "(Interrupted)" in error.message) == ("NodeLost", True)
