"""The output of a whole pool over real HTTP: its tasks and how its nodes were made, as one stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fake.cluster_fakes import FakeNode, node_object, pool_object
from tests.fake.test_gateway import MINE, OTHERS, World

from skyward.contract.names import NODE, POOL, node_name
from skyward_operator.gateway.merge import Source, merged
from skyward_operator.nodes.log import NodeLog, folder_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

POOL_LOGS = "/v1/namespaces/default/pools/pool/logs"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


def log_of(world: World, name: str) -> NodeLog:
    """The log of a node, as its session writes it."""
    return NodeLog(world.folder, "default", name, world.context.clock)


def say(world: World, node: FakeNode, number: int, text: str) -> None:
    """Output of one of the node's calls."""
    header = {"attempt": node.waiting()[number], "stream": "stdout", "time": 1.0}
    world.fleet.listener.log("default", node.name, header, text.encode())


def texts(body: bytes) -> list[str]:
    """What the lines of a stream say."""
    return [record.get("text", "") for record in map(json.loads, body.splitlines())]


async def next_record(answer: Any) -> dict[str, Any]:
    """The next record of a stream, without signs of life."""
    while not (line := await answer.content.readline()).strip():
        assert line
    record: dict[str, Any] = json.loads(line)
    return record


async def test_tasks_and_nodes_come_by_time(world: World) -> None:
    node = FakeNode(world.fleet, "node-0", 0, slots=2)
    node.up()
    await world.api.create(NODE, node_object("pool-0-x", 0))
    log = log_of(world, "pool-0-x")
    for name in ("one", "two"):
        await world.task(name=name)
    log.line("before")
    for number, text in ((1, "a\n"), (0, "b\n"), (1, "c\n")):
        say(world, node, number, text)
        await world.tasks.gateway_backend.logs.flush()
    log.line("after")
    status, body = await world.get(POOL_LOGS)
    assert (status, texts(body)) == (200, ["before", "a\n", "b\n", "c\n", "after", "", ""])
    records = [json.loads(line) for line in body.splitlines()]
    assert [record.get("task") for record in records[1:4]] == ["two", "one", "two"]
    assert records[0]["node"] == "pool-0-x"
    assert records[-1] == {"end": True}
    since = records[2]["kept"]
    assert texts((await world.get(f"{POOL_LOGS}?since={since}"))[1]) == ["before", "c\n", "after", "", ""]


async def test_new_tasks_and_nodes_are_followed_until_the_pool_is_gone(world: World) -> None:
    node = FakeNode(world.fleet, "node-0", 0, slots=2)
    node.up()
    async with world.http.get(f"{world.url}{POOL_LOGS}?follow=1&since=0", headers=MINE) as answer:
        assert "kept" in await next_record(answer)
        await world.task(name="new")
        say(world, node, 0, "hello\n")
        assert (await next_record(answer))["text"] == "hello\n"
        await world.api.create(NODE, node_object("pool-0-x", 0))
        log_of(world, "pool-0-x").line("made")
        made = await next_record(answer)
        assert (made["text"], made["node"], made["stream"]) == ("made", "pool-0-x", "bootstrap")
        node.finish()
        assert await next_record(answer) == {"namespace": "default", "task": "new", "done": True}
        await world.api.delete(POOL, "default", "pool")
        assert await next_record(answer) == {"end": True}


async def test_output_of_a_pool_is_for_who_may_read_the_pool(world: World) -> None:
    await world.api.create(
        POOL, pool_object(ticketHash="") | {"metadata": {"namespace": "default", "name": "b"}}
    )
    for name, headers in (("pool", OTHERS), ("b", MINE), ("nothing", MINE)):
        assert (await world.get(f"/v1/namespaces/default/pools/{name}/logs", headers))[0] == 403


async def test_node_that_is_gone_is_read_by_who_may_read_the_pool_that_it_was_made_for(world: World) -> None:
    pool = world.context.store.get(POOL, "default", "pool")
    assert pool is not None
    gone = node_name("pool", pool["metadata"]["uid"], 0, 3)
    of_another = node_name("pool", "the uid of a pool that had the same name", 0, 3)
    for name in (gone, of_another):
        log_of(world, name).line(f"made {name}")
    where = f"/v1/namespaces/default/nodes/{gone}/logs"
    assert texts((await world.get(where))[1]) == [f"made {gone}"]
    assert (await world.get(where, OTHERS))[0] == 403
    assert (await world.get(f"/v1/namespaces/default/nodes/{of_another}/logs"))[0] == 403
    assert texts((await world.get(POOL_LOGS))[1])[:-2] == [f"made {gone}"]


async def test_log_of_a_node_with_half_a_line_is_read_whole_when_the_rest_has_come(world: World) -> None:
    await world.api.create(NODE, node_object("pool-0-x", 0))
    path = folder_of(world.folder, "default") / "pool-0-x.log"
    path.parent.mkdir(parents=True)
    path.write_text("half")
    async with world.http.get(f"{world.url}{POOL_LOGS}?follow=1&since=0", headers=MINE) as answer:
        assert "kept" in await next_record(answer)
        with path.open("a") as file:
            file.write(" a line\n")
        assert (await next_record(answer))["text"] == "half a line"


@given(st.lists(st.lists(st.floats(0, 100), max_size=8), max_size=6))
def test_merged_records_are_ordered_where_their_sources_are(times: list[list[float]]) -> None:
    opened: list[int] = []

    def source(number: int, moments: list[float]) -> Source:
        def records() -> Any:
            opened.append(number)
            for moment in moments:
                yield moment, f"{number} {moment}\n".encode()

        return Source(moments[0] if moments else 0.0, records)

    ordered = [sorted(moments) for moments in times]
    body = b"".join(merged([source(number, moments) for number, moments in enumerate(ordered)]))
    got = [float(line.split()[1]) for line in body.splitlines()]
    assert got == sorted(moment for moments in ordered for moment in moments)
    assert sorted(opened) == list(range(len(times)))


def test_source_is_not_opened_before_its_turn() -> None:
    def fail() -> Any:
        raise AssertionError("opened too early")

    early = Source(1.0, lambda: iter([(1.0, b"x" * 70_000), (2.0, b"y")]))
    assert next(merged([Source(5.0, fail), early])).startswith(b"x")
