"""The S3 store on a real S3 server: whole or not at all, and nothing of anybody else's."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest
from boto3.exceptions import S3UploadFailedError
from tests.chaos.cut_proxy import Cut, CutProxy
from tests.fake.s3_server import S3Server, s3_server

from skyward.wire.digest import digest
from skyward.wire.package import pack_calls
from skyward_operator.gateway.stores import Blob, StoreError
from skyward_operator.gateway.stores.recall import recall, recall_payload
from skyward_operator.gateway.stores.s3 import S3Store, _words
from skyward_operator.tasks.work import Blob as Package

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from skyward_operator.settings import Bucket

MIB = 1 << 20
PART = 5 * MIB
"""The least that S3 takes for a part that is not the last."""
ONE = Blob("default", "uid-1", "payload")

pytestmark = pytest.mark.timeout(400)  # run alone, it may have to build the server first


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as made:
        yield made


@pytest.fixture(autouse=True)
def credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def made(
    server: S3Server, installation: str = "one", *, bucket: Bucket | None = None, **options: object
) -> S3Store:
    async def name() -> str:
        return installation

    return S3Store(bucket or server.bucket(), name, part=PART, **options)  # type: ignore[arg-type]


@pytest.fixture
async def store(server: S3Server) -> AsyncIterator[S3Store]:
    it = made(server, f"i-{os.urandom(4).hex()}")
    yield it
    it.close()


def file_of(folder: Path, size: int) -> Path:
    path = folder / f"file-{size}"
    path.write_bytes(os.urandom(size))
    return path


async def content(store: S3Store, blob: Blob, start: int = 0) -> bytes:
    return b"".join([piece async for piece in store.read(blob, start)])


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 4 * PART + 7])
async def test_what_was_kept_is_read_back_from_any_byte(store: S3Store, tmp_path: Path, size: int) -> None:
    path = file_of(tmp_path, size)
    await store.keep(ONE, path)
    assert await store.size(ONE) == size
    whole = path.read_bytes()
    assert await content(store, ONE) == whole
    for start in {1, size // 2, size - 1} & set(range(1, size)):
        assert await content(store, ONE, start) == whole[start:]


async def test_keeping_again_brings_what_the_file_is_now(store: S3Store, tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(b"first")
    await store.keep(ONE, path)
    path.write_bytes(b"other")
    await store.keep(ONE, path)
    assert await content(store, ONE) == b"other"


async def test_what_was_never_kept_is_not_there(store: S3Store, tmp_path: Path) -> None:
    assert await store.size(ONE) is None
    with pytest.raises(FileNotFoundError):
        await content(store, ONE)
    assert not await recall(store, ONE, tmp_path / "payload")
    assert os.listdir(tmp_path) == []
    await store.remove("default", "uid-1")


async def test_a_damaged_object_is_not_recalled(store: S3Store, server: S3Server, tmp_path: Path) -> None:
    package = pack_calls([b"function"], [(0, os.urandom(1000))])
    path = tmp_path / "sent"
    path.write_bytes(package)
    await store.keep(ONE, path)
    right = Package(digest(package), len(package))
    assert await recall_payload(store, ONE, tmp_path / "good", right, lambda: None)
    assert (tmp_path / "good").read_bytes() == package
    for damaged in (b"x" + package[1:], package[:-1], package + b"x"):
        server.client().put_object(Bucket="blobs", Key=await store._key(ONE), Body=damaged)
        with pytest.raises(StoreError, match="damaged"):
            await recall_payload(store, ONE, tmp_path / "bad", right, lambda: None)
    assert set(os.listdir(tmp_path)) == {"sent", "good"}


async def test_a_half_sent_upload_is_never_seen_and_swept(
    store: S3Store, server: S3Server, tmp_path: Path
) -> None:
    key = await store._key(ONE)
    client = server.client()
    begun = client.create_multipart_upload(Bucket="blobs", Key=key)
    client.upload_part(Bucket="blobs", Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=bytes(PART))
    assert await store.size(ONE) is None
    assert server.uploads() == [key]
    assert await store.sweep() == set()
    assert server.uploads() == []


async def test_a_server_that_dies_in_an_upload_leaves_nothing_that_counts(
    store: S3Store, server: S3Server, tmp_path: Path
) -> None:
    path = file_of(tmp_path, 8 * PART)
    moved = asyncio.Event()
    job = asyncio.create_task(store.keep(ONE, path, lambda _: moved.set()))
    await asyncio.wait_for(moved.wait(), 20)
    server.stop()
    try:
        with pytest.raises(StoreError, match="cannot be stored"):
            await job
    finally:
        server.start()
    assert await store.size(ONE) is None
    await store.keep(ONE, path)
    assert await content(store, ONE) == path.read_bytes()
    await store.sweep()
    assert server.uploads() == []


@pytest.mark.parametrize("seed", range(12))
async def test_cuts_at_random_bytes_damage_nothing(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever breaks on the way: what was kept is whole, what was not is not there, and a reader goes on."""
    monkeypatch.setattr("skyward_operator.gateway.stores.s3._SILENCE_SECONDS", 0.5)
    dice = random.Random(seed)
    path = file_of(tmp_path, dice.choice((1000, PART + 1000, 3 * PART)))
    async with CutProxy(("127.0.0.1", server.port)) as proxy:
        through = replace(server.bucket(), endpoint=f"http://127.0.0.1:{proxy.port}")
        store = made(server, f"cut-{seed}-{os.urandom(2).hex()}", bucket=through)
        proxy.cuts.extend(Cut.random(dice, 2 * PART) for _ in range(dice.randint(2, 12)))
        kept = False
        while not kept:
            try:
                await store.keep(ONE, path)
                kept = True
            except StoreError:
                straight = made(server, (await store._base()).partition("/")[2])
                assert await straight.size(ONE) in (None, path.stat().st_size)
                straight.close()
        proxy.cuts.extend(Cut.random(dice, 2 * PART) for _ in range(dice.randint(2, 12)))
        proxy.cut_now("close")
        got = bytearray()
        while len(got) < path.stat().st_size:
            with suppress(StoreError):
                async for piece in store.read(ONE, len(got)):
                    got += piece
        assert got == path.read_bytes()
        store.close()


