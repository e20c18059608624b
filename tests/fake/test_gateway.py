"""The gateway over real HTTP, on a fake API server."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import json
import os
import random
from base64 import b64encode
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest
from tests.fake.cluster_fakes import FakeApi, FakeNode, fake_context, node_object, pool_object, until

from skyward.contract.names import ANNOTATION_TICKET, NODE, POOL, TASK
from skyward.wire.digest import digest
from skyward.wire.package import PartsIndex, pack_calls
from skyward.wire.parts import Part
from skyward_operator.gateway.blobs import BlobStore
from skyward_operator.gateway.follower import Follower
from skyward_operator.gateway.logs import LogBook
from skyward_operator.gateway.server import Server
from skyward_operator.gateway.service import Gateway
from skyward_operator.gateway.streams import Lines
from skyward_operator.nodes.accounts import Accounts
from skyward_operator.nodes.credentials import Credentials
from skyward_operator.nodes.fleet import Fleet
from skyward_operator.placement.placement import Placement
from skyward_operator.providers.registry import Registry
from skyward_operator.tasks import Tasks, build
from skyward_operator.tasks.flights import Attempt
from skyward_operator.tasks.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from skyward_operator.context import Context
    from skyward_operator.gateway.connections import Bounds

TICKET = "00ff" * 16
PAYLOAD = "/v1/namespaces/default/tasks/task/payload"
HASH = hashlib.sha256(TICKET.encode()).hexdigest()
MINE = {"Skyward-Ticket": TICKET}
OTHERS = {"Skyward-Ticket": "11" * 32}


class World:
    """One operator's tasks and gateway."""

    def __init__(
        self,
        folder: Path,
        largest: int = 1 << 30,
        *,
        before: World | None = None,
        bounds: Bounds | None = None,
        **settings: Any,
    ) -> None:
        """With `before`: an operator that comes after that one, on the same objects."""
        self.folder = folder
        self.before = before
        self.bounds = bounds
        self.settings = settings
        self.largest = largest
        self.fleet = Fleet()
        self.api: FakeApi
        self.context: Context
        self.tasks: Tasks
        self.http: aiohttp.ClientSession
        self.url = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        earlier = self.before.api if self.before is not None else None
        self.context, self.api = await self._stack.enter_async_context(
            fake_context(self.folder, earlier, **self.settings)
        )
        self.tasks = build(self.context, self.fleet)
        self.fleet.listen(self.tasks.listener)
        accounts = Accounts(Credentials(self.context.api, self.context.clock), Registry(self.folder))
        server = Server(
            self.context,
            self.tasks.gateway_backend,
            largest_payload=self.largest,
            placement=Placement(self.context, accounts, lambda _: None),
        )
        gateway = Gateway(self.context, server, self.bounds)
        for job in (self.tasks.run(), gateway.run()):
            self._stack.push_async_callback(_stop, asyncio.create_task(job))
        self.url = await gateway.url()
        await self.tasks.caught_up.wait()
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        if earlier is None:
            await self.api.create(POOL, pool_object(ticketHash=HASH))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def node(self) -> FakeNode:
        """A ready node."""
        node = FakeNode(self.fleet, "node-0", 0)
        node.up()
        return node

    async def task(self, payload: bytes | None = None, name: str = "task", **spec: Any) -> str:
        """A task with an uploaded payload, or one inside of it; its uid."""
        inline = b64encode(pack_calls([b"f"], [(0, b"x")])).decode()
        calls: dict[str, Any] = {"python": "3.13", "count": 1, "package": inline}
        if payload is not None:
            size = package_size(payload)
            blob = {"digest": digest(payload[:size]), "sizeBytes": size}
            calls = {"python": "3.13", "count": 1, "blob": blob}
        body = {"poolRef": {"name": "pool"}, "calls": calls, "ticketHash": HASH} | spec
        made = await self.api.create(TASK, {"metadata": {"namespace": "default", "name": name}, "spec": body})
        return str(made["metadata"]["uid"])

    async def put(
        self, body: Any, name: str = "task", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Upload; status and text."""
        where = f"{self.url}/v1/namespaces/default/tasks/{name}/payload"
        async with self.http.put(where, data=body, headers=MINE if headers is None else headers) as answer:
            return answer.status, await answer.text()

    async def break_off(self, body: bytes, announced: int, offset: int, is_begun: Callable[[], bool]) -> None:
        """Upload some bytes of those that were announced, and no more once it is begun: a request whose
        connection has ended before anybody read it is none."""
        host, port = self.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"Host: x\r\nSkyward-Ticket: {TICKET}\r\nUpload-Offset: {offset}\r\nContent-Length: {announced}"
        )
        writer.write(f"PUT {PAYLOAD} HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
        await writer.drain()
        await until(is_begun)
        writer.close()
        await writer.wait_closed()

    async def uploaded(self) -> tuple[int, bool]:
        """How much of a payload the gateway has, and whether that is all."""
        async with self.http.head(self.url + PAYLOAD, headers=MINE) as answer:
            assert answer.status == 200
            return int(answer.headers["Upload-Offset"]), answer.headers["Upload-Complete"] == "?1"

    def payload(self, uid: str) -> Path:
        """Where the payload of a task lies once it is whole."""
        return self.folder / "blobs" / "default" / uid / "payload"

    async def get(self, where: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Download; status and body."""
        async with self.http.get(self.url + where, headers=MINE if headers is None else headers) as answer:
            return answer.status, await answer.read()

    def files(self, uid: str) -> list[str]:
        """What there is of a task on disk."""
        folder = self.folder / "blobs" / "default" / uid
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def _stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


def package(size: int = 200_000) -> bytes:
    return pack_calls([b"function"], [(0, b"a" * size)])


def with_parts(count: int, size: int = 300_000) -> bytes:
    """A payload of one call that needs so many parts."""
    index = PartsIndex()
    parts = [Part(digest(data), size, (data,)) for data in map(os.urandom, [size] * count)]
    index.need(1, parts)
    package = pack_calls([b"function"], [(0, b"a")], parts=index)
    _SIZES[package] = len(package)
    return package + b"".join(part.pieces[0] for part in parts)


_SIZES: dict[bytes, int] = {}


def package_size(payload: bytes) -> int:
    """How much of a payload is its package: the rest are parts."""
    return next((size for package, size in _SIZES.items() if payload.startswith(package)), len(payload))


# Payloads


async def test_uploaded_payload_starts_the_task(world: World) -> None:
    node = world.node()
    uid = await world.task(package())
    assert node.calls == []
    assert await world.put(package()) == (204, "")
    assert len(node.calls) == 1
    assert world.files(uid) == ["payload"]


async def test_uploading_twice_is_success(world: World) -> None:
    await world.task(package())
    assert (await world.put(package()))[0] == 204
    assert (await world.put(package()))[0] == 204


async def test_complete_payload_is_not_replaced_and_another_length_is_refused(world: World) -> None:
    uid = await world.task(package())
    assert (await world.put(package()))[0] == 204
    for body in (b"short", package() + b"x", b""):
        status, text = await world.put(body)
        assert status == 400
        assert f"complete with {len(package())} bytes" in text
    assert (await world.put(package()[7:], headers={**MINE, "Upload-Offset": "7"}))[0] == 204
    assert world.payload(uid).read_bytes() == package()


@pytest.mark.parametrize("body", [gzip.compress(b"x" * 200), b"no gzip at all"])
async def test_compressed_payload_is_refused_in_words(
    world: World, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    uid = await world.task(package())
    status, text = await world.put(body, headers={**MINE, "Content-Encoding": "gzip"})
    assert status == 415
    assert "Content-Encoding" in text
    assert world.files(uid) == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert (await world.put(package(), headers={**MINE, "Content-Encoding": "identity"}))[0] == 204


async def test_payload_with_another_digest_is_refused_and_dropped(world: World) -> None:
    uid = await world.task(package())
    status, text = await world.put(b"b" * len(package()))
    assert status == 422
    assert "SHA-256" in text
    assert world.files(uid) == []
    assert (await world.put(package()))[0] == 204


async def test_payload_of_another_size_is_refused(world: World) -> None:
    uid = await world.task(package())
    status, text = await world.put(package() + b"x")
    assert status == 400
    assert str(len(package())) in text
    assert world.files(uid) == []


async def test_streamed_payload_that_is_too_long_is_refused(world: World) -> None:
    uid = await world.task(package())

    async def pieces() -> AsyncIterator[bytes]:
        yield package()
        yield b"more"

    status, text = await world.put(pieces())
    assert status == 400
    assert "larger" in text
    assert world.files(uid) == []


async def test_payload_is_heard_of_while_it_still_comes(world: World) -> None:
    uid = await world.task(package())
    live = world.tasks.gateway_backend.ledger.get(uid)
    assert live is not None
    before, seen = live.payload_heard, asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        whole = package()
        yield whole[:100_000]
        await until(lambda: live.payload_heard > before)
        seen.set()
        yield whole[100_000:]

    assert await world.put(pieces()) == (204, "")
    assert seen.is_set()


async def test_upload_that_breaks_off_is_not_used_and_goes_on_where_it_was(world: World) -> None:
    node, whole = world.node(), with_parts(3)
    uid = await world.task(whole)
    for cut in sorted(random.Random(3).sample(range(1, len(whole)), 8)):
        there, is_whole = await world.uploaded()
        is_begun = world.payload(uid).with_name("payload.part").exists
        await world.break_off(whole[there:cut], len(whole) - there, there, is_begun)
        assert there <= (await world.uploaded())[0] <= cut
        assert not is_whole
        assert world.files(uid) == ["payload.part"]
        assert node.calls == []
    assert (await world.uploaded())[0] > 0
    there, _ = await world.uploaded()
    assert await world.put(whole[there:], headers=MINE | {"Upload-Offset": str(there)}) == (204, "")
    assert world.files(uid) == ["payload"]
    assert world.payload(uid).read_bytes() == whole
    assert await world.uploaded() == (len(whole), True)
    assert len(node.calls) == 1


@pytest.mark.parametrize("place", [10, -10], ids=["in the package", "in a part"])
async def test_other_bytes_than_announced_are_refused_wherever_they_are(world: World, place: int) -> None:
    node, whole = world.node(), with_parts(3)
    uid = await world.task(whole)
    wrong = bytearray(whole)
    wrong[place] ^= 1
    status, text = await world.put(bytes(wrong))
    assert status == 422
    assert ("SHA-256 of the package is" if place > 0 else "SHA-256 of part 2 of 3 is") in text
    assert world.files(uid) == []
    assert node.calls == []
    assert (await world.put(whole))[0] == 204


async def test_bytes_that_went_bad_after_a_cut_are_found_and_sent_again(world: World) -> None:
    whole = with_parts(3)
    uid = await world.task(whole)
    half = len(whole) // 2
    assert (await world.put(whole[:half]))[0] == 400  # it ended too early
    part = world.payload(uid).with_name("payload.part")
    damaged = bytearray(part.read_bytes())
    assert len(damaged) == half
    damaged[len(damaged) // 2] ^= 1
    part.write_bytes(damaged)
    status, _ = await world.put(whole[half:], headers=MINE | {"Upload-Offset": str(half)})
    assert status == 422
    assert await world.uploaded() == (0, False)
    assert (await world.put(whole))[0] == 204


async def test_rest_that_begins_behind_what_is_there_is_refused(world: World) -> None:
    whole = with_parts(1)
    await world.task(whole)
    status, text = await world.put(whole[9:], headers=MINE | {"Upload-Offset": "9"})
    assert (status, text) == (409, "the body begins at byte 9 and 0 are here")
    for nonsense in ("-1", "9" * 30, "x"):
        assert (await world.put(whole, headers=MINE | {"Upload-Offset": nonsense}))[0] == 400


async def test_newer_upload_ends_one_that_hangs(world: World) -> None:
    whole = with_parts(1)
    uid = await world.task(whole)

    async def hanging() -> AsyncIterator[bytes]:
        yield whole[:1000]
        await asyncio.Event().wait()

    first = asyncio.create_task(world.put(hanging()))
    await until(world.payload(uid).with_name("payload.part").exists)
    async with asyncio.timeout(10):
        assert await world.put(whole) == (204, "")
        with pytest.raises(aiohttp.ClientError):
            await first


async def test_parts_over_the_limit_are_refused_when_the_package_says_so(tmp_path: Path) -> None:
    whole = with_parts(3)
    async with World(tmp_path, largest=len(whole) - 1) as world:
        uid = await world.task(whole)

        async def pieces() -> AsyncIterator[bytes]:
            yield whole

        status, text = await world.put(pieces())
        assert status == 413
        assert f"the payload has {len(whole)} bytes" in text
        assert world.files(uid) == []


async def test_full_disk_is_said_and_other_payloads_are_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, real, full = with_parts(2), os.pwrite, True

    def pwrite(file: int, data: Any, place: int) -> int:
        if full and place + memoryview(data).nbytes > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data, place)

    monkeypatch.setattr("skyward_operator.gateway.incoming.os.pwrite", pwrite)
    uid = await world.task(whole)
    status, text = await world.put(whole)
    assert status == 507
    assert "No space left on device" in text
    assert world.files(uid) == []  # the space is free again
    await world.task(package(1000), name="small")
    assert (await world.put(package(1000), name="small"))[0] == 204
    full = False
    assert (await world.put(whole))[0] == 204


async def test_what_came_of_a_payload_goes_when_its_task_is_cancelled(world: World) -> None:
    whole = with_parts(2)
    uid = await world.task(whole)
    await world.put(whole[:-1000])
    assert world.files(uid) == ["payload.part"]
    await world.api.patch(TASK, "default", "task", {"spec": {"cancel": True}})
    await until(lambda: world.api.status("task").get("phase") == "Cancelled")
    await until(lambda: world.files(uid) == [])


async def test_disk_too_small_for_the_parts_is_known_before_they_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = with_parts(2)
    uid = await world.task(whole)

    class Full:
        f_bavail, f_blocks, f_frsize = 16, 32, 4096

    monkeypatch.setattr("skyward_operator.disk.os.statvfs", lambda _: Full)
    status, text = await world.put(whole)
    assert status == 507
    assert "bytes do not fit on the operator's disk: 65,536 are free" in text
    assert world.files(uid) == []


async def test_payload_that_was_deleted_before_its_call_was_sent_ends_the_task(world: World) -> None:
    whole = with_parts(2)
    uid = await world.task(whole)
    assert (await world.put(whole))[0] == 204  # no node is there: it waits
    world.payload(uid).unlink()
    node = world.node()
    await until(lambda: world.api.status("task").get("phase") == "Failed")
    status = world.api.status("task")
    assert status["reason"] == "PayloadInvalid"
    assert "payload" in status["message"]
    assert node.calls == []


async def test_payload_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with World(tmp_path, largest=1000) as world:
        await world.task(package())
        status, text = await world.put(package())
        assert status == 413
        assert "object store" in text


async def test_payload_of_a_task_that_carries_its_calls_is_refused(world: World) -> None:
    await world.task()
    assert (await world.put(b"x"))[0] == 409


async def test_upload_needs_the_ticket(world: World) -> None:
    uid = await world.task(package())
    assert (await world.put(package(), headers={}))[0] == 401
    assert (await world.put(package(), headers=OTHERS))[0] == 403
    missing = await world.put(package(), name="other")
    assert missing[0] == 403
    assert world.files(uid) == []


async def test_task_without_a_ticket_hash_is_open_to_nobody(world: World) -> None:
    await world.task(package(), ticketHash="")
    assert (await world.put(package(), headers={"Skyward-Ticket": "x"}))[0] == 403


async def test_upload_finds_an_object_that_the_store_has_not_seen(world: World) -> None:
    uid = await world.task(package())
    world.context.store._shelves[TASK.plural].objects.clear()
    assert (await world.put(package()))[0] == 204
    assert world.files(uid) == ["payload"]


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%2e%2e", "a%2fb", "..", "%00"])
async def test_names_in_paths_lead_nowhere(world: World, name: str) -> None:
    for where in (f"/v1/namespaces/{name}/tasks/x/result", f"/v1/namespaces/default/nodes/{name}/logs"):
        status, _ = await world.get(where)
        assert status in (400, 403, 404)


@pytest.mark.parametrize(
    ("namespace", "uid"), [("..", "a"), ("a", ".."), ("a/b", "c"), ("", "x"), ("a", "b/c")]
)
def test_blob_folders_stay_inside(tmp_path: Path, namespace: str, uid: str) -> None:
    with pytest.raises(ValueError, match="namespace and uid"):
        BlobStore(tmp_path).folder(namespace, uid)


# Results


async def succeeded(world: World, name: str) -> None:
    await until(lambda: world.api.status(name).get("phase") == "Succeeded")


async def test_result_is_downloaded_from_wherever_it_is(world: World) -> None:
    node = world.node()
    for name, body in (("small", b"value"), ("large", b"v" * 300_000)):
        uid = await world.task(name=name)
        assert (await world.get(f"/v1/namespaces/default/tasks/{name}/result"))[0] == 409
        node.finish(body=body)
        await succeeded(world, name)
        status, packed = await world.get(f"/v1/namespaces/default/tasks/{name}/result")
        assert status == 200
        assert body in packed
        if name == "large":
            status, rest = await world.get(
                f"/v1/namespaces/default/tasks/{name}/result", MINE | {"Range": "bytes=100000-"}
            )
            assert (status, rest) == (206, packed[100_000:])
        assert (await world.get(f"/v1/namespaces/default/tasks/{name}/result", OTHERS))[0] == 403
    assert world.files(uid) == ["results"]


async def test_result_of_a_task_without_one_is_not_found(world: World) -> None:
    await world.task(cancel=True)
    await until(lambda: world.api.status("task").get("phase") == "Cancelled")
    assert (await world.get("/v1/namespaces/default/tasks/task/result"))[0] == 404


# Output


def say(node: FakeNode, text: str | bytes, stream: str = "stdout") -> None:
    header = {"attempt": node.waiting()[0], "stream": stream, "time": 1.5}
    body = text.encode() if isinstance(text, str) else text
    node.fleet.listener.log("default", node.name, header, body)


async def test_output_of_a_task_is_kept(world: World) -> None:
    node = world.node()
    await world.task()
    say(node, "one\n")
    say(node, "two\n", "stderr")
    node.finish()
    status, body = await world.get("/v1/namespaces/default/tasks/task/logs")
    assert status == 200
    lines = [json.loads(line) for line in body.splitlines()]
    assert [(line["text"], line["stream"]) for line in lines] == [("one\n", "stdout"), ("two\n", "stderr")]
    assert {key: lines[0][key] for key in ("task", "index", "node", "rank", "time")} == {
        "task": "task",
        "index": 0,
        "node": "node-0",
        "rank": 0,
        "time": 1.5,
    }


async def test_follower_gets_what_was_and_what_comes_and_an_end(world: World) -> None:
    node = world.node()
    await world.task()
    say(node, "before\n")
    where = f"{world.url}/v1/namespaces/default/tasks/task/logs?follow=1"
    async with world.http.get(where, headers=MINE) as answer:
        assert json.loads(await answer.content.readline())["text"] == "before\n"
        say(node, "after\n")
        assert json.loads(await answer.content.readline())["text"] == "after\n"
        node.finish()
        assert await answer.content.read() == b""


async def test_reader_who_leaves_is_no_error(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a write has failed and the server has not heard yet that the connection is lost."""
    await world.task()
    write, left = Lines.write, []

    async def failing(self: Lines, lines: bytes) -> None:
        transport = self._request.transport
        assert transport is not None
        transport.abort()
        left.append(lines)
        await write(self, lines)

    monkeypatch.setattr(Lines, "write", failing)
    with pytest.raises(aiohttp.ClientError):
        await world.get("/v1/logs?namespace=default&since=0")
    assert left
    assert (await world.get("/v1/healthz"))[0] == 200
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


async def test_one_stream_brings_the_output_of_all_my_tasks(world: World) -> None:
    node = FakeNode(world.fleet, "node-0", 0, slots=3)
    node.up()
    await world.task(name="a")
    await world.task(name="b")
    await world.task(name="foreign", ticketHash=hashlib.sha256(b"else").hexdigest())
    async with world.http.get(f"{world.url}/v1/logs?namespace=default&follow=1", headers=MINE) as answer:
        for attempt in reversed(node.waiting()):
            header = {"attempt": attempt, "stream": "stdout", "time": 1.0}
            world.fleet.listener.log("default", "node-0", header, b"hello\n")
        got = [json.loads(await answer.content.readline())["task"] for _ in range(2)]
        assert got == ["b", "a"]
    assert (await world.get("/v1/logs?namespace=default"))[1].count(b"hello") == 2
    assert (await world.get("/v1/logs?namespace=default", OTHERS))[1] == b""


async def test_ticket_hash_copied_into_another_namespace_brings_its_output_to_nobody(world: World) -> None:
    """Hashes are no secret to who can read the objects of a namespace."""
    node = world.node()
    await world.task(name="mine")
    spec = {"poolRef": {"name": "pool"}, "command": {"argv": ["true"]}, "ticketHash": HASH}
    await world.api.create(TASK, {"metadata": {"namespace": "team-b", "name": "mine"}, "spec": spec})
    copied = world.context.store.get(TASK, "team-b", "mine")
    assert copied is not None
    work = Work("team-b", "mine", copied["metadata"]["uid"], "pool", 0.0, ticket_hash=HASH)
    attempt = Attempt("x.0.1", 0, 1, "node-0", 0, 0.0)
    logs = world.tasks.gateway_backend.logs
    logs.write(work, attempt, {"at": 0}, b"copied before\n")
    await logs.written(work.uid)
    where = "/v1/logs?since=0&namespace="
    async with world.http.get(f"{world.url}{where}default&follow=1", headers=MINE) as answer:
        assert "text" not in json.loads(await answer.content.readline())
        logs.write(work, attempt, {"at": 14}, b"copied after\n")
        await logs.written(work.uid)
        say(node, "mine\n")
        assert json.loads(await answer.content.readline())["text"] == "mine\n"
    assert b"copied" not in (await world.get(f"{where}default"))[1]
    assert b"copied" in (await world.get(f"{where}team-b"))[1]


@pytest.mark.parametrize("query", ["", "?namespace=", "?namespace=..", "?namespace=A", "?follow=1"])
async def test_output_of_all_my_tasks_is_asked_for_by_namespace(world: World, query: str) -> None:
    status, text = await world.get(f"/v1/logs{query}")
    assert status == 400
    assert b"namespace" in text


async def test_a_reader_who_comes_back_gets_what_was_kept_meanwhile_and_nothing_twice(world: World) -> None:
    node = FakeNode(world.fleet, "node-0", 0, slots=2)
    node.up()
    uid = await world.task(name="a")
    await world.task(name="b")
    say(node, "first\n")
    where = f"{world.url}/v1/logs?namespace=default&follow=1&since="
    async with world.http.get(f"{where}0", headers=MINE) as answer:
        first, mark = [json.loads(await answer.content.readline()) for _ in range(2)]
        say(node, "second\n")
        second = json.loads(await answer.content.readline())
    assert (first["text"], mark, second["text"]) == ("first\n", {"kept": first["kept"]}, "second\n")
    say(node, "missed\n")
    node.finish()
    await until(lambda: world.tasks.gateway_backend.ledger.get(uid) is None)
    say(node, "missed by the other\n")
    async with world.http.get(f"{where}{second['kept']}", headers=MINE) as answer:
        replayed = [json.loads(await answer.content.readline()) for _ in range(4)]
        say(node, "what comes\n")
        assert json.loads(await answer.content.readline())["text"] == "what comes\n"
    assert [line.get("text") for line in replayed[:2]] == ["missed\n", "missed by the other\n"]
    over = {"namespace": "default", "task": "a", "done": True}
    assert replayed[2:] == [over, {"kept": replayed[1]["kept"]}]
    async with world.http.get(f"{where}soon", headers=MINE) as answer:
        assert answer.status == 400


async def test_one_who_follows_a_task_can_come_back_until_its_end(world: World) -> None:
    node = world.node()
    await world.task()
    where = f"{world.url}/v1/namespaces/default/tasks/task/logs?follow=1&since="
    say(node, "first\n")
    async with world.http.get(f"{where}0", headers=MINE) as answer:
        first, mark = [json.loads(await answer.content.readline()) for _ in range(2)]
    assert mark == {"kept": first["kept"]}
    say(node, "missed\n")
    node.finish()
    await succeeded(world, "task")
    async with world.http.get(f"{where}{first['kept']}", headers=MINE) as answer:
        missed, mark, end = [json.loads(line) for line in (await answer.content.read()).splitlines()]
    assert (missed["text"], mark, end) == ("missed\n", {"kept": missed["kept"]}, {"end": True})


async def test_what_was_kept_is_found_in_a_long_output(tmp_path: Path) -> None:
    clock = iter(range(1, 20_000))
    logs = LogBook(BlobStore(tmp_path), flush_seconds=0, now=lambda: float(next(clock)))
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)
    kept = {}
    for number in range(10_000):
        logs.write(work, attempt, {"time": 0.0}, f"line {number}\n".encode())
        kept[number] = logs.newest
    await logs.flush()
    lines = b"".join(logs.read("default", "uid-1", kept[7000], kept[7003])).splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["line 7001\n", "line 7002\n", "line 7003\n"]
    assert list(logs.read("default", "uid-1", kept[9999], logs.newest + 1)) == []
    assert len(b"".join(logs.read("default", "uid-1", 0.0, logs.newest)).splitlines()) == 10_000


async def test_output_that_comes_again_after_a_restart_is_kept_once(tmp_path: Path) -> None:
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)
    said: list[tuple[str, str, dict[str, int]]] = []

    def book() -> LogBook:
        logs = LogBook(BlobStore(tmp_path), flush_seconds=0)
        logs.on_disk = lambda *words: said.append((words[0], words[1], dict(words[2])))
        return logs

    first = book()
    first.write(work, attempt, {"at": 0}, b"one\n")
    await first.written("uid-1")
    first.write(work, attempt, {"at": 4}, b"two\n")
    await first.written("uid-1")
    assert said == [("default", "node-0", {"uid-1.0.1": 4}), ("default", "node-0", {"uid-1.0.1": 8})]
    second = book()
    second.write(work, attempt, {"at": 4}, b"two\n")
    second.write(work, attempt, {"at": 4}, b"two\nthree\n")
    second.write(work, attempt, {"at": 20, "lost": 6, "lost_lines": 1}, b"four\n")
    await second.written("uid-1")
    assert said[-1] == ("default", "node-0", {"uid-1.0.1": 25})
    kept = b"".join(second.read("default", "uid-1"))
    texts = [json.loads(line)["text"] for line in kept.splitlines()]
    assert texts == [
        "one\n",
        "two\n",
        "three\n",
        "\n… 6 bytes (1 lines) were dropped on the node: nobody took them in time\n",
        "four\n",
    ]


async def test_output_of_a_task_that_is_gone_is_declined(world: World) -> None:
    node = world.node()
    header = {"attempt": "gone.0.1", "stream": "stdout", "time": 1.0, "at": 5}
    world.fleet.listener.log("default", "node-0", header, b"late\n")
    assert node.logged_until == {"gone.0.1": 10}


async def test_character_that_frames_cut_in_two_is_whole_again(world: World) -> None:
    node = world.node()
    await world.task()
    say(node, "ü".encode()[:1])
    say(node, "ü".encode()[1:] + b"\n")
    _, body = await world.get("/v1/namespaces/default/tasks/task/logs")
    assert "".join(json.loads(line)["text"] for line in body.splitlines()) == "ü\n"


async def test_node_log_is_shown_to_the_owner_of_its_pool(world: World) -> None:
    await world.api.create(NODE, node_object("node-0", 0))
    path = world.folder / "logs" / "default" / "nodes" / "node-0.log"
    path.parent.mkdir(parents=True)
    path.write_text("first\nsecond\n")
    status, body = await world.get("/v1/namespaces/default/nodes/node-0/logs")
    assert status == 200
    assert [json.loads(line)["text"] for line in body.splitlines()] == ["first", "second"]
    assert (await world.get("/v1/namespaces/default/nodes/node-0/logs", OTHERS))[0] == 403


async def test_who_added_a_ticket_to_an_object_may_read_it_and_nothing_else(world: World) -> None:
    node = world.node()
    await world.task(ticketHash="")
    say(node, "hello\n")
    node.finish(body=b"value")
    await succeeded(world, "task")
    await world.api.create(NODE, node_object("node-0", 0))
    await world.task(package(), name="upload", ticketHash="")
    hashed = hashlib.sha256(OTHERS["Skyward-Ticket"].encode()).hexdigest()
    reads = ("tasks/task/logs", "tasks/task/result", "nodes/node-0/logs")
    for added, status in (("ü", 403), (hashed, 200)):
        body = {"metadata": {"annotations": {ANNOTATION_TICKET: added}}}
        for kind, name in ((TASK, "task"), (TASK, "upload"), (POOL, "pool")):
            await world.api.patch(kind, "default", name, body)
        got = [(await world.get(f"/v1/namespaces/default/{where}", OTHERS))[0] for where in reads]
        assert got == [status] * 3
    assert (await world.put(package(), name="upload", headers=OTHERS))[0] == 403
    assert (await world.get("/v1/logs?namespace=default", OTHERS))[1] == b""
    assert (await world.get("/v1/namespaces/default/nodes/node-0/logs"))[0] == 200


async def test_reader_is_known_before_the_watch_brings_the_annotation(world: World) -> None:
    await world.task(ticketHash="")
    stale = world.context.store.get(TASK, "default", "task")
    await world.api.patch(TASK, "default", "task", {"metadata": {"annotations": {ANNOTATION_TICKET: HASH}}})
    assert stale is not None
    world.context.store.put(TASK, stale)
    assert (await world.get("/v1/namespaces/default/tasks/task/logs"))[0] == 200


async def test_node_log_is_followed_while_the_node_is_made(world: World) -> None:
    await world.api.create(NODE, node_object("node-0", 0, "Bootstrapping"))
    path = world.folder / "logs" / "default" / "nodes" / "node-0.log"
    path.parent.mkdir(parents=True)
    path.write_text("first\nsec")
    where = f"{world.url}/v1/namespaces/default/nodes/node-0/logs?follow=1"
    async with world.http.get(where, headers=MINE) as answer:
        assert json.loads(await answer.content.readline())["text"] == "first"
        with path.open("a") as file:
            file.write("ond\n")
        assert json.loads(await answer.content.readline())["text"] == "second"
        await world.api.patch_status(NODE, "default", "node-0", {"phase": "Ready"})
        assert await answer.content.read() == b""


async def test_gateway_is_healthy(world: World) -> None:
    status, body = await world.get("/v1/healthz", {})
    assert (status, json.loads(body)["status"]) == (200, "ok")


async def test_slow_follower_is_let_go_and_finds_the_rest_on_disk(tmp_path: Path) -> None:
    logs = LogBook(BlobStore(tmp_path), flush_seconds=0)
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)
    follower = Follower(lambda work: True, limit=600)
    logs.follow(follower)
    for number in range(5):
        logs.write(work, attempt, {"at": 2 * number}, f"{number}\n".encode())
    await logs.flush()
    got = await follower.next()
    assert got is not None
    seen = [json.loads(line) for line in got.splitlines()]
    assert 0 < len(seen) < 5
    assert follower.behind
    assert await follower.next() is None
    rest = b"".join(logs.read("default", "uid-1", seen[-1]["kept"]))
    texts = [line["text"] for line in seen] + [json.loads(line)["text"] for line in rest.splitlines()]
    assert texts == [f"{number}\n" for number in range(5)]


def read(logs: LogBook, after: float = 0.0, until: float = float("inf")) -> list[dict[str, Any]]:
    """What is kept of the only task."""
    return [json.loads(line) for line in b"".join(logs.read("default", "uid-1", after, until)).splitlines()]


async def test_reader_who_comes_back_gets_what_is_kept_and_hears_of_what_is_not(tmp_path: Path) -> None:
    logs = LogBook(BlobStore(tmp_path), limit=40_000, flush_seconds=0)
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)

    async def print_lines(first: int, last: int) -> None:
        for number in range(first, last):
            logs.write(work, attempt, {"time": float(number)}, f"line {number}\n".encode())
            if number % 10 == 0:
                await logs.flush()
        await logs.flush()

    await print_lines(0, 10)
    seen = read(logs)[-1]["kept"]
    await print_lines(10, 20)
    assert [record["text"] for record in read(logs, seen)] == [f"line {n}\n" for n in range(10, 20)]
    middle = read(logs)[-1]["kept"]
    slow = logs.read("default", "uid-1", 0.0, middle)
    await print_lines(20, 3000)
    back = read(logs, seen)
    (gap,) = [record for record in back if "gap" in record]
    place = back.index(gap)
    assert (gap["task"], gap["namespace"]) == ("task", "default")
    numbers = [int(record["text"].split()[1]) for record in back if record is not gap]
    assert numbers[:place] == list(range(10, 10 + place))
    assert numbers[place:] == list(range(numbers[place], 3000))
    assert not [record for record in read(logs, back[place + 1]["kept"]) if "gap" in record]
    later = read(logs, back[place + 5]["kept"])
    await print_lines(3000, 6000)
    assert "gap" in read(logs, later[0]["kept"])[0]
    assert "gap" in read(logs, later[0]["kept"], later[-1]["kept"])[0]
    assert [json.loads(line)["text"] for line in b"".join(slow).splitlines()] == [
        f"line {n}\n" for n in range(20)
    ]


async def test_slow_reader_gets_what_was_there_when_it_began(tmp_path: Path) -> None:
    logs = LogBook(BlobStore(tmp_path), limit=400_000, flush_seconds=0)
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)
    for turn in range(2):
        for number in range(100):
            logs.write(work, attempt, {}, f"{turn} {number} ".encode() + b"x" * 3000 + b"\n")
            await logs.flush()
        if not turn:
            expected = read(logs)
            slow = logs.read("default", "uid-1", 0.0, logs.stored)
            begun = next(slow)
    assert [json.loads(line) for line in (begun + b"".join(slow)).splitlines()] == expected


async def test_output_that_a_restarted_operator_takes_in_is_no_gap(tmp_path: Path) -> None:
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)
    for number in range(2):
        logs = LogBook(BlobStore(tmp_path), flush_seconds=0)
        logs.write(work, attempt, {"at": 2 * number}, f"{number}\n".encode())
        await logs.flush()
    assert [record["text"] for record in read(logs)] == ["0\n", "1\n"]
    assert [record["text"] for record in read(logs, read(logs)[0]["kept"])] == ["1\n"]


async def test_record_that_a_kill_has_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)
    folder = tmp_path / "default" / "uid-1"
    folder.mkdir(parents=True)
    (folder / "head").write_bytes(b'{"kept":1.0,"text":"one\\n"}\n{"kept":2.0,"te')
    logs = LogBook(BlobStore(tmp_path), flush_seconds=0)
    logs.write(work, attempt, {"at": 4}, b"two\n")
    await logs.flush()
    kept = b"".join(logs.read("default", "uid-1"))
    assert [json.loads(line)["text"] for line in kept.splitlines()] == ["one\n", "two\n"]


async def test_endless_output_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    logs = LogBook(BlobStore(tmp_path), limit=40_000, flush_seconds=0)
    work = Work("default", "task", "uid-1", "pool", 0.0)
    attempt = Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0)
    for number in range(3000):
        logs.write(work, attempt, {"stream": "stdout", "time": float(number)}, f"line {number}\n".encode())
        if number % 10 == 0:
            await logs.flush()
    await logs.flush()
    kept = b"".join(logs.read("default", "uid-1"))
    assert len(kept) < 45_000
    texts = [json.loads(line)["text"] for line in kept.splitlines()]
    assert texts[0] == "line 0\n"
    assert texts[-1] == "line 2999\n"
    assert any("dropped" in text for text in texts)
