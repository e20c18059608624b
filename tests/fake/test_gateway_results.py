"""Results while a task runs, over real HTTP: what is durable, from a byte on, until the task has ended."""

from __future__ import annotations

import asyncio
import json
import struct
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.cluster_fakes import FakeNode, until
from tests.fake.test_gateway import MINE, OTHERS, World

from skyward.contract.names import TASK
from skyward.wire.delivery import Arrivals, PartKind
from skyward.wire.errors import PackageError
from skyward.wire.package import pack_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp

WHERE = "/v1/namespaces/default/tasks/task/results"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


def many(count: int) -> dict[str, Any]:
    """Calls as they stand in a Task."""
    package = b64encode(pack_calls([b"f"], [(0, b"x")] * count)).decode()
    return {"python": "3.13", "count": count, "package": package}


async def running(world: World, count: int) -> FakeNode:
    """A node on which the calls of a task run."""
    node = FakeNode(world.fleet, "node-0", 0, slots=max(count, 1))
    node.up()
    await world.task(calls=many(count))
    await until(lambda: len(node.waiting()) == count)
    return node


class Reader:
    """One reader, over as many connections as the test breaks."""

    def __init__(self, world: World, query: str = "follow=1") -> None:
        self.world = world
        self.query = query
        self.arrivals = Arrivals()
        self.got: list[tuple[int, bytes]] = []
        self.beats = 0
        self.answer: aiohttp.ClientResponse

    async def connect(self) -> int:
        """Ask for what is missing; the HTTP status."""
        where = f"{self.world.url}{WHERE}?{self.query}&from={self.arrivals.offset}"
        self.answer = await self.world.http.get(where, headers=MINE)
        self.arrivals.reconnected()
        return self.answer.status

    async def read(self, count: int) -> None:
        """Read until that many outcomes are there."""
        async with asyncio.timeout(10):
            while len(self.got) < count and (piece := await self.answer.content.readany()):
                self._take(piece)
        assert len(self.got) == count

    async def rest(self) -> None:
        """Read to the end of the response."""
        async with asyncio.timeout(10):
            self._take(await self.answer.content.read())

    def _take(self, piece: bytes) -> None:
        self.beats += piece.count(struct.pack("!BI", PartKind.BEAT, 0))
        self.got += [(outcome.index, bytes(outcome.body)) for outcome in self.arrivals.feed(piece)]


async def test_results_come_as_calls_end_and_then_an_end(world: World) -> None:
    node, reader = await running(world, 3), Reader(world)
    assert await reader.connect() == 200
    for number, attempt in enumerate(reversed(node.waiting()), 1):
        node.finish(attempt, body=b"value %d" % number)
        await reader.read(number)
    await reader.rest()
    assert reader.got == [(2, b"value 1"), (1, b"value 2"), (0, b"value 3")]
    assert reader.arrivals.is_whole
    assert world.api.status("task")["phase"] == "Succeeded"


async def test_a_reader_who_was_cut_off_goes_on_at_its_byte(world: World) -> None:
    node, reader = await running(world, 4), Reader(world)
    await reader.connect()
    node.finish(body=b"a" * 100_000)
    await reader.read(1)
    reader.answer.close()
    node.finish(body=b"b")
    await reader.connect()
    node.finish(body=b"c")
    await reader.read(3)
    reader.answer.close()
    node.finish(body=b"d")
    await until(lambda: world.api.status("task").get("phase") == "Succeeded")
    await reader.connect()
    await reader.rest()
    assert [body[:1] for _, body in reader.got] == [b"a", b"b", b"c", b"d"]
    assert reader.arrivals.is_whole


@pytest.mark.parametrize("size", [10, 300_000], ids=["in the status", "in the file"])
@pytest.mark.parametrize("count", [1, 3])
async def test_an_ended_task_is_read_the_same_way(world: World, count: int, size: int) -> None:
    node = await running(world, count)
    for _ in range(count):
        node.finish(body=b"v" * size)
    await until(lambda: world.api.status("task").get("phase") == "Succeeded")
    for query in ("follow=1", ""):
        reader = Reader(world, query)
        await reader.connect()
        await reader.rest()
        assert reader.got == [(index, b"v" * size) for index in range(count)]
        assert reader.arrivals.is_whole


