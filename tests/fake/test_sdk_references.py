"""A Task by its name, from any process: its results while it runs, once it has ended, and again."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest
from tests.fake.sdk_plane import TASKS, FakePlane, wait_until

import skyward as sky
from skyward.cluster.api import Api, ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skyward.pools import Pool

SILENT = sky.Options(console="silent")
GATE = threading.Event()


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    """Closed at first; whoever waits behind it may go when the test ends."""
    GATE.clear()
    yield
    GATE.set()


@pytest.fixture
def pool(plane: FakePlane) -> Iterator[Pool]:
    with sky.Compute(provider=sky.Local(), nodes=2, options=SILENT) as pool:
        yield pool


@sky.function
def gated(number: int) -> bytes:
    """All but the first call wait for the test."""
    from tests.fake import test_sdk_references

    if number > 0:
        assert test_sdk_references.GATE.wait(20)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return random.Random(number).randbytes(50_000)


def _bytes(number: int) -> bytes:
    return random.Random(number).randbytes(50_000)


def test_results_can_be_taken_while_it_runs_at_its_end_and_again(
    plane: FakePlane, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = sky.gather(*map(gated, range(3))) > pool
    task = sky.task(plane.names(TASKS)[0])
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "another home"))  # no ticket of its own
    running = task.results()
    assert next(running) == _bytes(0)
    assert not GATE.is_set()
    assert not plane.results
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 s; it goes on"):
        task.result(0.05)
    GATE.set()
    expected = [_bytes(number) for number in range(3)]
    assert list(running) == expected[1:]
    assert list(future.result(20)) == expected
    for _ in range(2):
        assert task.result(20) == expected
        assert list(task.results(ordered=False)) == expected
    assert task.status["phase"] == "Succeeded"
    assert plane.count("PATCH", "tasks/") == 1  # one ticket, which is kept


def test_one_call_has_one_result_and_a_broadcast_has_a_list(plane: FakePlane, pool: Pool) -> None:
    GATE.set()
    assert gated(1) >> pool
    assert gated(2) @ pool
    first, second = map(sky.task, plane.names(TASKS))
    assert first.result(20) == _bytes(1)
    assert second.result(20) == [_bytes(2)] * 2


def test_a_failure_is_raised_again_with_its_own_type(plane: FakePlane, pool: Pool) -> None:
    GATE.set()
    pool.map(gated, [1, -1], on_error="return")
    task = sky.task(plane.names(TASKS)[0])
    with pytest.raises(ValueError, match="-1 is negative"):
        task.result(20)
    assert [type(value) for value in task.result(20, on_error="return")] == [bytes, ValueError]
    assert [type(value) for value in task.results(on_error="return")] == [bytes, ValueError]


def test_task_of_items_has_a_value_for_each(plane: FakePlane, pool: Pool) -> None:
    """As it is written in YAML: the items are counted in the function, not in calls."""
    GATE.set()
    pool.map(gated, [1, -1, 2], on_error="return")
    spec = plane.only(TASKS)["spec"]
    del spec["calls"]
    spec["function"] = {"entrypoint": "math:factorial", "items": [1, -1, 2]}
    task = sky.task(plane.names(TASKS)[0])
    values = task.result(20, on_error="return")
    assert [type(value) for value in values] == [bytes, ValueError, bytes]
    with pytest.raises(ValueError, match="-1 is negative") as raised:
        task.result(20)
    assert "1 of 3 calls failed (1)" in "".join(raised.value.__notes__)


def test_broadcast_that_failed_on_a_node_has_the_values_of_the_others(plane: FakePlane, pool: Pool) -> None:
    GATE.set()
    with pytest.raises(ValueError, match="-1 is negative"):
        gated(-1) @ pool
    task = sky.task(plane.names(TASKS)[0])
    assert [type(value) for value in task.result(20, on_error="return")] == [ValueError] * 2


def test_open_task_refuses_what_only_its_client_has(plane: FakePlane, pool: Pool) -> None:
    GATE.set()
    gated(1) >> pool
    plane.only(TASKS)["spec"]["calls"] = {"open": True, "count": 1, "python": "3.12"}
    task = sky.task(plane.names(TASKS)[0])
    for ask in (task.result, lambda: list(task.results()), lambda: list(task.records())):
        with pytest.raises(sky.TaskError, match=r"is an open one .* told to its client and not kept"):
            ask()
    assert task.status["phase"] == "Succeeded"


def test_leaving_early_leaves_it_alone_and_cancelling_ends_it(plane: FakePlane, pool: Pool) -> None:
    future = sky.gather(*map(gated, range(3))) > pool
    task = sky.task(plane.names(TASKS)[0], "default")
    results = task.results()
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert "cancel" not in plane.only(TASKS)["spec"]
    task.cancel()
    with pytest.raises(sky.TaskCancelled):
        future.result(20)
    wait_until(lambda: task.status["phase"] == "Cancelled")
    with pytest.raises(sky.TaskCancelled):
        task.result(20)


def test_an_unknown_name_and_a_missing_right_say_so(
    plane: FakePlane, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(sky.TaskError, match=r"no task nothing in namespace default(.|\n)*result_ttl"):
        sky.task("nothing").result()
    GATE.set()
    pool.map(gated, range(3))
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "another home"))

    def refuse(*_: object) -> None:
        raise ApiError("not allowed: patch", status=403)

    with monkeypatch.context() as patch:
        patch.setattr(Api, "patch", refuse)
        with pytest.raises(sky.TaskError, match="for those who may update it: not allowed"):
            sky.task(plane.names(TASKS)[0]).result(20)


def test_what_came_before_a_task_was_stopped_is_given_before_it_says_so(plane: FakePlane, pool: Pool) -> None:
    GATE.set()
    pool.map(gated, [1, 2, -1], on_error="return")
    task = plane.only(TASKS)
    task["spec"]["calls"]["count"] = 9  # as with onError: Stop, which leaves the others out
    results = sky.task(task["metadata"]["name"]).results(on_error="return")
    found = [type(next(results)) for _ in range(3)]
    with pytest.raises(sky.TaskError):
        next(results)
    assert found == [bytes, bytes, ValueError]