async def test_removing_a_task_removes_all_of_it_and_nothing_else(
    store: S3Store, server: S3Server, tmp_path: Path
) -> None:
    path = file_of(tmp_path, 100)
    for blob in (ONE, Blob("default", "uid-1", "results"), Blob("default", "uid-10", "payload")):
        await store.keep(blob, path)
    await store.remove("default", "uid-1")
    assert await store.size(ONE) is None
    assert await store.sweep() == {("default", "uid-10")}


async def test_installations_and_namespaces_in_one_prefix_do_not_see_each_other(
    server: S3Server, tmp_path: Path
) -> None:
    mine, yours = made(server, "mine", namespaces=("a", "b")), made(server, "yours")
    path = file_of(tmp_path, 10)
    for store in (mine, yours):
        for namespace in ("a", "b", "c"):
            await store.keep(Blob(namespace, "uid", "payload"), path)
    upload = server.client().create_multipart_upload(Bucket="blobs", Key=await yours._key(ONE))
    assert await mine.sweep() == {("a", "uid"), ("b", "uid")}
    assert await yours._key(ONE) in server.uploads()
    await mine.remove("a", "uid")
    assert await yours.size(Blob("a", "uid", "payload")) == 10
    assert await yours.sweep() == {("a", "uid"), ("b", "uid"), ("c", "uid")}
    assert upload["Key"] not in server.uploads()
    for store in (mine, yours):
        store.close()


async def test_memory_stays_bounded_whatever_the_size(store: S3Store, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(MIB))
    await store.keep(ONE, file_of(tmp_path, PART + 1))
    process = psutil.Process()
    before, most = process.memory_info().rss, 0

    def look() -> None:
        nonlocal most
        most = max(most, process.memory_info().rss)

    await store.keep(ONE, path, lambda _: look())
    size = 0
    async for piece in store.read(ONE):
        size += len(piece)
        look()
    assert size == 256 * MIB
    assert most - before < 64 * MIB, f"{(most - before) / MIB:.0f} MiB for a file of 256 MiB"


async def test_what_is_wrong_is_said_with_a_remedy(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path, 10)

    async def complaint() -> str:
        store = made(server)
        with pytest.raises(StoreError) as caught:
            await store.keep(ONE, path)
        store.close()
        return str(caught.value)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    said = await complaint()
    assert "s3://blobs/skyward/ at http://127.0.0.1" in said
    assert "correct AWS_SECRET_ACCESS_KEY" in said
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    assert "give the operator a role" in await complaint()


def test_what_is_said_of_a_store_is_short_and_the_same_each_time() -> None:
    def words(part: int) -> str:
        url = f"http://127.0.0.1:19902/blobs/sky/a/b/payload?uploadId={part * 7}&partNumber={part}"
        problem = f'Could not connect to the endpoint URL: "{url}"'
        return _words(S3UploadFailedError(f"Failed to upload /data/{part}.part to blobs/sky/a: {problem}"))

    assert words(1) == words(2)
    assert words(1) == (
        'Could not connect to the endpoint URL: "http://127.0.0.1:19902"; '
        "see whether it runs and whether --s3-endpoint is right"
    )
