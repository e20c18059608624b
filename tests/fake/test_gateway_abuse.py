"""The gateway in bad company: guessed tickets, tickets of others, paths and bodies that are no such thing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import pytest
from tests.fake.cluster_fakes import node_object, until
from tests.fake.test_gateway import HASH, MINE, OTHERS, World
from yarl import URL

from skyward.contract.names import NODE, TASK
from skyward.wire.digest import digest
from skyward.wire.package import pack_calls
from skyward_operator.gateway import uploads
from skyward_operator.gateway.connections import Bounds
from skyward_operator.gateway.guesses import BURST, PER_SECOND, Guesses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PAYLOAD = pack_calls([b"f"], [(0, b"x" * 100)])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


async def asked(world: World, path: str, ticket: dict[str, str] = OTHERS) -> tuple[int, str]:
    """Status and text of a GET whose path is sent as it stands."""
    async with world.http.get(URL(world.url + path, encoded=True), headers=ticket) as response:
        return response.status, await response.text()


@pytest.mark.parametrize("what", ["payload", "result", "logs"])
async def test_wrong_ticket_learns_nothing_about_tasks(world: World, what: str) -> None:
    await world.task(name="there")
    method = "PUT" if what == "payload" else "GET"
    answers = []
    for name in ("there", "gone1"):
        url = f"{world.url}/v1/namespaces/default/tasks/{name}/{what}"
        async with world.http.request(method, url, headers=OTHERS) as response:
            answers.append((response.status, (await response.text()).replace(name, "*")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403


async def test_wrong_ticket_learns_nothing_about_nodes_or_their_pools(world: World) -> None:
    await world.api.create(NODE, node_object("there", 0))
    there = await asked(world, "/v1/namespaces/default/nodes/there/logs")
    absent = await asked(world, "/v1/namespaces/default/nodes/gone1/logs")
    assert there[1].replace("there", "*") == absent[1].replace("gone1", "*")
    assert there[0] == absent[0] == 403


async def test_ticket_opens_no_other_task_and_none_of_another_namespace(world: World) -> None:
    await world.task(name="mine")
    await world.task(name="other", ticketHash="f" * 64)
    spec = {"poolRef": {"name": "pool"}, "command": {"argv": ["true"]}, "ticketHash": "e" * 64}
    await world.api.create(TASK, {"metadata": {"namespace": "elsewhere", "name": "mine"}, "spec": spec})
    assert (await asked(world, "/v1/namespaces/default/tasks/mine/logs", MINE))[0] == 200
    for path in ("default/tasks/other", "elsewhere/tasks/mine"):
        assert (await asked(world, f"/v1/namespaces/{path}/logs", MINE))[0] == 403


async def test_ticket_of_a_task_does_not_open_the_next_one_of_that_name(world: World) -> None:
    await world.task(name="again")
    await world.api.delete(TASK, "default", "again")
    await world.task(name="again", ticketHash=hashlib.sha256(b"new").hexdigest())
    assert (await asked(world, "/v1/namespaces/default/tasks/again/logs", MINE))[0] == 403
    assert (await asked(world, "/v1/namespaces/default/tasks/again/logs", {"Skyward-Ticket": "new"}))[
        0
    ] == 200


@pytest.mark.parametrize(
    "part", ["..", "%2e%2e", "..%2f..%2fsecrets", "a%2Fb", "%00", "A", "-a", "a" * 300, "a%3Fb"]
)
@pytest.mark.parametrize(
    "shape",
    [
        "/v1/namespaces/{}/tasks/task/logs",
        "/v1/namespaces/default/tasks/{}/logs",
        "/v1/namespaces/default/nodes/{}/logs",
    ],
)
async def test_what_is_no_name_gets_into_no_other_path(world: World, shape: str, part: str) -> None:
    reads: list[str] = []
    get = world.api.get

    async def seen(kind: object, namespace: str | None, name: str) -> dict[str, object]:
        reads.append(f"{namespace}/{name}")
        return await get(kind, namespace, name)  # type: ignore[arg-type]

    world.api.get = seen  # type: ignore[method-assign]
    status, _ = await asked(world, shape.format(part), MINE)
    assert status in (400, 404)
    assert not reads


async def test_many_wrong_tickets_cost_the_api_server_nothing_and_hurt_nobody_else(world: World) -> None:
    await world.task(name="mine")
    reads = 0
    get = world.api.get

    async def counted(*args: object) -> dict[str, object]:
        nonlocal reads
        reads += 1
        return await get(*args)  # type: ignore[arg-type]

    world.api.get = counted  # type: ignore[method-assign,assignment]
    statuses = [
        (await asked(world, f"/v1/namespaces/default/tasks/{name}/logs"))[0]
        for _ in range(BURST)
        for name in ("mine", "gone")
    ]
    assert set(statuses) == {403, 429}
    assert reads <= BURST + 30  # some are forgiven while a slow machine counts
    there, absent = [await asked(world, f"/v1/namespaces/default/tasks/{n}/logs") for n in ("mine", "gone")]
    assert there == absent
    assert there[0] == 429
    # who has the right ticket comes from the same address, as everybody does behind a proxy
    assert (await asked(world, "/v1/namespaces/default/tasks/mine/logs", MINE))[0] == 200


@pytest.mark.parametrize("ticket", [b"\xff\xfe", "schlüssel".encode(), b"\xed\xb3\xbf"])
async def test_ticket_that_is_no_ascii_is_a_wrong_one(
    world: World, ticket: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await world.task(name="mine")
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    statuses = []
    for _ in range(BURST + 30):
        path = b"/v1/namespaces/default/tasks/mine/logs"
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nSkyward-Ticket: " + ticket + b"\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        statuses.append(int(head.split(b" ")[1]))
        if statuses[-1] == 429:
            break
    writer.close()
    assert statuses[0] == 403
    assert set(statuses) == {403, 429}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_guesses_are_forgiven_one_by_one_and_peers_apart() -> None:
    now = 100.0
    guesses = Guesses(lambda: now)
    for _ in range(10 * BURST):
        guesses.wrong("one")
    assert guesses.too_many("one")
    assert not guesses.too_many("two")
    now += 2 / PER_SECOND
    assert not guesses.too_many("one")
    guesses.wrong("one")
    assert guesses.too_many("one")


async def test_body_that_is_larger_than_it_says_or_than_was_said_of_it_is_not_kept(world: World) -> None:
    blob = {"digest": digest(PAYLOAD), "sizeBytes": len(PAYLOAD)}
    uid = await world.task(calls={"python": "3.13", "count": 1, "blob": blob})
    url = f"{world.url}/v1/namespaces/default/tasks/task/payload"

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(1 << 16)

    for body in (PAYLOAD + b"x", endless()):
        try:
            async with world.http.put(url, data=body, headers=MINE) as response:
                assert response.status in (400, 413, 422)
        except ConnectionError:
            pass  # it did not wait for the end of it
    await until(lambda: not list((world.folder / "blobs" / "default" / uid).glob("payload*")))
    async with world.http.put(url, data=PAYLOAD, headers=MINE) as response:
        assert response.status == 204


async def test_body_that_trickles_is_ended_and_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_SECONDS", 0.3)
    blob = {"digest": digest(PAYLOAD), "sizeBytes": len(PAYLOAD)}
    uid = await world.task(calls={"python": "3.13", "count": 1, "blob": blob})
    done = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield PAYLOAD[:1]
        await done.wait()

    url = f"{world.url}/v1/namespaces/default/tasks/task/payload"
    async with asyncio.timeout(20), world.http.put(url, data=trickle(), headers=MINE) as response:
        assert response.status == 408
        assert "too slowly" in await response.text()
        done.set()
    assert [path.name for path in (world.folder / "blobs" / "default" / uid).glob("payload*")] == [
        "payload.part"
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(40_000)) + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"PUT /v1/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v1/x HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["TLS", "long header", "many headers", "long path", "negative length", "two lengths"],
)
async def test_garbage_ends_its_connection_and_nothing_else(world: World, garbage: bytes) -> None:
    where = urlsplit(world.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    async with asyncio.timeout(20):
        try:
            writer.write(garbage)
            await writer.drain()
            answer = await reader.read()
            assert not answer or answer.split(b" ")[1].startswith(b"4"), answer[:100]
        except ConnectionError:
            pass
        finally:
            writer.close()
    async with world.http.get(f"{world.url}/v1/healthz") as response:
        assert response.status == 200


def test_hash_of_a_ticket_is_not_the_ticket() -> None:
    assert hashlib.sha256(MINE["Skyward-Ticket"].encode()).hexdigest() == HASH


# Who takes a place and does not use it

QUICK = Bounds(unproven=64, unproven_per_address=48, head_seconds=0.3, idle_seconds=0.3, stall_seconds=0.3)
PATIENT = Bounds(unproven=64, unproven_per_address=48)


@contextlib.asynccontextmanager
async def many_connections(
    world: World, count: int, begin: bytes
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections, on each of which this was sent and no more follows."""
    where = urlsplit(world.url)
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            stack.push_async_callback(hang_up, writer)
            writer.write(begin)
            readers.append(reader)
        yield readers


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def ends(reader: asyncio.StreamReader) -> None:
    """Wait until the other side ends the connection."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass


@pytest.mark.parametrize(
    "begin",
    [b"", b"GET /v1/he", b"GET /v1/logs?follow=1 HTTP/1.1\r\nHost: x\r\nSkyward-Ticket: guess\r\n\r\n"],
    ids=["nothing", "half a header", "streams with guessed tickets"],
)
async def test_five_hundred_connections_that_do_nothing_stop_no_rightful_client(
    tmp_path: Path, begin: bytes
) -> None:
    async with World(tmp_path, bounds=PATIENT) as world:
        node = world.node()
        uid = await world.task(PAYLOAD)
        follow = f"{world.url}/v1/namespaces/default/tasks/task/logs?follow=1"
        async with (
            world.http.get(follow, headers=MINE) as answer,
            many_connections(world, 500, begin) as readers,
        ):
            assert answer.status == 200
            # of all these no more are left than there is room for, and the newest of them
            for reader in readers[:-48]:
                await ends(reader)
            assert not readers[-1].at_eof()
            async with aiohttp.ClientSession() as http:  # a client that has just come
                where = f"{world.url}/v1/namespaces/default/tasks/task/payload"
                async with http.put(where, data=PAYLOAD, headers=MINE) as sent:
                    assert sent.status == 204
            node.finish(body=b"done")
            await until(lambda: world.api.status("task").get("phase") == "Succeeded")
            assert (await world.get("/v1/namespaces/default/tasks/task/result"))[0] == 200
            assert await answer.content.read() == b""  # the stream of before ends as it should
        assert world.files(uid)


async def test_a_header_that_trickles_ends_its_connection(tmp_path: Path) -> None:
    async with World(tmp_path, bounds=QUICK) as world:
        where = urlsplit(world.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)

        async def trickle() -> None:
            writer.write(b"GET /v1/healthz HTTP/1.1\r\n")
            while not writer.is_closing():
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        await ends(reader)
        writer.close()
        trickling.cancel()


async def test_a_connection_between_requests_is_ended_and_one_in_use_is_not(tmp_path: Path) -> None:
    async with World(tmp_path, bounds=QUICK) as world:
        node = world.node()
        await world.task()
        where = urlsplit(world.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        follow = f"{world.url}/v1/namespaces/default/tasks/task/logs?follow=1"
        async with world.http.get(follow, headers=MINE) as answer:
            await ends(reader)  # after its answer, which is longer than any of the bounds
            writer.close()
            node.finish()
            assert await answer.content.read() == b""


async def test_a_client_that_takes_nothing_is_let_go_and_one_that_is_slow_is_not(tmp_path: Path) -> None:
    async with World(tmp_path, bounds=QUICK) as world:
        node = world.node()
        await world.task()
        node.finish(body=bytes(40_000_000))
        await until(lambda: world.api.status("task").get("phase") == "Succeeded")
        where = "/v1/namespaces/default/tasks/task/results"
        head = f"GET {where} HTTP/1.1\r\nHost: x\r\nSkyward-Ticket: {MINE['Skyward-Ticket']}\r\n\r\n"
        place = urlsplit(world.url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(head.encode())
        await reader.readline()
        refused = world.context.metrics.gateway_refused.labels("slow-reader")
        await until(lambda: refused._value.get() == 1, 20)  # it reads no more
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(50_000_000)
        writer.close()
        async with world.http.get(world.url + where, headers=MINE) as answer:
            taken = 0
            while piece := await answer.content.read(4_000_000):
                taken += len(piece)
                await asyncio.sleep(0.05)
        assert taken > 40_000_000
        assert refused._value.get() == 1


async def test_a_ticket_has_so_many_requests_under_way_and_no_more(tmp_path: Path) -> None:
    async with World(tmp_path, bounds=Bounds(requests_per_ticket=3)) as world:
        await world.task()
        follow = "/v1/namespaces/default/tasks/task/logs?follow=1"
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                answer = await stack.enter_async_context(world.http.get(world.url + follow, headers=MINE))
                assert answer.status == 200
            status, text = await asked(world, follow, MINE)
            assert status == 429
            assert "3 requests under way" in text
            assert (await asked(world, "/v1/logs?namespace=default", OTHERS))[0] == 200
        async with asyncio.timeout(10):
            while (await asked(world, "/v1/namespaces/default/tasks/task/logs", MINE))[0] != 200:
                pass
