"""A live task as its status says it. Pure: what stands in the ledger in, a JSON document out."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.meta import MESSAGE_LIMIT, RANGES_LIMIT, clip
from skyward.contract.reasons import TASK_CONDITIONS, ConditionType, TaskPhase, TaskReason, next_step
from skyward_operator.engine.clock import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.tasks.decide import End
    from skyward_operator.tasks.ledger import Failure, LiveTask

_TRACEBACK: Final = 8192
_MOST_VALUES: Final = 16 * 1024
_MILLIONTH: Final = Decimal("0.000001")


def live_status(live: LiveTask, conditions: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    """The status of a task that goes on."""
    phase, reason, message = live_state(live)
    return _status(live, phase, reason, message, conditions, now)


def live_state(live: LiveTask) -> tuple[TaskPhase, TaskReason, str]:
    """Phase, reason and message of a task that goes on."""
    if live.results.trouble:
        return TaskPhase.RUNNING, TaskReason.AWAITING_STORAGE, live.results.trouble
    if live.ending is not None:
        return (
            TaskPhase.RUNNING,
            live.ending.reason,
            f"{live.ending.message}; running calls are being stopped",
        )
    if not live.flights:
        phase, reason, message = live.waiting
        if live.delayed:
            reason, message = (
                TaskReason.RETRYING,
                f"{calls_are(len(live.delayed))} tried again shortly",
            )
        return phase, reason, message
    calls = live.flights.calls
    retried = sum(attempt.count for attempt in live.flights if attempt.number > 1)
    if retried:
        return (
            TaskPhase.RUNNING,
            TaskReason.RETRYING,
            f"{retried} of {calls} attempts are retries",
        )
    where = "on a node" if calls == 1 else "on nodes"
    return TaskPhase.RUNNING, TaskReason.RUNNING, f"{calls_are(calls)} {where}"


def final_status(
    live: LiveTask,
    end: End,
    result: Mapping[str, Any] | None,
    conditions: Sequence[Mapping[str, Any]],
    now: datetime,
) -> dict[str, Any]:
    """The status of a task that has ended."""
    status = _status(live, end.phase, end.reason, end.message, conditions, now)
    status["completionTime"] = timestamp(now)
    if result:
        status["result"] = dict(result)
    if live.first_failure is not None:
        status["error"] = _error(live.first_failure)
    elif end.phase is TaskPhase.FAILED:
        status["error"] = {"kind": "System", "reason": str(end.reason), "message": clip(end.message)}
    status["cost"] = {"total": f"{live.cost.quantize(_MILLIONTH):f}"}
    if live.started:
        status["display"]["duration"] = duration((live.ended or now.timestamp()) - live.started)
    return status


def values_of(live: LiveTask) -> Any:
    """What a task that was not pickled returned, as JSON; None where there is none or it is large."""
    if not live.values or sum(len(repr(value)) for value in live.values.values()) > _MOST_VALUES:
        return None
    work = live.work
    if work.broadcast or (work.function or {}).get("items") is not None:
        return [live.values.get(index) for index in range(live.total)]
    return live.values.get(0)


def calls_are(number: int) -> str:
    """The beginning of a sentence: `1 call is`, `2 calls are`."""
    return "1 call is" if number == 1 else f"{number} calls are"


def duration(seconds: float) -> str:
    """A span of time for people: `0.24s`, `12.3s`, `1m12s`, `2h05m`."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.2f}s"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def _status(
    live: LiveTask,
    phase: TaskPhase,
    reason: TaskReason,
    message: str,
    conditions: Sequence[Mapping[str, Any]],
    now: datetime,
) -> dict[str, Any]:
    status: dict[str, Any] = {
        "observedGeneration": live.work.generation,
        "phase": str(phase),
        "reason": str(reason),
        "message": clip(_with_remedy(phase, reason, message), MESSAGE_LIMIT),
        "counts": {
            "total": live.total,
            "running": 0 if phase.is_final else live.flights.calls,
            "succeeded": len(live.succeeded),
            "failed": len(live.failed),
        },
        "display": {"progress": f"{live.ended_calls}/{live.total or '?'}"},
        "conditions": _conditions(live, phase, reason, message, conditions, now),
    }
    if live.started is not None:
        status["startTime"] = _time(live.started)
        status["attempts"] = _attempts(live)
        if node := _nodes(live):
            status["node"] = node
    if live.cost:
        status["cost"] = {"total": f"{live.cost.quantize(_MILLIONTH):f}"}
    if live.succeeded and live.total > 1:
        status["succeededIndexes"] = live.succeeded.text(RANGES_LIMIT)
    if live.failed and live.total > 1:
        status["failedIndexes"] = live.failed.text(RANGES_LIMIT)
    return status


