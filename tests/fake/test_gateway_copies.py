"""Payloads that have come and go into a store that takes longer than a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import until
from tests.fake.test_gateway import MINE, PAYLOAD, World, package

from skyward_operator.gateway import uploads
from skyward_operator.gateway.stores import Blob, DiskStore, StoreError
from skyward_operator.tasks import custody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


class SlowStore:
    """What keeps files, at the pace of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.gate = asyncio.Event()
        self.problem: Exception | None = None
        self.told: Callable[[int], object] | None = None
        monkeypatch.setattr(DiskStore, "keep", self.keep)
        monkeypatch.setattr(uploads, "COPY_SECONDS", 0.02)

    async def keep(self, blob: Blob, path: Path, progressed: Callable[[int], object] | None = None) -> None:
        self.begun += 1
        self.told = progressed
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem


async def test_copy_into_a_slow_store_is_joined_and_says_how_far_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, store, size = world.node(), SlowStore(monkeypatch), len(package())
    uid = await world.task(package())
    where = f"{world.url}{PAYLOAD}"
    rest = {**MINE, "Upload-Offset": str(size)}
    async with world.http.put(where, data=package(), headers=MINE) as answer:
        assert (answer.status, answer.headers["Upload-Kept"]) == (202, "0")
    live = world.tasks.gateway_backend.ledger.get(uid)
    assert live is not None
    assert store.told is not None
    for kept in (1000, 2000):
        heard = live.payload_heard
        store.told(1000)
        assert live.payload_heard >= heard
        async with world.http.put(where, data=b"", headers=rest) as answer:
            assert (answer.status, answer.headers["Upload-Kept"]) == (202, str(kept))
    assert await world.uploaded() == (size, False)
    assert node.calls == []
    store.gate.set()
    assert (await world.put(b"", headers=rest))[0] == 204
    assert store.begun == 1
    await until(lambda: len(node.calls) == 1)


async def test_copy_that_fails_is_heard_of_and_begins_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rest = SlowStore(monkeypatch), {**MINE, "Upload-Offset": str(len(package()))}
    uid = await world.task(package())
    assert (await world.put(package()))[0] == 202
    store.problem = StoreError("s3://b is away")
    store.gate.set()
    status, text = await world.put(b"", headers=rest)
    assert (status, text) == (503, "the payload cannot be stored: s3://b is away")
    store.problem = None
    assert (await world.put(b"", headers=rest))[0] == 204
    assert world.payload(uid).read_bytes() == package()


async def test_copy_that_nobody_waits_for_is_used_when_it_is_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, store = world.node(), SlowStore(monkeypatch)
    await world.task(package())
    assert (await world.put(package()))[0] == 202
    store.gate.set()
    await until(lambda: len(node.calls) == 1)


async def test_results_on_their_way_into_a_slow_store_say_how_far_they_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, store = world.node(), SlowStore(monkeypatch)
    monkeypatch.setattr(custody, "_TOLD_SECONDS", 0.02)
    monkeypatch.setattr(custody, "_FIRST_PAUSE", 0.02)
    await world.task()
    await until(lambda: bool(node.waiting()))
    node.finish(body=bytes(3_000_000))

    def says(words: str) -> bool:
        return words in world.api.status("task").get("message", "")

    await until(lambda: says("its results are being stored: 0.0 of 3.0 MB are in the store"), 20)
    assert world.api.status("task")["phase"] == "Running"
    assert world.api.status("task")["reason"] == "AwaitingStorage"
    assert store.told is not None
    store.told(2_000_000)
    await until(lambda: says("2.0 of 3.0 MB"), 20)
    store.problem = StoreError("s3://b is away")
    store.gate.set()
    await until(lambda: says("cannot be stored yet: s3://b is away"), 20)
    store.problem = None
    await until(lambda: world.api.status("task").get("phase") == "Succeeded", 20)
