"""Open tasks of the SDK at the end of their pool's block: what is refused, what is settled, what is said."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.sdk_plane import TASKS, FakePlane

import skyward as sky
from skyward.tasks import TaskHandle
from skyward.wire.codec import dumps, loads
from skyward.wire.frames import Frame, FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterable

PLAIN = sky.Options(console="log", shutdown_timeout=10)


class Line:
    """In place of the connection to the operator: calls are answered at once, or never."""

    answers = True
    ended = threading.Event()
    """The Task may end."""
    plane: FakePlane

    def __init__(self, gateway: Any, where: str, peer: Any) -> None:
        self._name = where.split("/")[-2]
        self._peer = peer
        self.closed = False

    def start(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def send(self, frames: Iterable[Frame], *, at_once: bool) -> None:
        for frame in frames:
            if frame.kind is FrameKind.CALL and self.answers:
                (item,), _ = loads(frame.body)
                self._peer.receive(self._result(frame.header["index"], item))
            if frame.kind is FrameKind.CLOSE and self.answers:
                threading.Thread(target=self._end).start()

    def _result(self, index: int, item: Any) -> Frame:
        header = {"index": index, "ok": True, "chunked": False, "node": "n", "rank": 0, "attempt": ""}
        return Frame(FrameKind.RESULT, header, dumps(item * 10))

    def _end(self) -> None:
        assert self.ended.wait(30)
        self.plane.change(TASKS, self._name, phase="Succeeded", counts={"total": 2, "succeeded": 2})


@pytest.fixture
def line(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> type[Line]:
    """The connection of open tasks; their Tasks run until it says otherwise."""

    class Here(Line):
        ended = threading.Event()

    Here.plane = plane
    plane.answer = lambda *_: {"phase": "Running"}
    monkeypatch.setattr("skyward.open_task.Channel", Here)
    return Here


def test_calls_under_way_are_settled_at_the_end_of_the_block_and_later_ones_refused(
    line: type[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    line.answers = False
    monkeypatch.setattr(TaskHandle, "cancel", lambda handle: None)  # and nothing is heard of it in time
    with sky.Compute(provider=sky.Local(), name="team", options=PLAIN), sky.Compute(name="team") as pool:
        executor = sky.Executor(pool)
        future = executor.submit(abs, 1)
    with pytest.raises(sky.TaskCancelled, match="the block of pool team ended"):
        future.result(10)
    with pytest.raises(RuntimeError, match="the block of pool team has ended"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_task_whose_outcomes_are_all_here_is_waited_for_and_not_cancelled(
    line: type[Line],
    plane: FakePlane,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = TaskHandle.wait

    def wait(handle: TaskHandle, timeout: float) -> bool:
        line.ended.set()
        return waits(handle, timeout)

    monkeypatch.setattr(TaskHandle, "wait", wait)
    with sky.Compute(provider=sky.Local(), name="team", options=PLAIN), sky.Compute(name="team") as pool:
        assert pool.map(abs, iter([1, 2])) == [10, 20]
    shown = capsys.readouterr().err
    assert "cancelling" not in shown
    assert "✔ 2 calls" in shown
    assert "cancel" not in plane.only(TASKS)["spec"]


def test_executor_without_calls_that_was_not_shut_down_ends_with_the_block(
    line: type[Line], plane: FakePlane, capsys: pytest.CaptureFixture[str]
) -> None:
    line.ended.set()
    with sky.Compute(provider=sky.Local(), name="team", options=PLAIN), sky.Compute(name="team") as pool:
        executor = sky.Executor(pool)
        assert executor.submit(abs, 1).result(10) == 10
    assert "cancelling" not in capsys.readouterr().err
    assert plane.only(TASKS)["status"]["phase"] == "Succeeded"
    with pytest.raises(RuntimeError, match="has ended"):
        executor.submit(abs, 1)


def test_call_that_was_cancelled_is_not_cancelled_again_with_words(
    plane: FakePlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    monkeypatch.setattr("skyward.session.Session._cancel", lambda session, task: None)  # it takes its time
    with sky.Compute(provider=sky.Local(), options=PLAIN) as pool:
        future = sky.function(abs)(1) > pool
        assert future.cancel()
    assert "cancelling" not in capsys.readouterr().err
