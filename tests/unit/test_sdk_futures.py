"""Futures of calls: what ends a wait, and that both kinds do it alike."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, as_completed, wait
from typing import TYPE_CHECKING, Any

import pytest

from skyward.executor import CallFuture
from skyward.tasks import TaskFuture
from skyward.wire.codec import dumps
from skyward.wire.package import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: list[Callable[[], TaskFuture[Any]]] = [lambda: TaskFuture(lambda: None), lambda: CallFuture("task")]


@pytest.mark.parametrize("make", KINDS, ids=["task", "call"])
@pytest.mark.parametrize("stay", [TaskFuture.result, TaskFuture.exception], ids=["result", "exception"])
def test_ctrl_c_ends_a_wait_that_blocks_the_loop(
    make: Callable[[], TaskFuture[Any]], stay: Callable[[TaskFuture[Any], float], Any]
) -> None:
    over = threading.Event()

    def press_once_it_waits() -> None:
        while not over.wait(0.01):
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                os.kill(os.getpid(), signal.SIGINT)
                return

    async def main() -> None:
        presser = threading.Thread(target=press_once_it_waits)
        presser.start()
        try:
            stay(make(), 30)
        finally:
            over.set()
            presser.join()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


def test_call_is_cancelled_remotely_even_if_it_was_cancelled_before_it_was_sent() -> None:
    cancelled: list[int] = []
    future: CallFuture[int] = CallFuture("task")
    assert future.cancel()
    future.cancels(lambda: cancelled.append(1))
    assert cancelled == [1]
    future.settle(Outcome(0, True, dumps(1)))
    assert future.cancelled()


def test_call_that_has_ended_is_not_cancelled() -> None:
    cancelled: list[int] = []
    future: CallFuture[int] = CallFuture("task")
    future.cancels(lambda: cancelled.append(1))
    future.settle(Outcome(0, True, dumps(7)))
    assert not future.cancel()
    assert cancelled == []
    assert future.result(0) == 7


async def test_call_can_be_awaited() -> None:
    future: CallFuture[int] = CallFuture("task")
    asyncio.get_running_loop().call_soon(future.settle, Outcome(0, True, dumps(7)))
    assert await future == 7


@pytest.mark.parametrize("make", KINDS, ids=["task", "call"])
def test_cancelled_future_is_done_for_who_waits_before_and_after(
    make: Callable[[], TaskFuture[Any]],
) -> None:
    future, told = make(), threading.Event()

    def waits() -> None:
        wait([future], 30)
        told.set()

    waiting = threading.Thread(target=waits)
    waiting.start()
    assert future.cancel()
    assert told.wait(10)
    waiting.join()
    assert wait([future], 0).done == {future}
    assert list(as_completed([future], 0)) == [future]


@pytest.mark.parametrize("make", KINDS, ids=["task", "call"])
@pytest.mark.parametrize("when", [FIRST_COMPLETED, FIRST_EXCEPTION])
def test_cancelled_future_ends_a_wait_for_the_first(make: Callable[[], TaskFuture[Any]], when: str) -> None:
    cancelled, goes_on = make(), make()
    cancelled.cancel()
    waited = wait([cancelled, goes_on], 0 if when == FIRST_COMPLETED else 0.01, when)
    assert (waited.done, waited.not_done) == ({cancelled}, {goes_on})


@pytest.mark.parametrize("make", KINDS, ids=["task", "call"])
def test_cancelling_again_even_from_a_callback_tells_once(
    make: Callable[[], TaskFuture[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    future, told = make(), []
    future.add_done_callback(lambda ended: told.append(ended.cancel()))
    assert future.cancel()
    assert future.cancel()
    assert told == [True]
    assert not caplog.records  # concurrent.futures complains of a second notice


@pytest.mark.parametrize("make", KINDS, ids=["task", "call"])
async def test_who_awaits_a_future_hears_that_it_was_cancelled(make: Callable[[], TaskFuture[Any]]) -> None:
    future = make()
    asyncio.get_running_loop().call_soon(future.cancel)
    with pytest.raises(asyncio.CancelledError):
        await future


@pytest.mark.parametrize("make", KINDS, ids=["task", "call"])
async def test_cancelled_wait_cancels_the_call(make: Callable[[], TaskFuture[Any]]) -> None:
    future = make()

    async def waits() -> None:
        await future

    waiting = asyncio.ensure_future(waits())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert future.cancelled()
    assert wait([future], 0).done
