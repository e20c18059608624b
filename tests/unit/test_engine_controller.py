"""Controllers and the supervisor: errors stay with their key, the loss of leadership ends everything."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.fake.kube_server import eventually

from skyward_operator.engine.controller import Controller
from skyward_operator.engine.queue import KeyedQueue
from skyward_operator.engine.supervisor import Supervisor
from skyward_operator.kube.errors import Conflict, NotLeader
from skyward_operator.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

type Key = tuple[str, str]


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., KeyedQueue[Key]]]:
    running: list[asyncio.Task[None]] = []

    def begin(
        reconcile: Callable[[Key], Awaitable[float | None]],
        *,
        timeout: float = 5.0,
        metrics: Metrics | None = None,
    ) -> KeyedQueue[Key]:
        queue = KeyedQueue[Key](first_retry=0.01, longest_retry=0.05)
        controller = Controller("pools", queue, reconcile, workers=3, timeout=timeout, metrics=metrics)
        running.append(asyncio.create_task(controller.run()))
        return queue

    yield begin
    for task in running:
        task.cancel()
    await asyncio.wait(running)


async def test_a_failing_key_is_logged_with_its_name_and_retried(
    start: Callable[..., KeyedQueue[Key]], caplog: pytest.LogCaptureFixture
) -> None:
    seen: Counter[Key] = Counter()

    async def reconcile(key: Key) -> float | None:
        seen[key] += 1
        if key[1] == "bad" and seen[key] < 3:
            raise ValueError("no such thing")
        return None

    queue = start(reconcile)
    queue.add(("default", "bad"))
    queue.add(("default", "good"))

    await eventually(lambda: seen[("default", "bad")] == 3)
    assert seen[("default", "good")] == 1
    assert queue.failures(("default", "bad")) == 0
    assert "pools default/bad: ValueError: no such thing" in caplog.text
    assert caplog.records[0].__dict__["object"] == "default/bad"


async def test_a_conflict_is_retried_without_noise(
    start: Callable[..., KeyedQueue[Key]], caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def reconcile(_: Key) -> float | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Conflict("moved on")
        return None

    start(reconcile).add(("default", "a"))

    await eventually(lambda: calls == 2)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_key_comes_again_after_the_delay_that_it_asked_for(
    start: Callable[..., KeyedQueue[Key]],
) -> None:
    calls = 0

    async def reconcile(_: Key) -> float | None:
        nonlocal calls
        calls += 1
        return 0.01 if calls < 3 else None

    start(reconcile).add(("default", "a"))

    await eventually(lambda: calls == 3)


async def test_a_hanging_reconcile_ends_and_is_retried(start: Callable[..., KeyedQueue[Key]]) -> None:
    calls = 0

    async def reconcile(_: Key) -> float | None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return None

    metrics = Metrics()
    start(reconcile, timeout=0.05, metrics=metrics).add(("default", "a"))

    await eventually(lambda: calls == 2)
    assert 'controller="pools",outcome="error"} 1.0' in metrics.text().decode()


async def test_the_loss_of_leadership_ends_the_controller() -> None:
    async def reconcile(_: Key) -> float | None:
        raise NotLeader("gone")

    queue = KeyedQueue[Key]()
    queue.add(("default", "a"))

    with pytest.raises(NotLeader):
        async with asyncio.timeout(2):
            await Controller("pools", queue, reconcile).run()


async def test_a_kept_loop_starts_again_after_a_failure() -> None:
    starts = 0

    async def loop() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise RuntimeError("a bug")
        await asyncio.Event().wait()

    async with Supervisor() as supervisor:
        supervisor.keep("loop", loop)
        await eventually(lambda: starts == 2)


async def test_a_failing_job_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise RuntimeError("a bug")

    finished = asyncio.Event()

    async def fine() -> None:
        finished.set()

    async with Supervisor() as supervisor:
        supervisor.spawn("broken job", broken())
        supervisor.spawn("fine job", fine())
        await finished.wait()

    assert "broken job failed" in caplog.text


async def test_the_supervisor_tells_of_the_loss_of_leadership() -> None:
    async def job() -> None:
        raise NotLeader("gone")

    async with Supervisor() as supervisor:
        supervisor.spawn("job", job())
        with pytest.raises(NotLeader):
            async with asyncio.timeout(2):
                await supervisor.wait_failed()


async def test_nothing_outlives_the_supervisor() -> None:
    ended: list[str] = []

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("loop")

    async with Supervisor() as supervisor:
        supervisor.keep("loop", loop)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert ended == ["loop"]


async def test_what_does_not_stop_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with Supervisor(stop_seconds=0.05) as supervisor:
        task = supervisor.spawn("stubborn job", stubborn())
        await asyncio.sleep(0)

    assert "stubborn job does not stop" in caplog.text
    release.set()
    await asyncio.wait({task})


async def test_jobs_run_in_the_context_of_the_supervisor() -> None:
    marker = contextvars.ContextVar("marker", default="ours")
    seen: list[str] = []

    async def job() -> None:
        seen.append(marker.get())

    async with Supervisor() as supervisor:
        marker.set("of the caller")
        await supervisor.spawn("job", job())

    assert seen == ["ours"]


async def test_steps_that_follow_at_once_come_ahead_of_keys_that_have_not_begun(
    start: Callable[..., KeyedQueue[Key]],
) -> None:
    """Three workers: the first three keys are through before any other begins."""
    steps: list[str] = []

    async def reconcile(key: Key) -> float | None:
        steps.append(key[1])
        await asyncio.sleep(0)
        return 0 if steps.count(key[1]) < 4 else None

    queue = start(reconcile)
    for name in "abcdef":
        queue.add(("default", name))
    await eventually(lambda: len(steps) == 24)
    assert set(steps[:12]) == set("abc")


async def test_a_key_that_never_gets_anywhere_starves_nobody(start: Callable[..., KeyedQueue[Key]]) -> None:
    seen: Counter[Key] = Counter()

    async def reconcile(key: Key) -> float | None:
        seen[key] += 1
        await asyncio.sleep(0)
        return 0 if key[1].startswith("stuck") else None

    queue = start(reconcile)
    for name in ("stuck-1", "stuck-2", "stuck-3", "patient"):
        queue.add(("default", name))
    await eventually(lambda: seen[("default", "patient")] == 1)
