"""The session of an open task over a real WebSocket: calls in, outcomes out, and what a break changes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from tests.fake.cluster_fakes import until
from tests.fake.test_gateway import HASH, MINE, OTHERS, World

from skyward.contract.names import TASK
from skyward.wire.digest import digest
from skyward.wire.envelopes import PROTOCOL
from skyward.wire.frames import CHUNK, Decoder, Frame, FrameKind, encode
from skyward_operator.gateway import session
from skyward_operator.tasks import open as open_calls
from skyward_operator.tasks import reception

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FUNCTION = b"pickled function"
WHERE = "/v1/namespaces/default/tasks/task/session"


class Client:
    """The other end of a session."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    async def say(self, kind: FrameKind, body: bytes = b"", **header: Any) -> None:
        await self.socket.send_bytes(encode(Frame(kind, header, body)))

    async def hello(self, count: int = 0, **more: Any) -> None:
        await self.say(FrameKind.HELLO, protocol=PROTOCOL, next=count, **more)
        await self.hears(FrameKind.WELCOME)

    async def call(self, *indexes: int) -> None:
        await self.say(FrameKind.FUNCTION, FUNCTION, digest=digest(FUNCTION))
        for index in indexes:
            await self.say(FrameKind.CALL, f"args {index}".encode(), index=index, function=digest(FUNCTION))

    async def hears(self, kind: FrameKind) -> Frame:
        while True:
            for frame in self._frames:
                if frame.kind is kind:
                    self._frames.remove(frame)
                    return frame
            message = await self.socket.receive(10)
            assert message.type is aiohttp.WSMsgType.BINARY, message
            self._frames += self._decoder.feed(message.data)

    async def left(self) -> int | None:
        """Wait until the gateway has left; its code."""
        while not (await self.socket.receive(10)).type.name.startswith("CLOS"):
            pass
        return self.socket.close_code


@asynccontextmanager
async def client(world: World) -> AsyncIterator[Client]:
    async with world.http.ws_connect(world.url + WHERE, headers=MINE) as socket:
        yield Client(socket)


