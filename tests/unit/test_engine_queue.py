"""The keyed queue: one worker per key, one waiting place per key, growing delays after failures."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward_operator.engine.queue import KeyedQueue


async def test_adds_before_a_worker_comes_are_one() -> None:
    queue = KeyedQueue[str]()
    for key in ("a", "b", "a"):
        queue.add(key)

    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_in_work_is_not_handed_out_twice_but_comes_again() -> None:
    queue = KeyedQueue[str]()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")

    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_key_that_goes_first_passes_those_that_wait() -> None:
    queue = KeyedQueue[str]()
    for key in ("a", "b", "c"):
        queue.add(key)
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a", first=True)
    queue.add("c", first=True)
    queue.done("a")

    assert [await queue.get() for _ in range(3)] == ["a", "c", "b"]
    assert len(queue) == 0


async def test_get_waits_for_an_add() -> None:
    queue = KeyedQueue[str]()
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")

    assert await getter == "a"


async def test_a_cancelled_get_loses_no_wake_up() -> None:
    queue = KeyedQueue[str]()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()

    async with asyncio.timeout(1):
        assert await second == "a"


async def test_of_two_delays_the_earlier_counts() -> None:
    queue = KeyedQueue[str]()
    queue.add_after("a", 3600)
    queue.add_after("a", 0.01)
    queue.add_after("a", 3600)

    async with asyncio.timeout(1):
        assert await queue.get() == "a"


async def test_an_add_makes_the_delayed_add_superfluous() -> None:
    queue = KeyedQueue[str]()
    queue.add_after("a", 0.01)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await queue.get()


async def test_delays_after_failures_double_up_to_a_limit_and_start_anew_after_success() -> None:
    queue = KeyedQueue[str](first_retry=1.0, longest_retry=5.0, jitter=lambda: 1.0)

    assert [queue.retry("a") for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert queue.failures("a") == 5
    queue.forget("a")
    assert queue.retry("a") == 1.0
    queue.close()


async def test_a_closed_queue_has_no_timers() -> None:
    queue = KeyedQueue[str]()
    queue.add_after("a", 0.01)
    queue.close()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await queue.get()


@given(st.lists(st.tuples(st.sampled_from(["add", "get", "done"]), st.integers(0, 3))))
def test_no_key_is_lost_or_worked_on_twice_at_once(steps: list[tuple[str, int]]) -> None:
    async def drive() -> None:
        queue = KeyedQueue[int]()
        working: set[int] = set()
        owed: set[int] = set()
        for step, key in steps:
            if step == "add":
                queue.add(key)
                owed.add(key)
            elif step == "get" and len(queue):
                taken = await queue.get()
                assert taken not in working
                working.add(taken)
                owed.discard(taken)
            elif step == "done" and key in working:
                working.discard(key)
                queue.done(key)
        for key in tuple(working):
            queue.done(key)
        rest = {await queue.get() for _ in range(len(queue))}
        assert rest == owed

    asyncio.run(drive())
