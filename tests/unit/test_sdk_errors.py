"""Errors say what happened and what to do, survive pickling, and keep the types that people catch."""

from __future__ import annotations

import base64
import inspect
import pickle
import threading
from typing import Any

import pytest

import skyward as sky
from skyward import errors
from skyward.contract.reasons import TaskReason, next_step
from skyward.errors import RemoteTraceback, SkywardError
from skyward.narration import (
    billed_words,
    ignored_words,
    lost_attempts,
    node_words,
    pool_words,
    stalled_error,
    task_words,
)
from skyward.results import each_value, exception_of, outcomes_of, task_error, values_of
from skyward.wire import codec
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.package import Outcome, pack_outcomes
from skyward.wire.raised import dumps_error

KINDS = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, SkywardError)]


def _ended(phase: str = "Succeeded", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "train-1"}, "status": {"phase": phase, **status}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_pickling(kind: type[SkywardError]) -> None:
    error = kind("it broke", reason="Why", task="t", node="n", remedy="do this", attempts=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "it broke\n  → do this"
    assert (again.reason, again.task, again.node, again.remedy) == ("Why", "t", "n", "do this")
    assert again.attempts == 3


def test_timeouts_are_timeout_errors() -> None:
    assert issubclass(sky.TaskTimeout, TimeoutError)
    assert issubclass(sky.QueueTimeout, TimeoutError)
    assert issubclass(sky.BootstrapFailed, sky.PoolStalled)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (TaskReason.QUEUE_TIMEOUT, sky.QueueTimeout),
        (TaskReason.RUN_TIMEOUT, sky.TaskTimeout),
        (TaskReason.CANCELLED, sky.TaskCancelled),
        (TaskReason.WORKER_DIED, sky.WorkerDied),
        (TaskReason.NODE_LOST, sky.NodeLost),
        (TaskReason.INDETERMINATE, sky.Indeterminate),
        (TaskReason.RESULT_NOT_PICKLABLE, sky.ResultNotPicklable),
        (TaskReason.RESULT_TOO_LARGE, sky.ResultTooLarge),
        (TaskReason.RESULT_NOT_STORED, sky.TaskError),
        (TaskReason.NOT_DESERIALIZABLE, sky.EnvironmentMismatch),
        (TaskReason.ENVIRONMENT_MISMATCH, sky.EnvironmentMismatch),
        (TaskReason.PAYLOAD_INVALID, sky.PayloadError),
        (TaskReason.POOL_DELETED, sky.PoolDeleted),
        (TaskReason.POOL_NOT_FOUND, sky.PoolNotFound),
        (TaskReason.RANK_NOT_FOUND, sky.TaskError),
    ],
)
def test_each_reason_has_its_type_and_its_remedy_once(reason: str, kind: type[SkywardError]) -> None:
    message = f"no luck. {next_step(reason)}"
    error = task_error(_ended("Failed", reason=reason, message=message))
    assert type(error) is kind
    assert (error.reason, error.task) == (reason, "train-1")
    assert str(error) == f"task train-1: no luck.\n  → {next_step(reason)}"


def _failed(error: BaseException, index: int = 0, rank: int = 1) -> Outcome:
    try:
        raise error
    except BaseException as raised:
        body, info = dumps_error(raised)
    return Outcome(index, False, body, info, f"demo-{rank}-abc", rank, f"uid.{index}.2")