async def open_task(world: World, **spec: Any) -> str:
    body = {"poolRef": {"name": "pool"}, "calls": {"python": "3.13", "open": True}, "ticketHash": HASH}
    made = await world.api.create(
        TASK, {"metadata": {"namespace": "default", "name": "task"}, "spec": body | spec}
    )
    return str(made["metadata"]["uid"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


def status(world: World) -> dict[str, Any]:
    return world.api.status("task")


async def test_call_is_sent_and_its_outcome_told_before_anything_is_written(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(0)
        await until(lambda: node.calls)
        assert node.calls[0][1] == b"args 0"
        assert node.functions == {digest(FUNCTION): FUNCTION}
        attempt = node.finish(body=b"value")
        told = await one.hears(FrameKind.RESULT)
        assert (told.header["index"], told.header["ok"], told.body) == (0, True, b"value")
        assert node.acknowledged == []
        await one.say(FrameKind.ACK, indexes=[0])
        await until(lambda: node.acknowledged == [attempt])
        await one.say(FrameKind.CLOSE, next=1)
        assert await one.left() == 4000
    await until(lambda: status(world).get("phase") == "Succeeded")
    assert status(world)["counts"] == {"total": 1, "running": 0, "succeeded": 1, "failed": 0}
    assert "result" not in status(world)


async def test_outcome_that_nobody_took_is_told_to_the_next_connection(world: World) -> None:
    uid = await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(0)
        await until(lambda: node.calls)
    attempt = node.finish(body=b"value")
    # Nobody takes it: it is written down, and only then the agent may forget it.
    await until(lambda: node.acknowledged == [attempt])
    assert "results" in world.files(uid)
    async with client(world) as two:
        await two.hello(1, open="0")
        await two.call(0)
        told = await two.hears(FrameKind.RESULT)
        assert told.body == b"value"
    assert len(node.calls) == 1


async def test_call_under_way_is_not_sent_again_after_a_break(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(0, 1)
        await until(lambda: node.calls)
    async with client(world) as two:
        await two.hello(2, open="0-1")
        await two.call(0, 1)
        node.finish(body=b"first")
        assert (await two.hears(FrameKind.RESULT)).body == b"first"
        node.finish(body=b"second")
        # An outcome may be told twice, of its own accord and as an answer: its index tells.
        while (told := await two.hears(FrameKind.RESULT)).header["index"] != 1:
            assert told.body == b"first"
        assert told.body == b"second"
    assert [header["index"] for header, _ in node.calls] == [0, 1]


async def test_what_a_client_has_had_is_counted_by_an_operator_that_never_saw_it(world: World) -> None:
    await open_task(world)
    async with client(world) as one:
        await one.hello(10, open="4", failed="2,7-8")
        await one.say(FrameKind.CALL, b"", index=4, function=digest(FUNCTION))
        refused = await one.hears(FrameKind.REFUSED)
        assert (refused.header["index"], refused.header["reason"]) == (4, "FunctionMissing")
        await until(lambda: status(world).get("counts", {}).get("total") == 10)
        node = world.node()
        await one.call(4)
        await until(lambda: node.calls)
        node.finish()
        await one.hears(FrameKind.RESULT)
        await one.say(FrameKind.ACK, indexes=[4])
        await one.say(FrameKind.CLOSE, next=10)
        await one.left()
    await until(lambda: status(world).get("completionTime"))
    assert status(world)["counts"] == {"total": 10, "running": 0, "succeeded": 7, "failed": 3}
    assert status(world)["failedIndexes"] == "2,7-8"


async def test_cancelled_calls_end_whether_they_run_or_wait(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(0, 1)
        await until(lambda: node.calls)
        await one.say(FrameKind.CANCEL, index=1)
        assert (await one.hears(FrameKind.RESULT)).header["error"]["reason"] == "Cancelled"
        await one.say(FrameKind.CANCEL, index=0)
        await until(lambda: node.cancelled)
        cancelled = {"type": "CancelledError", "message": "", "kind": "User", "reason": "Cancelled"}
        node.finish(error=cancelled)
        assert (await one.hears(FrameKind.RESULT)).header["index"] == 0
    assert len(node.calls) == 1


async def test_call_of_a_lost_node_runs_again_elsewhere(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(0)
        await until(lambda: node.calls)
        node.die()
        await until(lambda: world.node() and True)
        other = world.node()
        await until(lambda: other.calls)
        assert other.calls[0][0]["number"] == 2
        other.finish(body=b"again")
        assert (await one.hears(FrameKind.RESULT)).body == b"again"


async def test_large_outcome_comes_in_pieces(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(0)
        await until(lambda: node.calls)
        whole = bytes(range(256)) * 12_000
        node.finish(body=whole)
        told = await one.hears(FrameKind.RESULT)
        assert told.header["chunked"]
        got = b""
        while len(got) < told.header["size"]:
            got += bytes((await one.hears(FrameKind.RESULT_CHUNK)).body)
        assert got == whole


async def test_large_arguments_come_in_pieces(world: World) -> None:
    await open_task(world)
    node = world.node()
    whole = bytes(range(256)) * 20_000
    async with client(world) as one:
        await one.hello()
        await one.say(FrameKind.BLOB, b"begun on a connection that broke")
    async with client(world) as two:
        await two.hello()
        await two.call()
        for start in range(0, len(whole), CHUNK):
            await two.say(FrameKind.BLOB, whole[start : start + CHUNK])
        name = digest(whole)
        await two.say(FrameKind.CALL, index=0, function=digest(FUNCTION), pieces=len(whole), args=name)
        await until(lambda: node.calls)
        assert node.blobs == {name: whole}
        assert (node.calls[0][0]["args"], node.calls[0][1]) == (name, None)
        node.finish()
        await two.hears(FrameKind.RESULT)


async def test_pieces_without_an_end_cost_the_connection_before_they_cost_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_calls, "MOST_BYTES", 3 * CHUNK)
    await open_task(world)
    async with client(world) as one:
        await one.hello()
        for _ in range(4):
            await one.say(FrameKind.BLOB, bytes(CHUNK))
        assert await one.left() == 1008


async def test_task_of_a_client_that_stays_away_is_cancelled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "AWAY_SECONDS", 0.05)
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(0)
        await until(lambda: node.calls)
    await until(lambda: node.cancelled)
    node.finish(error={"type": "CancelledError", "message": "", "kind": "User", "reason": "Cancelled"})
    await until(lambda: status(world).get("phase") == "Cancelled")
    assert status(world)["reason"] == "CallerGone"
    assert "was not connected" in status(world)["message"]


async def test_newer_connection_takes_the_place_of_an_older_one(world: World) -> None:
    await open_task(world)
    async with client(world) as one, client(world) as two:
        await one.hello()
        await two.hello()
        assert await one.left() == 4001
        node = world.node()
        await two.call(0)
        await until(lambda: node.calls)


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(FrameKind.CALL, {"index": 0, "function": "f"})],
        [Frame(FrameKind.HELLO, {"protocol": PROTOCOL + 1, "next": 0})],
        [Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 1, "open": "7"})],
        [Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 2**50, "open": f"0-{2**50 - 1}"})],
        [Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 2**53})],
        [Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 0}), Frame(FrameKind.STOP, {})],
        [Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 0}), Frame(FrameKind.CALL, {"index": -1})],
        [Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 0}), Frame(FrameKind.ACK, {"indexes": 5})],
        [
            Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 0}),
            Frame(FrameKind.CALL, {"index": 0, "function": "f", "pieces": 7}),
        ],
        [
            Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "next": 0}),
            Frame(FrameKind.CALL, {"index": 0, "function": "f", "args": "../f"}),
        ],
    ],
    ids=[
        "no hello",
        "other protocol",
        "more open than there are",
        "more open than there may be",
        "more calls than there may be",
        "a stop",
        "bad index",
        "bad ack",
        "no pieces",
        "bad digest",
    ],
)
async def test_nonsense_costs_the_connection_and_nothing_else(world: World, frames: list[Frame]) -> None:
    await open_task(world)
    async with client(world) as one:
        for frame in frames:
            await one.socket.send_bytes(encode(frame))
        assert await one.left() == 1008
    async with client(world) as two:
        await two.hello()


async def test_bytes_that_are_no_frames_cost_the_connection(world: World) -> None:
    await open_task(world)
    async with client(world) as one:
        await one.socket.send_bytes(b"\xff" * 64)
        assert await one.left() == 1008


async def test_silent_client_is_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.05)
    await open_task(world)
    async with client(world) as one:
        assert await one.left() == 1008


async def test_session_is_for_the_creator_of_an_open_task_only(world: World) -> None:
    await open_task(world)
    for headers, status_ in ((OTHERS, 403), ({}, 401)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await world.http.ws_connect(world.url + WHERE, headers=headers)
        assert refused.value.status == status_


async def test_task_with_a_package_has_no_session(world: World) -> None:
    await world.task()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.http.ws_connect(world.url + WHERE, headers=MINE)
    assert refused.value.status == 409


async def test_thousand_calls_of_one_client_all_end(world: World) -> None:
    await open_task(world)
    node = world.node()
    async with client(world) as one:
        await one.hello()
        await one.call(*range(1000))
        for _ in range(1000):
            await until(lambda: node.waiting())
            node.finish(body=b"")
        told = {(await one.hears(FrameKind.RESULT)).header["index"] for _ in range(1000)}
        await asyncio.sleep(0)
    assert told == set(range(1000))
