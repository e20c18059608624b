"""What becomes of tasks and calls: tables over pure functions."""

from __future__ import annotations

from typing import Any

import pytest

from skyward.contract.reasons import TaskReason, next_step
from skyward.wire.envelopes import ErrorInfo, FailureReason
from skyward_operator.tasks import decide
from skyward_operator.tasks.decide import Admit, End, Failed, PoolView, Retried, Wait
from skyward_operator.tasks.scheduler import Occupancy
from skyward_operator.tasks.work import Retry, Work, read_work

POOL = PoolView("train", python="3.13", desired=2, minimum=2, ceiling=2)


def work(**more: Any) -> Work:
    return Work("default", "task", "uid", "train", 0.0, python="3.13", **more)


ADMISSION = [
    (work(), POOL, True, Admit()),
    (work(), None, True, TaskReason.POOL_NOT_FOUND),
    (work(suspend=True), None, True, TaskReason.SUSPENDED),
    (work(cancel=True), None, True, TaskReason.CANCELLED),
    (work(deleting=True), POOL, True, TaskReason.CANCELLED),
    (work(), PoolView("train", deleting=True), True, TaskReason.POOL_DELETED),
    (work(), PoolView("train", python="3.12"), True, TaskReason.ENVIRONMENT_MISMATCH),
    (work(), PoolView("train", python=None), True, Admit()),
    (work(), PoolView("train", suspended=True, python="3.13"), True, Admit()),
    (work(), POOL, False, TaskReason.AWAITING_PAYLOAD),
    (work(mode="Rank", target_rank=2), POOL, True, TaskReason.RANK_NOT_FOUND),
    (work(mode="Rank", target_rank=1), POOL, True, Admit()),
    (work(mode="Head"), POOL, True, Admit()),
]


@pytest.mark.parametrize(("asked", "pool", "present", "wanted"), ADMISSION)
def test_admission(asked: Work, pool: PoolView | None, present: bool, wanted: Admit | TaskReason) -> None:
    verdict = decide.admission(asked, pool, present)
    if isinstance(wanted, Admit):
        assert verdict == wanted
    else:
        assert isinstance(verdict, Wait | End)
        assert verdict.reason is wanted
        assert verdict.message


def error(reason: str, kind: Any = "User") -> ErrorInfo:
    return ErrorInfo("ValueError", "no", kind=kind, reason=reason)


JUDGED = [
    (FailureReason.USER_EXCEPTION, 0, 0, None),
    (FailureReason.USER_EXCEPTION, 2, 0, 1.0),
    (FailureReason.USER_EXCEPTION, 2, 1, 2.0),
    (FailureReason.USER_EXCEPTION, 2, 2, None),
    (FailureReason.WORKER_DIED, 0, 0, None),
    (FailureReason.WORKER_DIED, 1, 0, 1.0),
    (FailureReason.RUN_TIMEOUT, 5, 0, None),
    (FailureReason.NOT_DESERIALIZABLE, 5, 0, None),
    (FailureReason.RESULT_NOT_PICKLABLE, 5, 0, None),
    (FailureReason.RESULT_TOO_LARGE, 5, 0, None),
    (FailureReason.RESULT_NOT_STORED, 5, 0, None),
    (FailureReason.ENTRYPOINT_NOT_FOUND, 5, 0, None),
    (FailureReason.PAYLOAD_INVALID, 5, 0, None),
    ("AReasonOfANewerAgent", 5, 0, None),
]


@pytest.mark.parametrize(("reason", "budget", "earlier", "delay"), JUDGED)
def test_failed_call(reason: str, budget: int, earlier: int, delay: float | None) -> None:
    failure = error(reason)
    wanted = Failed(failure) if delay is None else Retried(delay)
    assert decide.judge(failure, Retry(on_exception=budget), earlier) == wanted


def test_backoff_has_a_ceiling() -> None:
    retry = Retry(on_exception=1000, backoff_seconds=1, max_backoff_seconds=60)
    assert decide.judge(error("UserException"), retry, 900) == Retried(60.0)


@pytest.mark.parametrize(
    ("budget", "earlier", "reason"),
    [(3, 0, None), (3, 2, None), (3, 3, TaskReason.NODE_LOST), (0, 0, TaskReason.INDETERMINATE)],
)
def test_interrupted_call(budget: int, earlier: int, reason: TaskReason | None) -> None:
    verdict = decide.interrupted(Retry(on_interruption=budget), earlier, "node a", "MachineLost")
    if reason is None:
        assert verdict == Retried(0.0)
    else:
        assert isinstance(verdict, Failed)
        assert (verdict.error.kind, verdict.error.reason) == ("System", reason)
        assert "node a" in verdict.error.message


