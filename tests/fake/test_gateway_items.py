"""Streams of open calls through the operator: items and credit pass, breaks are mended, none begins twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.cluster_fakes import until
from tests.fake.test_gateway import World
from tests.fake.test_gateway_session import FUNCTION, Client, client, open_task, status

from skyward.wire.digest import digest
from skyward.wire.frames import Frame, FrameKind, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


async def stream(one: Client, **more: Any) -> None:
    await one.say(FrameKind.FUNCTION, FUNCTION, digest=digest(FUNCTION))
    await one.say(FrameKind.CALL, b"args", index=0, function=digest(FUNCTION), stream=True, **more)


async def test_items_pass_to_the_client_and_its_credit_to_the_node(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await stream(one, inputs=1)
        await until(lambda: node.calls)
        assert (node.calls[0][0]["stream"], node.calls[0][0]["inputs"]) == (True, 1)
        attempt = node.waiting()[0]
        node.streams(FrameKind.ITEM, body=b"item", seq=0, more=True)
        item = await one.hears(FrameKind.ITEM)
        assert (item.header, item.body) == ({"index": 0, "number": 1, "seq": 0, "more": True}, b"item")
        node.streams(FrameKind.NEED, input=0, taken=0)
        assert (await one.hears(FrameKind.NEED)).header["taken"] == 0
        await one.say(FrameKind.CREDIT, index=0, number=1, taken=1)
        await one.say(FrameKind.INPUT, b"given", index=0, number=1, input=0, seq=0)
        await until(lambda: len(node.passed_on) == 2)
        credit, given = node.passed_on
        assert (credit.kind, credit.header) == (FrameKind.CREDIT, {"attempt": attempt, "taken": 1})
        assert given.header == {"attempt": attempt, "input": 0, "seq": 0}
        assert given.body == b"given"


async def test_items_without_a_client_are_dropped_and_asked_for_by_the_next_connection(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await stream(one)
        await until(lambda: node.calls)
    await until(lambda: not world.tasks.gateway_backend.ledger.named("default", "task").open.caller)  # type: ignore[union-attr]
    node.streams(FrameKind.ITEM, seq=0)
    async with client(world) as two:
        await two.hello(1, open="0")
        await stream(two)
        await two.say(FrameKind.CREDIT, index=0, taken=0, replay=True)
        await until(lambda: node.passed_on)
        assert node.passed_on[0].header["replay"]
        node.streams(FrameKind.ITEM, seq=0)
        assert (await two.hears(FrameKind.ITEM)).header["seq"] == 0
    assert len(node.calls) == 1


async def test_node_that_answers_again_is_told_what_was_taken(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await stream(one)
        await until(lambda: node.calls)
        node.streams(FrameKind.ITEM, seq=0)
        await one.hears(FrameKind.ITEM)
        await one.say(FrameKind.CREDIT, index=0, number=1, taken=1)
        await until(lambda: node.passed_on)
        node.down()
        node.up()
        assert node.passed_on[-1].header["taken"] == 1
        assert node.passed_on[-1].header["replay"]


async def test_call_of_which_nothing_came_runs_again_on_another_node(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await stream(one)
        await until(lambda: node.calls)
        node.die()
        other = world.node()
        await until(lambda: other.calls)
        other.streams(FrameKind.ITEM, seq=0)
        assert (await one.hears(FrameKind.ITEM)).header["number"] == 2
        await one.say(FrameKind.CREDIT, index=0, number=1, taken=7)  # of the attempt that is gone
        await one.say(FrameKind.CREDIT, index=0, number=2, taken=1)
        await until(lambda: other.passed_on)
        assert [frame.header["taken"] for frame in other.passed_on] == [1]


async def test_call_of_which_items_came_fails_with_its_node(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await stream(one)
        await until(lambda: node.calls)
        node.streams(FrameKind.ITEM, seq=0)
        await one.hears(FrameKind.ITEM)
        node.die()
        other = world.node()
        told = await one.hears(FrameKind.RESULT)
        assert told.header["error"]["reason"] == "NodeLost"
        assert "not tried again" in told.header["error"]["message"]
        assert other.calls == []


async def test_call_of_which_items_came_is_not_begun_by_an_operator_that_never_saw_it(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello(1, open="0")
        await stream(one, begun=True)
        assert (await one.hears(FrameKind.RESULT)).header["error"]["reason"] == "NodeLost"
    assert node.calls == []


async def test_exception_is_retried_only_before_the_first_item(world: World) -> None:
    await open_task(world, retry={"onException": 5, "backoffSeconds": 0})
    node = world.node()
    error = {"type": "OSError", "message": "", "kind": "User", "reason": "UserException"}
    async with client(world) as one:
        await one.hello()
        await stream(one)
        await until(lambda: node.calls)
        node.finish(error=error)
        await until(lambda: len(node.calls) == 2)
        node.streams(FrameKind.ITEM, seq=0)
        node.finish(error=error)
        assert (await one.hears(FrameKind.RESULT)).header["error"]["type"] == "OSError"
    assert len(node.calls) == 2


async def test_reader_that_left_is_told_to_the_node_and_a_call_that_waits_is_cancelled(world: World) -> None:
    await open_task(world)
    async with client(world) as one:
        await one.hello()
        await stream(one)
        await one.say(FrameKind.CREDIT, index=0, taken=0, close=True)
        assert (await one.hears(FrameKind.RESULT)).header["error"]["reason"] == "Cancelled"
        node = world.node()
        await one.say(FrameKind.CALL, b"", index=1, function=digest(FUNCTION), stream=True)
        await until(lambda: node.calls)
        await one.say(FrameKind.CREDIT, index=1, number=1, taken=0, close=True)
        await until(lambda: node.passed_on)
        assert node.passed_on[0].header["close"]
        # Its grace is over: the agent has interrupted it, which is its end and no reason for another try.
        node.finish(error={"type": "CancelledError", "message": "", "kind": "User", "reason": "Cancelled"})
        assert (await one.hears(FrameKind.RESULT)).header["index"] == 1
        await one.say(FrameKind.ACK, indexes=[0, 1])
        await one.say(FrameKind.CLOSE, next=2)
        await one.left()
    await until(lambda: status(world).get("completionTime"))


@pytest.mark.parametrize(
    "header",
    [{"taken": -1}, {"taken": "1"}, {"taken": True}, {}, {"taken": 2**60}],
    ids=["negative", "text", "flag", "nothing", "huge"],
)
async def test_credit_that_makes_no_sense_costs_the_connection(world: World, header: dict[str, Any]) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await stream(one)
        await one.socket.send_bytes(encode(Frame(FrameKind.CREDIT, {"index": 0, "number": 1, **header})))
        assert await one.left() == 1008
    assert node.passed_on == []
