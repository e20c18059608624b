"""Streams of calls in a real worker: items out with credit, items in on demand, and how both end."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.agent_process import AgentProcess, Operator, running_agent, wait_until

from skyward.wire.codec import dumps, loads
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.frames import FrameKind
from skyward.wire.raised import dumps_error, loads_error
from skyward.wire.streams import WINDOW, Inflow, InputMark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["process", "thread"])
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=2, executor=request.param) as agent:
        yield agent


@pytest.fixture
def operator(agent: AgentProcess) -> Iterator[Operator]:
    operator = agent.connect()
    yield operator
    operator.close()


class Reader:
    """The caller of a call that yields."""

    def __init__(self, operator: Operator, attempt: str) -> None:
        self.operator = operator
        self.attempt = attempt
        self.inflow = Inflow()

    def next(self, *, telling: bool = True) -> Any:
        """The next item; StopIteration at the end."""
        while (arrived := self.inflow.take()) is None:
            frame = self.operator.expect(FrameKind.ITEM, attempt=self.attempt)
            self.inflow.put(frame.header, frame.body)
            if telling and self.inflow.tells():
                self.credit()
        if telling and self.inflow.tells():
            self.credit()
        if arrived.header.get("end"):
            raise StopIteration
        return loads(arrived.body)

    def credit(self, **more: bool) -> None:
        self.operator.send(FrameKind.CREDIT, {"attempt": self.attempt, "taken": self.inflow.taken, **more})

    def rest(self) -> list[Any]:
        found = []
        while True:
            try:
                found.append(self.next())
            except StopIteration:
                return found


def feed(operator: Operator, attempt: str, number: int, seq: int, item: Any, **more: bool) -> None:
    header = {"attempt": attempt, "input": number, "seq": seq, **more}
    operator.send(FrameKind.INPUT, header, b"" if more.get("end") else dumps(item))


def test_items_come_while_the_generator_runs_and_its_return_value_at_the_end(operator: Operator) -> None:
    def count(n: int) -> Any:
        yield from range(n)
        return "done"

    operator.call("out.0.1", count, 1000, stream=True)
    assert Reader(operator, "out.0.1").rest() == list(range(1000))
    assert operator.result("out.0.1").value == "done"


def test_async_generator_yields_as_well(operator: Operator) -> None:
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    operator.call("async.0.1", count, 600, stream=True)
    assert Reader(operator, "async.0.1").rest() == list(range(600))
    assert operator.result("async.0.1").value is None


def test_item_larger_than_the_window_comes_whole(operator: Operator) -> None:
    def large(size: int) -> Iterator[bytes]:
        yield b"small"
        yield bytes(size)

    operator.call("large.0.1", large, 3 * WINDOW, stream=True)
    assert [len(item) for item in Reader(operator, "large.0.1").rest()] == [5, 3 * WINDOW]


def test_generator_waits_for_its_reader(operator: Operator, tmp_path: Path) -> None:
    def count(path: Path) -> Iterator[int]:
        for i in range(2000):
            path.write_text(str(i))
            yield i

    operator.call("slow.0.1", count, tmp_path / "at", stream=True)
    reader = Reader(operator, "slow.0.1")
    assert reader.next(telling=False) == 0
    wait_until(lambda: (tmp_path / "at").exists() and (tmp_path / "at").read_text() == "256")
    assert reader.rest() == list(range(1, 2000))


def test_exception_comes_after_the_items_before_it(operator: Operator) -> None:
    def fail() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("here")

    operator.call("fails.0.1", fail, stream=True)
    assert Reader(operator, "fails.0.1").rest() == [1, 2]
    outcome = operator.result("fails.0.1")
    assert isinstance(loads_error(outcome.body), KeyError)
    assert __file__ in outcome.error["traceback"]
    assert "skyward/agent" not in outcome.error["traceback"]


def test_closing_ends_the_generator_where_it_yields(operator: Operator, tmp_path: Path) -> None:
    def endless(path: Path) -> Iterator[int]:
        i = 0
        try:
            while True:
                yield (i := i + 1)
        except GeneratorExit:
            path.write_text("closed")
            raise

    operator.call("close.0.1", endless, tmp_path / "said", stream=True)
    reader = Reader(operator, "close.0.1")
    assert reader.next() == 1
    reader.credit(close=True)
    assert operator.result("close.0.1").value is None
    assert (tmp_path / "said").read_text() == "closed"


def test_generator_that_does_not_yield_is_interrupted_when_its_grace_is_over(operator: Operator) -> None:
    def stuck() -> Iterator[int]:
        yield 1
        while True:
            time.sleep(0.01)

    operator.call("stuck.0.1", stuck, stream=True, grace=0.2)
    reader = Reader(operator, "stuck.0.1")
    assert reader.next() == 1
    reader.credit(close=True)
    assert operator.result("stuck.0.1").error["reason"] == "Cancelled"


def test_wait_for_a_reader_is_cancelled(operator: Operator) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    operator.call("full.0.1", endless, stream=True)
    for _ in range(256):
        operator.expect(FrameKind.ITEM, attempt="full.0.1")
    operator.send(FrameKind.CANCEL, {"attempt": "full.0.1"})
    assert operator.result("full.0.1").error["reason"] == "Cancelled"
    assert operator.run("after.0.1", lambda: 1).value == 1


def test_wait_of_an_async_generator_for_a_reader_is_cancelled(operator: Operator) -> None:
    async def endless() -> AsyncIterator[int]:
        while True:
            yield 1

    operator.call("afull.0.1", endless, stream=True)
    for _ in range(256):
        operator.expect(FrameKind.ITEM, attempt="afull.0.1")
    operator.send(FrameKind.CANCEL, {"attempt": "afull.0.1"})
    assert operator.result("afull.0.1").error["reason"] == "Cancelled"


def test_items_on_their_way_are_said_again_to_the_next_connection(agent: AgentProcess) -> None:
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    first = agent.connect()
    first.call("again.0.1", count, 500, stream=True)
    reader = Reader(first, "again.0.1")
    found = [reader.next() for _ in range(100)]
    first.close()
    reader.operator = second = agent.connect()
    reader.credit(replay=True)
    assert found + reader.rest() == list(range(500))
    assert second.result("again.0.1").header["ok"]
    second.close()


def test_item_that_cannot_be_pickled_is_named(operator: Operator) -> None:
    def odd() -> Iterator[Any]:
        yield 1
        yield {"open": (number for number in range(1))}

    operator.call("odd.0.1", odd, stream=True)
    assert Reader(operator, "odd.0.1").rest() == [1]
    assert "['open']" in operator.result("odd.0.1").error["message"]


def test_input_is_asked_for_and_comes(operator: Operator) -> None:
    operator.call("in.0.1", sum, InputMark(0), inputs=1)
    assert operator.expect(FrameKind.NEED, attempt="in.0.1").header["taken"] == 0
    for seq in range(200):
        feed(operator, "in.0.1", 0, seq, seq)
    feed(operator, "in.0.1", 0, 200, None, end=True)
    assert operator.result("in.0.1").value == sum(range(200))


def test_input_that_raises_raises_in_the_function(operator: Operator) -> None:
    def caught(items: Iterator[int]) -> Any:
        found = []
        try:
            for item in items:
                found.append(item)  # noqa: PERF402 - what came before the end counts
        except LookupError as error:
            return found, error.args
        return None

    operator.call("broken.0.1", caught, InputMark(0), inputs=1)
    operator.expect(FrameKind.NEED, attempt="broken.0.1")
    body, info = dumps_error(LookupError("no more"))
    feed(operator, "broken.0.1", 0, 0, 1)
    end = {"attempt": "broken.0.1", "input": 0, "seq": 1, "end": True, "error": info.to_json()}
    operator.send(FrameKind.INPUT, end, body)
    assert operator.result("broken.0.1").value == ([1], ("no more",))


@pytest.mark.parametrize("body", [b"", b"of a class that is not here"])
def test_input_that_raises_what_cannot_come_raises_its_words_in_the_function(
    operator: Operator, body: bytes
) -> None:
    attempt = f"words.{len(body)}.1"
    operator.call(attempt, list, InputMark(0), inputs=1)
    operator.expect(FrameKind.NEED, attempt=attempt)
    feed(operator, attempt, 0, 0, 1)
    info = ErrorInfo("HTTPError", "HTTP Error 500", "urllib.error", "Traceback: page 4")
    end = {"attempt": attempt, "input": 0, "seq": 1, "end": True, "error": info.to_json()}
    operator.send(FrameKind.INPUT, end, body)
    error = operator.result(attempt).error
    assert error["type"] == "RemoteError"
    assert "urllib.error.HTTPError: HTTP Error 500" in error["message"]
    assert "page 4" in error["traceback"]


def test_wait_for_an_input_is_cancelled(operator: Operator) -> None:
    operator.call("hungry.0.1", list, InputMark(0), inputs=1)
    operator.expect(FrameKind.NEED, attempt="hungry.0.1")
    operator.send(FrameKind.CANCEL, {"attempt": "hungry.0.1"})
    assert operator.result("hungry.0.1").error["reason"] == "Cancelled"


def test_items_go_in_and_out_in_turn(operator: Operator) -> None:
    def double(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            yield item * 2

    operator.call("both.0.1", double, InputMark(0), stream=True, inputs=1)
    reader = Reader(operator, "both.0.1")
    operator.expect(FrameKind.NEED, attempt="both.0.1")
    for number in range(20):
        feed(operator, "both.0.1", 0, number, number)
        assert reader.next() == number * 2
    feed(operator, "both.0.1", 0, 20, None, end=True)
    assert reader.rest() == []
    assert operator.result("both.0.1").header["ok"]


def test_input_is_asked_for_again_after_a_break(operator: Operator) -> None:
    operator.call("lost.0.1", list, InputMark(0), inputs=1)
    operator.expect(FrameKind.NEED, attempt="lost.0.1")
    feed(operator, "lost.0.1", 0, 0, "a")
    feed(operator, "lost.0.1", 0, 2, "c")  # the one before it was lost
    operator.send(FrameKind.CREDIT, {"attempt": "lost.0.1", "taken": 0, "replay": True})
    need = operator.expect(FrameKind.NEED, attempt="lost.0.1", replay=True)
    for seq in range(need.header["taken"], 3):
        feed(operator, "lost.0.1", 0, seq, "abc"[seq])
    feed(operator, "lost.0.1", 0, 3, None, end=True)
    assert operator.result("lost.0.1").value == ["a", "b", "c"]


def test_worker_that_died_in_mid_stream_fails_the_call(agent: AgentProcess, operator: Operator) -> None:
    def dies() -> Iterator[int]:
        yield 1
        os._exit(3)

    operator.call("dies.0.1", dies, stream=True)
    assert Reader(operator, "dies.0.1").next() == 1
    assert operator.result("dies.0.1").error["reason"] == "WorkerDied"
