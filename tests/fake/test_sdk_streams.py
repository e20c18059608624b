"""Results that come while their Task runs: in order or not, with failures in their places or at the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.fake.sdk_plane import TASKS, FakePlane, wait_until

import skyward as sky

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def gated(number: int) -> int:
    """The third call waits for the test."""
    from tests.fake import test_sdk_streams

    if number == 2:
        assert test_sdk_streams.GATE.wait(20)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * 10


@pytest.mark.parametrize("ordered", [True, False])
def test_results_come_while_others_run_and_it_is_one_task(
    plane: FakePlane, pool: Pool, ordered: bool
) -> None:
    results = sky.gather(*map(gated, range(4)), stream=True, ordered=ordered) >> pool
    assert [next(results), next(results)] == [0, 10]
    assert not GATE.is_set()
    GATE.set()
    assert list(results) == [20, 30]
    assert plane.count("POST", "/tasks") == 1


def test_a_delivery_that_breaks_all_the_time_brings_each_result_once(plane: FakePlane, pool: Pool) -> None:
    GATE.set()
    plane.cut_results_after = 150
    assert list(pool.map(gated, range(20), stream=True)) == [number * 10 for number in range(20)]


def test_a_call_that_fails_fails_only_itself(plane: FakePlane, pool: Pool) -> None:
    GATE.set()
    items = [1, -1, 3, -2, -3]
    returned = pool.map(gated, items, on_error="return")
    assert [type(each) for each in returned] == [int, ValueError, int, ValueError, ValueError]
    streamed = pool.map(gated, items, on_error="return", stream=True)
    assert [str(each) for each in streamed] == [str(each) for each in returned]
    with pytest.raises(ValueError, match="-1 is negative") as caught:
        pool.map(gated, items)
    assert caught.value.__notes__[-1] == "3 of 5 calls failed (1,3-4); this is call 1"
    results = pool.map(gated, items, stream=True)
    got = [next(results), next(results)]
    with pytest.raises(ValueError, match="-1 is negative") as caught:
        next(results)
    assert got == [10, 30]
    assert caught.value.__notes__[-1] == "3 of 5 calls failed (1,3-4); this is call 1"


def test_leaving_early_cancels_the_task(plane: FakePlane, pool: Pool) -> None:
    with pool.map(gated, range(4), stream=True) as results:
        assert next(results) == 0
    assert plane.only(TASKS)["spec"]["cancel"] is True


def test_an_iterator_that_is_dropped_waits_for_nobody(plane: FakePlane, pool: Pool) -> None:
    """Its task is cancelled, but by somebody else: the API server may be away."""
    results = pool.map(gated, range(4), stream=True)
    assert next(results) == 0
    outage = plane.fault(method="PATCH", path="/tasks", status=503, times=10**6)
    del results
    wait_until(lambda: outage.seen)
    assert "cancel" not in plane.only(TASKS)["spec"]
    outage.times = 0
    wait_until(lambda: plane.only(TASKS)["spec"].get("cancel"))


def test_a_task_that_is_deleted_ends_the_iteration(plane: FakePlane, pool: Pool) -> None:
    results = pool.map(gated, range(4), stream=True)
    assert next(results) == 0
    plane.drop(TASKS, plane.names(TASKS)[0])
    with pytest.raises(sky.TaskCancelled, match="was deleted"):
        list(results)