@pytest.mark.parametrize(
    ("mean", "configured", "depth"),
    [
        (None, 0, 0),
        (None, 4, 4),
        (5.0, 0, 0),
        (5.0, 3, 3),
        (0.4, 0, 2),
        (0.01, 0, 10),
        (0.0001, 0, 32),
        (0.4, 9, 9),
    ],
)
def test_buffer_hides_latency_of_short_calls_only(mean: float | None, configured: int, depth: int) -> None:
    assert decide.buffer_depth(mean, configured) == depth


WAITING = [
    (work(), POOL, Occupancy(2, 2, 2, 5), 0, "Queued", "free slot: the pool has 2 slots"),
    (work(), POOL, Occupancy(2, 4, 3, 2, 1), 0, "Queued", "a broadcast that came before keeps 1 until"),
    (work(), POOL, Occupancy(0, 0, 0, 1), 0, "AwaitingNodes", "0 of 2 nodes ready"),
    (work(mode="All"), POOL, Occupancy(1, 1, 0, 1), 0, "AwaitingNodes", "1 of 2 nodes ready"),
    (work(mode="All"), POOL, Occupancy(2, 2, 1, 1), 0, "Queued", "all 2 nodes at once"),
    (work(mode="Head"), POOL, Occupancy(2, 2, 1, 1), 0, "Queued", "rank 0"),
    (work(), POOL, Occupancy(2, 2, 0, 1), 3, "AwaitingNodes", "3 nodes"),
    (work(), PoolView("p", suspended=True), Occupancy(0, 0, 0, 1), 0, "PoolSuspended", "suspended"),
    (
        work(),
        PoolView("p", phase="Stalled", message="no package numpyy"),
        Occupancy(0, 0, 0, 1),
        0,
        "PoolStalled",
        "no package numpyy",
    ),
    (
        work(),
        PoolView("p", desired=2, message="rank 0: installing packages"),
        Occupancy(0, 0, 0, 1),
        0,
        "AwaitingNodes",
        "installing packages",
    ),
]


@pytest.mark.parametrize(("asked", "pool", "occupancy", "awaited", "reason", "text"), WAITING)
def test_waiting_task_says_what_for(
    asked: Work, pool: PoolView, occupancy: Occupancy, awaited: int, reason: str, text: str
) -> None:
    wait = decide.waiting(asked, pool, occupancy, awaited)
    assert wait.reason == reason
    assert text in wait.message
    assert next_step(wait.reason)


@pytest.mark.parametrize("mode", ["Any", "All", "Head"])
def test_waiting_task_says_the_same_while_calls_of_others_come_and_go(mode: str) -> None:
    few, many = Occupancy(2, 4, 3, 2), Occupancy(2, 4, 4, 5_000)
    assert decide.waiting(work(mode=mode), POOL, few, 0) == decide.waiting(work(mode=mode), POOL, many, 0)


def test_the_counts_of_a_pool_are_said_once() -> None:
    pool = PoolView("p", message="0 of 1 nodes ready; a node failed: no disk")
    wait = decide.waiting(work(), pool, Occupancy(0, 0, 0, 1), 0)
    assert wait.message == "pool p: 0 of 1 nodes ready; a node failed: no disk"


def test_end_of_a_map_names_the_first_failure() -> None:
    end = decide.ending(error("UserException"), 41, 3, 100)
    assert end.reason is TaskReason.USER_EXCEPTION
    assert end.message == "3 of 100 calls failed; the first one, call 41: ValueError: no"


def test_python_mismatch_names_both_and_the_remedy() -> None:
    end = decide.python_mismatch("3.13", "3.12.4", "node a")
    assert "3.13" in end.message
    assert "3.12.4" in end.message
    assert "Image(python='3.13')" in end.message


def test_work_is_read_with_the_defaults_of_the_schema() -> None:
    metadata = {"namespace": "n", "name": "t", "uid": "u", "creationTimestamp": "2026-01-01T00:00:10Z"}
    read = read_work(
        {"metadata": metadata, "spec": {"poolRef": {"name": "p"}, "command": {"argv": ["true"]}}}
    )
    assert read.retry == Retry(3, 0, 1, 60)
    assert (read.mode, read.rank, read.count, read.grace_seconds) == ("Any", None, 1, 10)
    assert read.created == 1767225610.0


def test_items_make_one_call_each() -> None:
    metadata = {"namespace": "n", "name": "t", "uid": "u"}
    function = {"entrypoint": "math:sqrt", "items": [1, 4, 9]}
    assert (
        read_work({"metadata": metadata, "spec": {"poolRef": {"name": "p"}, "function": function}}).count == 3
    )