def _with_remedy(phase: TaskPhase, reason: TaskReason, message: str) -> str:
    remedy = next_step(reason)
    is_well = phase in (TaskPhase.RUNNING, TaskPhase.SUCCEEDED) and reason is not TaskReason.AWAITING_STORAGE
    if is_well or not remedy or remedy.startswith("Nothing to do"):
        return message
    end = "" if message.endswith(("?", "!")) else "."
    return f"{message.rstrip('.')}{end} {remedy}"


def _conditions(
    live: LiveTask,
    phase: TaskPhase,
    reason: TaskReason,
    message: str,
    earlier: Sequence[Mapping[str, Any]],
    now: datetime,
) -> list[dict[str, Any]]:
    ended_badly = phase in (TaskPhase.FAILED, TaskPhase.CANCELLED)
    holds = {
        ConditionType.SCHEDULED: live.started is not None,
        ConditionType.RUNNING: phase is TaskPhase.RUNNING,
        ConditionType.SUCCEEDED: phase is TaskPhase.SUCCEEDED,
        ConditionType.FAILED: ended_badly,
    }
    before = {each.get("type"): each for each in earlier}
    conditions = []
    for type_ in TASK_CONDITIONS:
        status = "True" if holds[type_] else "False"
        if type_ is ConditionType.SUCCEEDED and not phase.is_final:
            status = "Unknown"
        old = before.get(str(type_), {})
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        conditions.append(
            {
                "type": str(type_),
                "status": status,
                "reason": str(reason),
                "message": clip(message, 1024),
                "observedGeneration": live.work.generation,
                "lastTransitionTime": since or timestamp(now),
            }
        )
    return conditions


def _attempts(live: LiveTask) -> dict[str, Any]:
    recent = [
        {
            "index": trace.index,
            "attempt": trace.attempt,
            "node": trace.node,
            "rank": trace.rank,
            "startTime": _time(trace.started),
            "endTime": _time(trace.ended),
            "cause": trace.cause,
            **_several(trace.count),
        }
        for trace in reversed(live.recent)
    ]
    room = 32 - len(recent)
    recent += [
        {
            "index": attempt.index,
            "attempt": attempt.number,
            "node": attempt.node,
            "rank": attempt.rank,
            "startTime": _time(attempt.started or attempt.sent),
            **_several(attempt.count),
        }
        for attempt in islice(live.flights, room)
    ]
    return {"total": live.attempts, "interrupted": live.interrupted, "recent": recent}


def _several(count: int) -> dict[str, int]:
    return {"count": count} if count > 1 else {}


def _nodes(live: LiveTask) -> str:
    if len(live.members) > 1:
        return f"{len(live.members)} nodes"
    return (
        next(iter(live.nodes)) if len(live.nodes) == 1 else f"{len(live.nodes)} nodes" if live.nodes else ""
    )


def _error(failure: Failure) -> dict[str, Any]:
    error = failure.error
    traceback = error.traceback
    return {
        "index": failure.index,
        "kind": error.kind,
        "reason": error.reason,
        "type": clip(
            f"{error.module}.{error.type}" if error.module not in ("", "builtins") else error.type, 256
        ),
        "message": clip(error.message, MESSAGE_LIMIT),
        "traceback": clip(traceback, _TRACEBACK, keep="tail"),
        "node": failure.node,
    }


def _time(seconds: float) -> str:
    return timestamp(datetime.fromtimestamp(seconds, UTC))