def test_the_callers_exception_comes_back_as_itself() -> None:
    error = exception_of("train-1", _failed(KeyError("missing")))
    assert type(error) is KeyError
    assert error.args == ("missing",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "test_sdk_errors.py" in str(error.__cause__)
    assert "raise error" in str(error.__cause__)
    assert error.__notes__ == ["on node 1 (demo-1-abc), task train-1, attempt 2"]


def test_its_own_cause_is_kept_and_the_remote_traceback_comes_last() -> None:
    original = ValueError("outer")
    original.__cause__ = OSError("inner")
    error = exception_of("train-1", _failed(original))
    assert isinstance(error.__cause__, OSError)
    assert isinstance(error.__cause__.__cause__, RemoteTraceback)


def test_an_exception_of_an_unknown_class_keeps_its_words() -> None:
    info = ErrorInfo("DatabaseError", "no such table", "psycopg", "Traceback …", "User")
    body = pickle.dumps(ValueError()).replace(b"ValueError", b"ValueErroR")
    error = exception_of("train-1", Outcome(0, False, body, info, "n0", 0))
    assert type(error) is sky.RemoteError
    assert str(error).startswith("psycopg.DatabaseError: no such table\n  → the class of this exception")


class Locked(Exception):
    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.lock = threading.Lock()


def test_an_exception_that_holds_what_cannot_be_pickled_is_not_said_to_be_of_an_unknown_class() -> None:
    error = exception_of("train-1", _failed(Locked("no way in")))
    assert type(error) is sky.RemoteError
    words, remedy = str(error).split("\n  → ")
    assert words.endswith("Locked: no way in")
    assert remedy.startswith("the exception holds something that pickle cannot carry")


@pytest.mark.parametrize("leaving", [SystemExit(), SystemExit("bye"), KeyboardInterrupt()])
def test_what_ends_a_process_there_does_not_end_this_one(leaving: BaseException) -> None:
    error = exception_of("train-1", _failed(leaving))
    assert type(error) is sky.RemoteError
    assert str(error).startswith(type(leaving).__name__)
    assert "sys.exit()" in str(error)


def test_a_system_failure_is_an_error_of_ours() -> None:
    info = ErrorInfo("WorkerDied", "exit code 3", kind="System", reason="WorkerDied")
    error = exception_of("train-1", Outcome(0, False, b"", info, "demo-1-abc", 1))
    assert type(error) is sky.WorkerDied
    assert "exit code 3 (on node 1)" in str(error)
    assert error.node == "demo-1-abc"
    assert next_step("WorkerDied") in str(error)


@pytest.mark.parametrize(
    ("reason", "attempt", "attempts"),
    [
        ("WorkerDied", "uid.0.1", 1),
        ("NodeLost", "uid.0.4", 4),
        ("RunTimeout", "uid.0.2", 2),
        ("Indeterminate", "uid.0.1", 1),
        ("Cancelled", "uid.0.3", 3),
        ("NotPicklable", "", 0),
    ],
)
def test_an_error_says_how_often_its_call_was_begun(reason: str, attempt: str, attempts: int) -> None:
    info = ErrorInfo(reason, "no luck", kind="System", reason=reason)
    error = exception_of("train-1", Outcome(0, False, b"", info, "n0", 0, attempt))
    assert isinstance(error, sky.TaskError)
    assert error.attempts == attempts


def test_what_cannot_be_rebuilt_here_says_how_often_its_call_was_begun() -> None:
    for raised in (Locked("no way in"), SystemExit(2)):
        error = exception_of("train-1", _failed(raised))
        assert isinstance(error, sky.RemoteError)
        assert error.attempts == 2
    with pytest.raises(sky.EnvironmentMismatch) as caught:
        values_of(_ended(), [Outcome(0, True, b"\x80\x05cno_such_module\nX\n.", attempt="uid.0.3")], 1)
    assert caught.value.attempts == 3


def test_an_error_about_a_task_says_how_often_its_calls_were_begun() -> None:
    cancelled = _ended("Cancelled", reason="Cancelled", attempts={"total": 7, "interrupted": 0})
    assert task_error(cancelled).attempts == 7
    assert task_error(_ended("Failed", reason="QueueTimeout")).attempts == 0


def test_the_first_failure_of_many_says_how_many() -> None:
    outcomes = [Outcome(0, True, codec.dumps(1)), _failed(KeyError("b"), 2), _failed(OSError("c"), 3)]
    with pytest.raises(KeyError) as caught:
        values_of(_ended("Failed"), outcomes, 3)
    assert caught.value.__notes__[-1] == "2 of 3 calls failed (2-3); this is call 2"


def test_results_are_in_order_and_the_latest_attempt_counts() -> None:
    outcomes = [
        Outcome(index, True, codec.dumps(value)) for index, value in [(1, "old"), (0, "a"), (1, "new")]
    ]
    package = base64.b64encode(pack_outcomes(outcomes)).decode()
    found = outcomes_of(_ended(result={"package": package}), lambda _: b"")
    assert values_of(_ended(), found, 2) == ["a", "new"]


def test_large_results_are_fetched() -> None:
    packed = pack_outcomes([Outcome(0, True, codec.dumps("big"))])
    found = outcomes_of(_ended(result={"blob": {"digest": "x", "sizeBytes": 1}}), lambda _: packed)
    assert values_of(_ended(), found, 1) == ["big"]


def test_missing_or_damaged_results_are_never_values() -> None:
    with pytest.raises(sky.GatewayError, match="0 of 2 results"):
        values_of(_ended(), [], 2)
    with pytest.raises(sky.GatewayError, match="damaged"):
        outcomes_of(
            _ended(result={"blob": {}} | {"package": base64.b64encode(b"nonsense" * 9).decode()}),
            lambda _: b"",
        )
    with pytest.raises(sky.EnvironmentMismatch, match="cannot be read here"):
        values_of(_ended(), [Outcome(0, True, b"\x80\x05cno_such_module\nX\n.")], 1)


def test_pools_nodes_and_tasks_in_words() -> None:
    pool: dict[str, Any] = {"metadata": {"name": "demo"}, "spec": {"nodes": {"desired": 2}}}
    assert "waiting for the operator" in pool_words(pool, 1.0)
    assert "skyward local status" in pool_words(pool, 30.0)
    pool["status"] = {"phase": "Provisioning", "reason": "Launching", "nodes": {"ready": 1}}
    assert pool_words(pool, 1.0) == "Provisioning: 1 of 2 nodes ready"
    pool["status"] |= {"reason": "QuotaExceeded", "message": "quota is 0"}
    assert pool_words(pool, 1.0).endswith("; quota is 0")
    pool["status"]["message"] = "1 of 2 nodes ready; quota is 0"
    assert pool_words(pool, 1.0) == "Provisioning: 1 of 2 nodes ready; quota is 0"
    assert ignored_words(pool) == ""
    pool["status"]["conditions"] = [{"type": "Unsupported", "status": "True", "message": "not spec.budget"}]
    assert ignored_words(pool) == "not spec.budget"
    assert billed_words(pool) == ""
    switch = {"type": "DeadManSwitch", "status": "False", "reason": "SwitchOff", "message": "for ever"}
    pool["status"]["conditions"] = [switch]
    assert billed_words(pool) == ""
    pool["status"]["conditions"] = [switch | {"reason": "PowerOffBilled", "message": "billed when off"}]
    assert billed_words(pool) == "billed when off"
    node = {
        "status": {"phase": "Bootstrapping", "bootstrap": {"step": "pip", "lastLine": " Installing\n numpy "}}
    }
    assert node_words(node) == "Bootstrapping: pip: Installing numpy"
    offer = {"provider": "aws", "region": "eu", "instanceType": "g5", "market": "spot"}
    assert (
        node_words({"status": {"phase": "Launching", "launch": {"offer": offer}}})
        == "Launching: aws eu g5 spot"
    )
    offer = {"provider": "local", "region": "local", "instanceType": "local", "market": "on-demand"}
    assert (
        node_words({"status": {"phase": "Launching", "launch": {"offer": offer}}})
        == "Launching: local on-demand"
    )
    assert node_words({}) == "Pending"
    counts = {"total": 24, "succeeded": 3, "failed": 1, "running": 2}
    words = task_words({"status": {"phase": "Running", "counts": counts}})
    assert words == "Running: 4 of 24 calls done, 2 running, 1 failed"
    assert task_words({"status": {"phase": "Queued", "message": "no slot"}}) == "Queued: no slot"
    stuck = {"phase": "Running", "reason": "AwaitingStorage", "message": "results cannot be stored: full"}
    assert task_words({"status": stuck}) == "Running: results cannot be stored: full"


def test_a_stalled_pool_shows_the_line_that_failed() -> None:
    pool: dict[str, Any] = {"metadata": {"name": "demo", "generation": 1}, "spec": {}}
    assert stalled_error(pool) is None
    pool["status"] = {
        "conditions": [{"type": "Stalled", "status": "True", "reason": "PackageNotFound"}],
        "failures": {
            "reason": "PackageNotFound",
            "message": "pip failed",
            "log": "a\nno such package: nunpy",
        },
    }
    error = stalled_error(pool)
    assert isinstance(error, sky.BootstrapFailed)
    assert "| no such package: nunpy" in str(error)
    assert next_step("PackageNotFound") in str(error)


def test_losses_are_told_oldest_first_and_promise_no_retry_that_is_not_seen() -> None:
    recent = [
        {"index": 1, "attempt": 4, "rank": 0, "node": "n0", "cause": "MachineLost"},
        {"index": 7, "attempt": 2, "rank": 0, "node": "n0"},
        {"index": 7, "attempt": 1, "count": 30, "rank": 2, "node": "n2", "cause": "MachineLost"},
        {"index": 1, "attempt": 3, "rank": 1, "node": "n1", "cause": "WorkerDied"},
        {"index": 1, "attempt": 2, "rank": 1, "node": "n1", "cause": "AgentRestarted"},
        {"index": 0, "attempt": 1, "rank": 0, "node": "n0"},
    ]
    task = {"status": {"phase": "Running", "attempts": {"recent": recent}}}
    assert list(lost_attempts(task).values()) == [
        "⚠ attempt 2 of call 1 was lost on node 1 (AgentRestarted); the call is tried again",
        "⚠ attempt 1 of calls 7 to 36 was lost on node 2 (MachineLost); the calls are tried again",
        "⚠ attempt 4 of call 1 was lost on node 0 (MachineLost)",
    ]
    assert lost_attempts({}) == {}


_UNREADABLE = Outcome(1, True, b"\x80\x05cno_such_module\nX\n.", attempt="uid.1.1")


def test_result_that_cannot_be_read_here_fails_alone() -> None:
    outcomes = [Outcome(0, True, codec.dumps("a")), _UNREADABLE, Outcome(2, True, codec.dumps("c"))]
    first, second, third = values_of(_ended(), outcomes, 3, "return")
    assert (first, third) == ("a", "c")
    assert isinstance(second, sky.EnvironmentMismatch)
    assert "the result of call 1 arrived but cannot be read here" in str(second)
    with pytest.raises(sky.EnvironmentMismatch, match="the result of call 1 arrived") as caught:
        values_of(_ended(), outcomes, 3)
    assert caught.value.__notes__ == ["1 of 3 calls failed (1); this is call 1"]


def test_results_behind_one_that_cannot_be_read_come_all_the_same() -> None:
    outcomes = [_UNREADABLE, Outcome(2, True, codec.dumps("c"))]
    values = each_value("task", iter(outcomes), _ended, None, "raise")
    assert next(values) == "c"
    with pytest.raises(sky.EnvironmentMismatch):
        next(values)
