"""The gateway in bad company: guessed tickets, tickets of others, paths and bodies that are no such thing."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.fake.cluster_fakes import node_object, until
from tests.fake.test_gateway import HASH, MINE, OTHERS, World
from yarl import URL

from skyward.contract.names import NODE, TASK
from skyward.wire.digest import digest
from skyward.wire.package import pack_calls
from skyward_operator.gateway import uploads
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
