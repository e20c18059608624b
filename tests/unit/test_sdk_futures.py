"""Futures of calls: what ends a wait, and that both kinds do it alike."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
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
@pytest.mark.parametrize("wait", [TaskFuture.result, TaskFuture.exception], ids=["result", "exception"])
def test_ctrl_c_ends_a_wait_that_blocks_the_loop(
    make: Callable[[], TaskFuture[Any]], wait: Callable[[TaskFuture[Any], float], Any]
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
            wait(make(), 30)
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
