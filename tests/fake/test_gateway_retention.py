"""Output on disk stays within its limits, and readers are told what is missing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.fake.cluster_fakes import until
from tests.fake.test_gateway import World, say, succeeded

from skyward.contract.names import NODE, POOL, node_name
from skyward_operator.gateway.blobs import BlobStore
from skyward_operator.gateway.keeper import Keeper
from skyward_operator.gateway.logs import LogBook
from skyward_operator.gateway.retention import Limits
from skyward_operator.nodes.log import NodeLog
from skyward_operator.tasks.flights import Attempt
from skyward_operator.tasks.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MIB = 1 << 20
LINE = b"x" * 999 + b"\n"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as made:
        yield made


def keeper(world: World, limits: Limits) -> Keeper:
    """What looks after the output of a world, with other limits than its own."""
    return Keeper(world.context, world.tasks.gateway_backend.logs, limits)


def age(path: Path, days: float) -> None:
    """Let a file or all files of a folder have been written some days ago."""
    for each in path.iterdir() if path.is_dir() else [path]:
        moment = each.stat().st_mtime - days * 86_400.0
        os.utime(each, (moment, moment))


def on_disk(folder: Path) -> int:
    """Bytes of a task's output."""
    return sum(path.stat().st_size for path in folder.iterdir())


async def printed(world: World, task: str) -> list[str]:
    """What is read of a task's output."""
    _, body = await world.get(f"/v1/namespaces/default/tasks/{task}/logs")
    return [json.loads(line)["text"] for line in body.splitlines()]


async def test_output_of_tasks_that_ended_long_ago_goes_and_says_so(world: World) -> None:
    node = world.node()
    uids = {}
    for name in ("old", "new"):
        uids[name] = await world.task(name=name)
        say(node, f"{name}\n" * 500)
        node.finish()
        await succeeded(world, name)
    folder = world.folder / "output" / "default"
    age(folder / uids["old"], 31)
    limits = Limits(MIB, MIB, 30.0)
    for _ in range(2):
        await keeper(world, limits).look()
        (note,) = await printed(world, "old")
        assert note.startswith("(output was removed here on ")
        assert note.endswith("older than 30 days)\n")
        assert await printed(world, "new") == ["new\n" * 500]
    age(folder / uids["new"], 1)
    await keeper(world, Limits(MIB, 1000, 30.0)).look()
    (note,) = await printed(world, "new")
    assert "all output together was more than 1,000 bytes" in note


async def test_task_that_runs_keeps_beginning_and_end_when_there_is_no_room(world: World) -> None:
    node = world.node()
    uid = await world.task()
    for number in range(4000):
        say(node, f"{number} ".encode() + LINE)
    logs = world.tasks.gateway_backend.logs
    await logs.flush()
    await keeper(world, Limits(64 * MIB, MIB, 30.0)).look()
    assert on_disk(world.folder / "output" / "default" / uid) <= MIB
    say(node, "latest\n")
    await logs.flush()
    texts = await printed(world, "task")
    assert texts[0].startswith("0 x")
    assert texts[-1] == "latest\n"
    assert [text for text in texts if "dropped here" in text]
    numbers = [int(text.split()[0]) for text in texts if "x" in text]
    assert numbers == sorted(set(numbers))


async def test_logs_of_nodes_that_are_gone_go_with_their_pool(world: World) -> None:
    pool = world.context.store.get(POOL, "default", "pool")
    assert pool is not None
    gone = node_name("pool", pool["metadata"]["uid"], 0, 1)
    log = NodeLog(world.folder, "default", gone, world.context.clock)
    for _ in range(100):
        log.line("made")
    age(log.path, 31)
    limits = Limits(MIB, MIB, 30.0)
    await keeper(world, limits).look()
    assert "older than 30 days" in log.path.read_text()
    await world.api.delete(POOL, "default", "pool")
    await keeper(world, limits).look()
    assert log.path.exists()
    age(log.path, 31)
    await keeper(world, limits).look()
    assert not log.path.exists()
    assert world.context.store.list(NODE) == []


async def test_much_new_output_is_looked_at_soon(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        node, uid = world.node(), await world.task(name="first")
        say(node, LINE * 2000)
        node.finish()
        await succeeded(world, "first")
        running = keeper(world, Limits(64 * MIB, 4 * MIB, 30.0)).run()
        looking = world.context.supervisor.spawn("looking", running)
        await world.task(name="second")
        folder = tmp_path / "output" / "default" / uid
        for _ in range(3):
            assert not (folder / "removed").exists()
            say(node, LINE * 1000)
            await world.tasks.gateway_backend.logs.flush()
        await until(lambda: (folder / "removed").exists())
        looking.cancel()


async def test_much_that_comes_at_once_stays_within_the_limit_of_its_task(tmp_path: Path) -> None:
    logs = LogBook(BlobStore(tmp_path), limit=MIB, flush_seconds=60)
    work, attempt = (
        Work("default", "task", "uid-1", "pool", 0.0),
        Attempt("uid-1.0.1", 0, 1, "node-0", 0, 0.0),
    )
    for number in range(4000):
        logs.write(work, attempt, {"at": number * 1006}, f"{number:05} ".encode() + LINE)
    await logs.flush()
    assert on_disk(tmp_path / "default" / "uid-1") <= MIB
    texts = [json.loads(line)["text"] for line in b"".join(logs.read("default", "uid-1")).splitlines()]
    assert (texts[0][:5], texts[-1][:5]) == ("00000", "03999")


async def test_output_of_others_is_written_where_that_of_one_task_cannot_be(tmp_path: Path) -> None:
    logs = LogBook(BlobStore(tmp_path), flush_seconds=0)
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "uid-1").write_text("in the way")
    for number in (1, 2):
        work = Work("default", f"task-{number}", f"uid-{number}", "pool", 0.0)
        logs.write(work, Attempt(f"uid-{number}.0.1", 0, 1, "node-0", 0, 0.0), {"at": 0}, b"hello\n")
    await logs.flush()
    assert b"hello" in b"".join(logs.read("default", "uid-2"))