async def test_without_follow_what_there_is_comes_and_no_end(world: World) -> None:
    node, reader = await running(world, 2), Reader(world, "")
    node.finish(body=b"first")
    live = world.tasks.gateway_backend.ledger.named("default", "task")
    assert live is not None
    await until(lambda: live.results.size)
    await reader.connect()
    await reader.rest()
    assert (reader.got, reader.arrivals.is_whole) == ([(0, b"first")], False)


async def test_a_silent_task_is_heard_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyward_operator.gateway.results.KEEPALIVE_SECONDS", 0.01)
    node, reader = await running(world, 1), Reader(world)
    await reader.connect()
    async with asyncio.timeout(10):
        while reader.beats < 3:
            reader._take(await reader.answer.content.readany())
    node.finish(body=b"value")
    await reader.rest()
    assert reader.got == [(0, b"value")]


async def test_a_task_that_is_cancelled_ends_with_what_it_has(world: World) -> None:
    node, reader = await running(world, 3), Reader(world)
    await reader.connect()
    node.finish(body=b"kept")
    await reader.read(1)
    await world.api.patch(TASK, "default", "task", {"spec": {"cancel": True}})
    await until(lambda: len(node.cancelled) == 2)
    for attempt in node.cancelled:
        node.finish(attempt, error={"type": "Cancelled", "message": "", "reason": "Cancelled"})
    await reader.rest()
    assert (reader.got, reader.arrivals.is_whole) == ([(0, b"kept")], True)
    assert world.api.status("task")["phase"] == "Cancelled"


async def test_the_results_of_a_task_that_is_deleted_are_never_whole(world: World) -> None:
    node, reader = await running(world, 2), Reader(world)
    await reader.connect()
    node.finish(body=b"first")
    await reader.read(1)
    await world.api.delete(TASK, "default", "task")
    node.finish(node.cancelled[0], error={"type": "Cancelled", "message": "", "reason": "Cancelled"})
    await reader.rest()
    assert not reader.arrivals.is_whole
    assert await reader.connect() == 403


async def test_a_slow_reader_holds_nothing_in_the_operator(world: World) -> None:
    """64 MB wait for a reader who does not read: the operator has sent what a connection holds, no more."""
    node, reader = await running(world, 65), Reader(world)
    await reader.connect()
    for _ in range(64):
        node.finish(body=b"v" * 1_000_000)
    live = world.tasks.gateway_backend.ledger.named("default", "task")
    assert live is not None
    await until(lambda: len(live.succeeded) == 64 and live.results.size > 64_000_000, 60)
    assert reader.answer.content.total_bytes < 16_000_000
    node.finish()
    await reader.rest()
    assert len(reader.got) == 65
    assert reader.arrivals.is_whole


async def test_readers_need_a_ticket_and_ask_for_a_byte_that_can_be(world: World) -> None:
    node = await running(world, 1)
    assert (await world.get(WHERE, {}))[0] == 401
    assert (await world.get(WHERE, OTHERS))[0] == 403
    for wrong in ("-1", "x", "1e3", "٣", "9" * 40):
        assert (await world.get(f"{WHERE}?from={wrong}"))[0] == 400
    assert (await world.get(f"{WHERE}?from=1&follow=1"))[0] == 416
    node.finish()
    await until(lambda: world.api.status("task").get("phase") == "Succeeded")
    assert (await world.get(f"{WHERE}?from=100000"))[0] == 416


async def test_a_task_that_the_operator_does_not_know_yet_is_asked_for_again(world: World) -> None:
    await running(world, 1)
    ledger = world.tasks.gateway_backend.ledger
    for live in ledger:
        ledger.drop(live)
    assert (await world.get(f"{WHERE}?follow=1"))[0] == 503


async def test_a_file_that_is_not_what_its_task_says_is_noticed(world: World) -> None:
    node = await running(world, 1)
    node.finish(body=b"v" * 300_000)
    await until(lambda: world.api.status("task").get("phase") == "Succeeded")
    uid = world.api.task("task")["metadata"]["uid"]
    path = world.folder / "blobs" / "default" / uid / "results"
    path.write_bytes(path.read_bytes().replace(b"vvv", b"vwv", 1))
    reader = Reader(world)
    await reader.connect()
    with pytest.raises(PackageError, match="digests differ"):
        await reader.rest()
    path.write_bytes(path.read_bytes()[:1000])
    reader = Reader(world)
    await reader.connect()
    await reader.rest()
    assert not reader.arrivals.is_whole
    assert json.dumps(world.api.status("task")["result"]["blob"]["sizeBytes"]) != "1000"
