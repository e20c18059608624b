"""An operator with a bucket, and the one that comes after it on another machine, with an empty disk."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.cluster_fakes import FakeNode, node_object, until
from tests.fake.s3_server import S3Server, s3_server
from tests.fake.test_gateway import MINE, World, package

from skyward.contract.names import NODE, POOL, TASK
from skyward.wire.package import pack_calls
from skyward_operator.tasks import custody

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CRDS = "customresourcedefinitions"
RESULT = "/v1/namespaces/default/tasks/task/result"
LARGE = os.urandom(3_000_000)

pytestmark = pytest.mark.timeout(400)  # run alone, it may have to build the server first


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as made:
        yield made


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(custody, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(custody, "_LONGEST_PAUSE", 0.05)


class Cluster:
    """One API server and bucket; operators come and go, each on a new disk."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.uid = f"crd-{os.urandom(4).hex()}"
        self.count = 0

    def operator(self, before: World | None = None) -> World:
        """The next operator, which finds nothing on its disk."""
        self.count += 1
        folder = self.folder / f"machine-{self.count}"
        return World(folder, before=before, blob_store=self.server.bucket())

    def know(self, world: World) -> World:
        """The API server has the CRD."""
        crd = {"metadata": {"name": TASK.crd_name, "uid": self.uid}}
        world.api.objects[CRDS, "", TASK.crd_name] = crd
        return world

    def kept(self, uid: str) -> set[str]:
        """The names of what is in the bucket of a task."""
        prefix = f"skyward/{self.uid}/default/{uid}/"
        return {key.removeprefix(prefix) for key in self.server.objects() if key.startswith(prefix)}


@pytest.fixture
def cluster(server: S3Server, tmp_path: Path) -> Cluster:
    return Cluster(server, tmp_path)


def many(count: int) -> dict[str, Any]:
    inside = b64encode(pack_calls([b"f"], [(0, b"x")] * count)).decode()
    return {"python": "3.13", "count": count, "package": inside}


async def ended(world: World, phase: str = "Succeeded") -> dict[str, Any]:
    await until(lambda: world.api.status("task").get("phase") == phase, 30)
    return world.api.status("task")


async def test_ended_tasks_give_their_results_to_an_operator_with_an_empty_disk(cluster: Cluster) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        node = first.node()
        uid = await first.task(package())
        assert await first.put(package()) == (204, "")
        node.finish(body=LARGE)
        await ended(first)
        assert cluster.kept(uid) == {"payload", "results"}
        status, whole = await first.get(RESULT)
        assert status == 200
        assert LARGE in whole
    async with cluster.operator(first) as second:
        assert second.files(uid) == []
        assert await second.get(RESULT) == (200, whole)
        assert await second.get(RESULT, MINE | {"Range": "bytes=1000000-"}) == (206, whole[1_000_000:])
        assert (await second.get(RESULT, MINE | {"Range": "bytes=99999999-"}))[0] == 416
        assert (await second.get(RESULT, MINE | {"Range": "bytes=5-9"}))[0] == 416
        where = RESULT + "s"
        status, parts = await second.get(f"{where}?from={len(whole) - 10}")
        assert status == 200
        assert whole[-10:] in parts
        await second.api.delete(TASK, "default", "task")
        await until(lambda: cluster.kept(uid) == set())


async def test_a_payload_comes_back_to_an_operator_with_an_empty_disk(cluster: Cluster) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        uid = await first.task(package())
        assert await first.put(package()) == (204, "")
        assert cluster.kept(uid) == {"payload"}
    async with cluster.operator(first) as second:
        node = second.node()
        await until(lambda: node.calls)
        assert second.files(uid) == ["payload"]
        node.finish(body=b"value")
        await ended(second)


async def test_a_half_sent_payload_is_not_kept(cluster: Cluster) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        uid = await first.task(package())
        assert (await first.put(b"b" * len(package())))[0] == 422
        assert cluster.kept(uid) == set()
    async with cluster.operator(first) as second:
        assert await second.put(package()) == (204, "")
        assert cluster.kept(uid) == {"payload"}


