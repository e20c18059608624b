"""A map over an iterator: how far ahead it is, in which order results come, and how it ends."""

from __future__ import annotations

import threading
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.agent_process import wait_until

from skyward import open_map
from skyward.errors import NotPicklable, TaskCancelled
from skyward.functions import Function
from skyward.open_map import OpenMap
from skyward.tasks import ResultIterator
from skyward.wire.codec import dumps, loads
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.package import Outcome
from skyward.wire.raised import dumps_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from skyward.open_task import PackedCall


class Task:
    """An open task whose calls end when the test says so, or at once."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.calls: list[tuple[Any, Callable[[Any], None]]] = []
        self.at_once = at_once
        self.held = self.ended = 0
        self.closed = False
        self.cancelled = False
        self.handle = SimpleNamespace(name="task", cancel=self.cancel)

    def call(self, packed: PackedCall, ended: Callable[[Any], None]) -> int:
        ((item,), _) = loads(packed.arguments)
        self.calls.append((item, ended))
        if self.at_once:
            self.end(len(self.calls) - 1)
        return len(self.calls) - 1

    @property
    def waiting(self) -> int:
        return len(self.calls) - self.ended

    def end(self, index: int, *, ok: bool = True) -> None:
        self.ended += 1
        item, ended = self.calls[index]
        error = None if ok else ErrorInfo("ValueError", f"not {item}")
        ended(Outcome(index, ok, dumps(item * 10) if ok else b"", error))

    def close(self) -> None:
        self.closed = True

    def cancel(self) -> None:
        self.cancelled = True


def identity(item: Any) -> Any:
    return item


def running(task: Task, items: Iterator[Any], *, ordered: bool = True, on_error: Any = "raise") -> Any:
    made = OpenMap(task, Function(identity), items)  # type: ignore[arg-type]
    return ResultIterator(made.values(ordered=ordered, on_error=on_error), made.leave, lambda leave: leave())


def test_results_come_in_the_order_of_the_items_and_the_task_is_closed() -> None:
    task = Task()
    results = running(task, iter(range(3)))
    wait_until(lambda: task.closed)
    for index in (2, 0, 1):
        task.end(index)
    assert list(results) == [0, 10, 20]


def test_results_come_as_calls_end() -> None:
    task = Task()
    results = running(task, iter(range(3)), ordered=False)
    wait_until(lambda: task.closed)
    task.end(2)
    assert next(results) == 20
    task.end(0)
    assert next(results) == 0


def test_slow_source_holds_up_no_result() -> None:
    task, more = Task(at_once=True), threading.Event()

    def source() -> Iterator[int]:
        yield 1
        more.wait(30)
        yield 2

    results = running(task, source())
    assert next(results) == 10
    more.set()
    assert list(results) == [20]


def test_slow_reader_holds_up_the_source() -> None:
    task, taken = Task(at_once=True), []

    def source() -> Iterator[int]:
        while True:
            taken.append(1)
            yield 1

    results = running(task, source())
    wait_until(lambda: len(taken) == open_map.AHEAD)
    assert next(results) == 10
    wait_until(lambda: len(taken) == open_map.AHEAD + 1)
    results.close()


def test_bytes_hold_up_the_source_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_map, "AHEAD_BYTES", 100)
    task = Task(at_once=True)
    results = running(task, iter(["x" * 50, "y", "z"]))
    wait_until(lambda: len(task.calls) == 1)
    assert next(results) == "x" * 500
    assert list(results) == ["y" * 10, "z" * 10]


def test_what_the_source_raises_comes_behind_the_results_before_it() -> None:
    task = Task()

    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("mine")

    results = running(task, broken())
    wait_until(lambda: task.closed)
    task.end(0)
    assert next(results) == 10
    with pytest.raises(LookupError, match="mine") as raised:
        next(results)
    assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "broken"


def test_failed_call_fails_only_itself_and_is_raised_at_the_end() -> None:
    task = Task()
    results = running(task, iter(range(3)))
    wait_until(lambda: task.closed)
    for index, ok in enumerate((True, False, True)):
        task.end(index, ok=ok)
    assert [next(results), next(results)] == [0, 20]
    with pytest.raises(Exception, match="not 1"):
        next(results)


def test_exception_of_a_failed_call_stands_in_its_place() -> None:
    task = Task()
    results = running(task, iter(range(3)), on_error="return")
    wait_until(lambda: task.closed)
    for index, ok in enumerate((True, False, True)):
        task.end(index, ok=ok)
    first, error, last = results
    assert (first, last, "not 1" in str(error)) == (0, 20, True)


@pytest.mark.parametrize("ordered", [True, False])
def test_item_that_cannot_be_pickled_fails_alone_and_says_which_one_it_is(ordered: bool) -> None:
    task = Task(at_once=True)
    results = running(task, iter([1, threading.Lock(), 3]), ordered=ordered)
    assert [next(results), next(results)] == [10, 30]
    with pytest.raises(NotPicklable, match=r"call 1 of identity\(\)") as raised:
        next(results)
    assert raised.value.__notes__ == ["1 of 3 calls failed (1); this is call 1"]
    assert not task.cancelled


def test_error_of_an_item_that_cannot_be_pickled_stands_in_its_place() -> None:
    task = Task()
    results = running(task, iter([threading.Lock(), 2, threading.Lock(), 4]), on_error="return")
    wait_until(lambda: task.closed)
    task.end(1)  # the calls that were sent, from the last to the first
    task.end(0)
    first, second, third, fourth = results
    assert (second, fourth) == (20, 40)
    assert "call 0 of identity()" in str(first)
    assert "call 2 of identity()" in str(third)


def test_function_that_cannot_be_pickled_is_raised_for_the_whole_map() -> None:
    lock = threading.Lock()

    def hold(item: Any) -> Any:
        return lock, item

    made = OpenMap(Task(), Function(hold), iter([1, 2]))  # type: ignore[arg-type]
    with pytest.raises(NotPicklable, match="cannot be sent to a node"):
        list(made.values(ordered=True, on_error="return"))


def test_task_that_ends_under_it_raises_and_closes_the_source() -> None:
    task, closed = Task(), threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    results = running(task, source())
    wait_until(lambda: len(task.calls) == open_map.AHEAD)
    task.calls[0][1](TaskCancelled("it was deleted"))
    with pytest.raises(TaskCancelled):
        next(results)
    assert closed.wait(30)
    assert task.closed


def test_leaving_early_cancels_the_task_and_closes_the_source() -> None:
    task, closed = Task(at_once=True), threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with running(task, source()) as results:
        next(results)
    assert task.cancelled
    assert closed.wait(30)


def test_no_items_are_no_results() -> None:
    assert list(running(Task(), iter(()))) == []


def test_failed_call_that_is_raised_cancels_nothing_when_all_have_ended() -> None:
    task = Task()
    results = running(task, iter(range(2)))
    wait_until(lambda: task.closed)
    task.end(0, ok=False)
    task.end(1)
    assert next(results) == 10
    with pytest.raises(Exception, match="not 0"):
        next(results)
    assert not task.cancelled


def test_stop_iteration_of_a_call_is_no_end_of_the_results() -> None:
    task = Task(at_once=False)
    results = running(task, iter(range(2)))
    wait_until(lambda: task.closed)
    ended = [each for _, each in task.calls]
    raised = ErrorInfo("StopIteration", "it stopped", "builtins")
    ended[0](Outcome(0, False, dumps_error(StopIteration())[0], raised))
    ended[1](Outcome(1, True, dumps(7)))
    assert next(results) == 7
    with pytest.raises(RuntimeError, match="the call raised StopIteration, which"):
        next(results)
