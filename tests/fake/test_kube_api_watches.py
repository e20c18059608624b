"""The intake against watches that break in every way: the store ends up equal to the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.kube_server import FakeKube, collection, eventually

from skyward.contract.names import KINDS, TASK
from skyward_operator.engine.clock import SystemClock
from skyward_operator.kube import intake as intake_module
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection
from skyward_operator.kube.intake import Intake
from skyward_operator.kube.resync import Resync
from skyward_operator.kube.store import Store
from skyward_operator.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TASKS = collection("tasks")


class Watched:
    """An intake that runs against a fake server."""

    def __init__(self, kube: FakeKube, api: Api, namespaces: tuple[str, ...] = ()) -> None:
        self.kube = kube
        self.store = Store()
        self.metrics = Metrics()
        self.resync = Resync(api, self.store, namespaces=namespaces, metrics=self.metrics)
        self.intake = Intake(
            kube.credentials(),
            self.store,
            self.resync,
            SystemClock(),
            namespaces=namespaces,
            metrics=self.metrics,
        )
        self.places = len(namespaces) or 1
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """List everything, watch, and wait until all watches are open."""
        await self.resync.all()
        self._tasks = [asyncio.create_task(self.intake.run()), asyncio.create_task(self.resync.run())]
        await eventually(lambda: self.kube.watching == len(KINDS) * self.places)

    async def stop(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def names(self) -> set[str]:
        """The names of the known tasks."""
        return {obj["metadata"]["name"] for obj in self.store.list(TASK)}

    def restarts(self) -> bool:
        """Whether the intake was started again."""
        return "skyward_intake_restarts_total 1.0" in self.metrics.text().decode()


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with FakeKube() as kube, Connection(kube.credentials()) as connection:
        subject = Watched(kube, Api(connection))
        await subject.start()
        yield subject
        await subject.stop()


def task(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": TASK.api_version,
        "kind": "Task",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"poolRef": {"name": "gpus"}} | spec,
    }


async def test_objects_come_change_and_go(watched: Watched) -> None:
    told: list[str] = []
    watched.store.subscribe(
        TASK, lambda old, new: told.append("new" if old is None else "gone" if new is None else "changed")
    )
    watched.kube.put(TASKS, task("a"))
    await eventually(lambda: watched.names() == {"a"})
    watched.kube.put(TASKS, task("a", cancel=True))
    await eventually(lambda: told == ["new", "changed"])
    watched.kube.remove(TASKS, "a")
    await eventually(lambda: told == ["new", "changed", "gone"])

    assert watched.names() == set()


async def test_nothing_is_written_by_the_intake(watched: Watched) -> None:
    watched.kube.put(TASKS, task("a"))
    await eventually(lambda: watched.names() == {"a"})

    assert {method for method, _ in watched.kube.requests} == {"GET"}


async def test_watches_begin_where_the_first_list_ended_and_nothing_is_listed_twice(watched: Watched) -> None:
    assert watched.kube.count("GET", "limit=500") == len(KINDS)
    assert watched.kube.count("GET", "continue=") == 0


async def test_what_comes_between_the_first_list_and_the_watch_is_not_missed() -> None:
    async with FakeKube() as kube, Connection(kube.credentials()) as connection:
        subject = Watched(kube, Api(connection))
        await subject.resync.all()
        kube.put(TASKS, task("between"))
        running = asyncio.create_task(subject.intake.run())

        await eventually(lambda: subject.names() == {"between"})
        running.cancel()
        await asyncio.wait({running})


async def test_a_cut_watch_continues_without_a_new_list(watched: Watched) -> None:
    lists = watched.kube.count("GET", "limit=")
    watched.kube.cut_watches()
    watched.kube.put(TASKS, task("b"))

    await eventually(lambda: watched.names() == {"b"})
    assert watched.kube.count("GET", "limit=") == lists


async def test_a_deletion_in_a_gap_is_found_by_a_list(watched: Watched) -> None:
    watched.kube.put(TASKS, task("stays"))
    watched.kube.put(TASKS, task("goes"))
    await eventually(lambda: watched.names() == {"stays", "goes"})

    watched.kube.remove(TASKS, "goes", tell=False)
    watched.kube.cut_watches(error=410)

    await eventually(lambda: watched.names() == {"stays"})


async def test_an_error_that_ends_kopf_starts_the_watches_again(watched: Watched) -> None:
    watched.kube.cut_watches(error=500)
    await eventually(watched.restarts)
    watched.kube.put(TASKS, task("later"))

    await eventually(lambda: watched.names() == {"later"})


async def test_jobs_that_started_later_survive_the_end_of_a_session(watched: Watched) -> None:
    ours: list[asyncio.Task[Any]] = []
    watched.store.subscribe(TASK, lambda *_: ours.append(asyncio.ensure_future(asyncio.Event().wait())))
    watched.kube.put(TASKS, task("a"))
    await eventually(lambda: bool(ours))
    other = asyncio.create_task(asyncio.Event().wait())

    watched.kube.cut_watches(error=500)
    await eventually(watched.restarts)
    await eventually(lambda: watched.kube.watching == len(KINDS))

    assert not ours[0].done()
    assert not other.done()
    ours[0].cancel()
    other.cancel()


async def test_jobs_that_a_list_started_survive_the_end_of_a_session(watched: Watched) -> None:
    ours: list[asyncio.Task[Any]] = []
    watched.kube.put(TASKS, task("goes"))
    await eventually(lambda: watched.names() == {"goes"})
    watched.store.subscribe(TASK, lambda *_: ours.append(asyncio.ensure_future(asyncio.Event().wait())))
    watched.kube.remove(TASKS, "goes", tell=False)
    watched.kube.cut_watches(error=410)
    await eventually(lambda: bool(ours))

    watched.kube.cut_watches(error=500)
    await eventually(watched.restarts)
    await eventually(lambda: watched.kube.watching == len(KINDS))

    assert not ours[0].done()
    ours[0].cancel()


async def test_watches_that_fall_silent_are_started_again(
    monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    monkeypatch.setattr(intake_module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(intake_module, "_SILENT_SECONDS", 1.0)
    watched.kube.cut_watches(error=500)
    await eventually(watched.restarts)
    await eventually(lambda: watched.kube.watching == len(KINDS))
    assert watched.intake.pulse.age() < 1.0

    watched.kube.silent_watches = True
    await eventually(lambda: "skyward_intake_restarts_total 2.0" in watched.metrics.text().decode())
    watched.kube.silent_watches = False
    watched.kube.put(TASKS, task("a"))

    await eventually(lambda: watched.names() == {"a"})


async def test_bookmarks_keep_an_idle_watch_young(watched: Watched) -> None:
    clock = asyncio.get_running_loop()
    started, before = clock.time(), watched.kube.bookmarks

    await eventually(lambda: watched.intake.pulse.age() >= 0 and watched.kube.bookmarks >= before + 9)

    assert watched.intake.pulse.age() < clock.time() - started - watched.kube.bookmark_seconds


async def test_watches_that_tell_nothing_of_a_change_are_started_again(
    monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    monkeypatch.setattr(intake_module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(intake_module, "_DEAF_SECONDS", 0.2)
    watched.kube.cut_watches(error=500)
    await eventually(watched.restarts)
    await eventually(lambda: watched.kube.watching == len(KINDS))
    await watched.resync.all()

    watched.kube.deaf_watches = True
    watched.kube.put(TASKS, task("unheard"))
    await watched.resync.all()

    await eventually(lambda: watched.names() == {"unheard"})
    await eventually(lambda: "skyward_intake_restarts_total 2.0" in watched.metrics.text().decode())


async def test_only_the_named_namespaces_are_watched() -> None:
    async with FakeKube() as kube, Connection(kube.credentials()) as connection:
        subject = Watched(kube, Api(connection), ("one", "two"))
        await subject.start()
        for namespace in ("one", "two", "three"):
            kube.put(collection("tasks", namespace), task(f"in-{namespace}", namespace))

        await eventually(lambda: subject.names() == {"in-one", "in-two"})
        assert kube.count("GET", "/v1alpha1/tasks") == 0
        await subject.stop()