async def test_outcomes_that_were_all_kept_end_the_task_though_no_status_said_so(cluster: Cluster) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        node = first.node()
        uid = await first.task()

        async def dies(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        patch, first.api.patch_status = first.api.patch_status, dies  # type: ignore[method-assign]
        first.api.task("task")["status"] = {"startTime": "2026-01-01T00:00:00Z", "phase": "Running"}
        node.finish(body=LARGE)
        await until(lambda: cluster.kept(uid) == {"results"}, 30)
    first.api.patch_status = patch  # type: ignore[method-assign]
    async with cluster.operator(first) as second:
        node = second.node()
        await ended(second)
        assert node.calls == []
        assert LARGE in (await second.get(RESULT))[1]


@pytest.mark.parametrize(("retries", "phase"), [(3, "Succeeded"), (0, "Failed")])
async def test_outcomes_on_a_lost_disk_run_again_only_where_that_is_allowed(
    cluster: Cluster, retries: int, phase: str
) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        await first.api.create(NODE, node_object("node-0", 0) | {"status": {"phase": "Ready"}})
        node = FakeNode(first.fleet, "node-0", 0, slots=2)
        node.up()
        await first.task(calls=many(2), retry={"onInterruption": retries})
        await until(lambda: len(node.waiting()) == 2)
        node.finish(body=b"first")
        await until(lambda: first.api.status("task").get("counts", {}).get("succeeded") == 1)
        assert first.api.status("task")["succeededIndexes"] == "0"
    async with cluster.operator(first) as second:
        again = FakeNode(second.fleet, "node-0", 0, slots=2)
        again.held = {name: state for name, state in node.held.items() if state == "running"}
        again.up()
        if retries:
            await until(lambda: len(again.waiting()) == 2)
            attempts = {call[0]["attempt"].split(".", 1)[1] for call in again.calls}
            assert attempts == {"0.2"}
            again.finish(next(name for name in again.waiting() if name.endswith(".0.2")))
        again.finish(next(name for name in again.waiting() if name.endswith(".1.1")))
        status = await ended(second, phase)
        assert [
            (each["index"], each["cause"]) for each in status["attempts"]["recent"] if "cause" in each
        ] == [(0, "ResultLost")]
        assert len(again.calls) == (1 if retries else 0)
        if not retries:
            assert status["reason"] == "Indeterminate"


@pytest.mark.parametrize("how", ["cancel", "pool"])
async def test_a_task_that_waits_for_its_store_can_be_given_up(
    cluster: Cluster, server: S3Server, how: str
) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        node = first.node()
        await first.task()
        await until(lambda: node.waiting())
        server.stop()
        try:
            node.finish(body=LARGE)
            await until(lambda: first.api.status("task").get("reason") == "AwaitingStorage", 60)
            if how == "cancel":
                await first.api.patch(TASK, "default", "task", {"spec": {"cancel": True}})
            else:
                await first.api.delete(POOL, "default", "pool")
            status = await ended(first, "Cancelled")
        finally:
            server.start()
        assert "what its calls returned is lost" in status["message"]
        assert "cannot be stored yet" in status["message"]


async def test_a_task_waits_for_its_store_and_says_so(cluster: Cluster, server: S3Server) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        node = first.node()
        uid = await first.task()
        await until(lambda: node.waiting())
        server.stop()
        try:
            node.finish(body=LARGE)
            await until(lambda: "cannot be stored yet" in first.api.status("task").get("message", ""), 60)
            assert first.api.status("task")["phase"] == "Running"
            assert first.api.status("task")["reason"] == "AwaitingStorage"
            await first.task(package(), name="other")
            status, text = await first.put(package(), name="other")
            assert status == 503
            assert "the payload cannot be stored: s3://blobs/skyward/" in text
        finally:
            server.start()
        await ended(first)
        assert cluster.kept(uid) == {"results"}
        # all of the payload has come: its client has only to ask again
        there = MINE | {"Upload-Offset": str(len(package()))}
        assert await first.put(b"", name="other", headers=there) == (204, "")
        assert cluster.kept(first.api.task("other")["metadata"]["uid"]) == {"payload"}


async def test_what_no_task_owns_is_swept_from_the_bucket_and_what_one_owns_is_not(
    cluster: Cluster, server: S3Server
) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        uid = await first.task(package())
        assert await first.put(package()) == (204, "")
    for key in (
        f"skyward/{cluster.uid}/default/gone-uid/payload",
        "skyward/another-cluster/default/uid/payload",
    ):
        server.client().put_object(Bucket="blobs", Key=key, Body=b"x")
    async with cluster.operator(first):
        await until(lambda: cluster.kept("gone-uid") == set())
        assert cluster.kept(uid) == {"payload"}
        assert "skyward/another-cluster/default/uid/payload" in server.objects()


async def test_members_of_a_broadcast_are_the_same_for_the_next_operator(cluster: Cluster) -> None:
    async with cluster.operator() as first:
        cluster.know(first)
        nodes = [FakeNode(first.fleet, f"node-{rank}", rank) for rank in range(2)]
        for node in nodes:
            node.up()
        uid = await first.task(target={"mode": "All"})
        await until(lambda: all(node.waiting() for node in nodes))
        await until(lambda: cluster.kept(uid) == {"members"})
        await until(lambda: first.api.status("task").get("startTime"))
    async with cluster.operator(first) as second:
        live = second.tasks.gateway_backend.ledger.get(uid)
        assert live is not None
        assert [(member.node, member.rank) for member in live.members] == [("node-0", 0), ("node-1", 1)]
