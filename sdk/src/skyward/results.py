"""What a finished Task means for its caller: values, or the exception to raise.

The user's own exception comes back as its original type with a `RemoteTraceback` as its cause; everything
else is an error of this package with the reason, the task, the node and the next step.
"""

import base64
import linecache
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from skyward import errors
from skyward.contract import ranges
from skyward.contract.reasons import TaskReason, next_step
from skyward.errors import RemoteTraceback, SkywardError, TaskError
from skyward.wire import codec
from skyward.wire.digest import BytesLike
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.errors import PickleError
from skyward.wire.package import Outcome, PackageError, iter_outcomes
from skyward.wire.raised import loads_error

ERROR_OF_REASON: dict[str, type[SkywardError]] = {
    TaskReason.QUEUE_TIMEOUT: errors.QueueTimeout,
    TaskReason.RUN_TIMEOUT: errors.TaskTimeout,
    TaskReason.CANCELLED: errors.TaskCancelled,
    TaskReason.WORKER_DIED: errors.WorkerDied,
    TaskReason.NODE_LOST: errors.NodeLost,
    TaskReason.INDETERMINATE: errors.Indeterminate,
    TaskReason.NOT_PICKLABLE: errors.NotPicklable,
    TaskReason.RESULT_NOT_PICKLABLE: errors.ResultNotPicklable,
    TaskReason.RESULT_TOO_LARGE: errors.ResultTooLarge,
    TaskReason.NOT_DESERIALIZABLE: errors.EnvironmentMismatch,
    TaskReason.ENVIRONMENT_MISMATCH: errors.EnvironmentMismatch,
    TaskReason.PAYLOAD_INVALID: errors.PayloadError,
    TaskReason.AWAITING_PAYLOAD: errors.PayloadError,
    TaskReason.POOL_DELETED: errors.PoolDeleted,
    TaskReason.POOL_NOT_FOUND: errors.PoolNotFound,
    TaskReason.POOL_STALLED: errors.PoolStalled,
}
"""The class for each reason that has one of its own; TaskError for the others."""
_LONGEST_RANGES = 200
_IN_PLACE = 1024 * 1024
"""A value of so many bytes is used where it lies, among those of other calls."""
type OnError = Literal["raise", "return"]
"""What becomes of a call that failed: its exception is raised once all have ended, or stands in its place."""
_FRAME = re.compile(r'^( +)File "(?P<file>[^"]+)", line (?P<line>\d+)')


def outcomes_of(task: Mapping[str, Any], fetch: Callable[[Mapping[str, Any]], BytesLike]) -> list[Outcome]:
    """The outcomes of a finished Task in the order of its calls; `fetch` gets those too large for it, by what
    its status says of them."""
    result = task.get("status", {}).get("result") or {}
    if package := result.get("package"):
        data: BytesLike = base64.b64decode(package)
    elif blob := result.get("blob"):
        data = fetch(blob)
    else:
        return []
    try:
        # A call that was tried again after a restart may stand there twice: the latest counts.
        latest = {outcome.index: _on_its_own(outcome) for outcome in iter_outcomes(data)}
    except PackageError as error:
        raise errors.GatewayError(
            f"the result of task {task['metadata']['name']} is damaged: {error}",
            task=task["metadata"]["name"],
            remedy="send the call again",
            attempts=attempts_of(task),
        ) from error
    return [latest[index] for index in sorted(latest)]


def _on_its_own(outcome: Outcome) -> Outcome:
    """A small value must not keep what came with it: it is copied when it is unpickled, not used in place."""
    body = outcome.body
    if isinstance(body, memoryview) and body.nbytes < _IN_PLACE:
        return replace(outcome, body=body.toreadonly())
    return outcome


def values_of(
    task: Mapping[str, Any], outcomes: list[Outcome], count: int | None, on_error: OnError = "raise"
) -> list[Any]:
    """The values of all calls (`count` of them, if it is known). Raises the first failure."""
    return list(each_value(_name(task), outcomes, lambda: task, count, on_error))


def each_value(
    name: str,
    outcomes: Iterable[Outcome],
    ended: Callable[[], Mapping[str, Any]],
    count: int | None,
    on_error: OnError,
) -> Iterator[Any]:
    """The value of each outcome, unpickled when it is asked for; `ended` waits for the Task's end.

    Calls that failed, or whose result cannot be read here, are left out, and the first of them is raised at
    the end; or, with "return", their exceptions stand in their places.
    """
    first: tuple[Outcome, Exception | None] | None = None
    failed: list[int] = []
    seen = 0
    for outcome in outcomes:
        seen += 1
        failure: Exception | None = None
        if outcome.ok:
            try:
                value = _value(name, outcome, one_of_many=count != 1)
            except errors.EnvironmentMismatch as unreadable:
                failure = unreadable  # no reason to withhold the others
            else:
                yield value
                del value  # or it would be here beside the next one
                continue
        if on_error == "return":
            yield failure or exception_of(name, outcome)
            continue
        failed.append(outcome.index)
        if first is None or outcome.index < first[0].index:
            first = outcome, failure
    task = ended()
    if first is not None:
        outcome, failure = first
        error = failure or exception_of(name, outcome)
        raise passable(_with_extent(error, failed, outcome.index, count or seen))
    expected = count if count is not None else _total(task)
    if task.get("status", {}).get("phase") != "Succeeded" and (on_error == "raise" or seen != expected):
        raise task_error(task)
    if count is not None and seen != count:
        raise errors.GatewayError(
            f"task {name} has {seen} of {count} results",
            task=name,
            remedy="send the call again; please report it if it happens again",
            attempts=attempts_of(task),
        )


def value_of(name: str, outcome: Outcome) -> Any:
    """The value of one call. Raises what it raised."""
    if not outcome.ok:
        raise exception_of(name, outcome)
    return _value(name, outcome)


def exception_of(name: str, outcome: Outcome) -> Exception:
    """What to raise for a call that failed."""
    info = outcome.error or ErrorInfo("Exception", "the call failed without a reason", kind="System")
    where = f"node {outcome.rank}"
    if info.kind == "System" or info.reason in ERROR_OF_REASON:
        message = f"{info.message} (on {where})" if outcome.node else info.message
        failure = _system_error(info.reason, message, name, outcome.node, outcome.number)
        if "Traceback" in info.traceback:  # without a frame it only says the message again
            failure.__cause__ = RemoteTraceback(_with_source(info.traceback))
        return failure
    error = _rebuilt(outcome, info, name)
    if not isinstance(error, Exception):
        error = _leaving(error, name, outcome)
    _last_cause(error).__cause__ = RemoteTraceback(_with_source(info.traceback or info.message))
    error.add_note(f"on {where} ({outcome.node}), task {name}{_attempt(outcome)}")
    return error


def passable(error: BaseException) -> BaseException:
    """`error`, or what a generator can raise for it: StopIteration would look like its own end."""
    if not isinstance(error, StopIteration):
        return error
    value = f" with {error.value!r}" if error.value is not None else ""
    stand_in = RuntimeError(f"the call raised StopIteration{value}, which no iterator of results can raise")
    stand_in.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        stand_in.add_note(note)
    return stand_in


def task_error(task: Mapping[str, Any]) -> SkywardError:
    """The error for a Task that ended without an outcome of its own."""
    status = task.get("status", {})
    problem = status.get("error") or {}
    reason = problem.get("reason") or status.get("reason") or "InternalError"
    message = problem.get("message") or status.get("message") or f"it is {status.get('phase', 'gone')}"
    node = problem.get("node") or status.get("node")
    return _system_error(reason, message, _name(task), node, attempts_of(task))


def attempts_of(task: Mapping[str, Any]) -> int:
    """How often calls of the Task were begun, as far as its status says."""
    return int(((task.get("status") or {}).get("attempts") or {}).get("total", 0))


def _total(task: Mapping[str, Any]) -> int | None:
    """How many calls the Task has, where its status says so."""
    total = ((task.get("status") or {}).get("counts") or {}).get("total")
    return None if total is None else int(total)


def _system_error(reason: str, message: str, task: str, node: str | None, attempts: int) -> SkywardError:
    kind = ERROR_OF_REASON.get(reason, TaskError)
    remedy = next_step(reason)
    if remedy and remedy in message:
        message = message.replace(remedy, "").rstrip()
    words = f"task {task}: {message}"
    return kind(words, reason=reason, task=task, node=node, remedy=remedy or None, attempts=attempts)


def _rebuilt(outcome: Outcome, info: ErrorInfo, task: str) -> BaseException:
    remedy = (
        "the exception holds something that pickle cannot carry, so only its words came back: catch "
        "sky.RemoteError, or raise it with plain data such as text and numbers"
    )
    if outcome.body:
        try:
            return loads_error(outcome.body)
        except PickleError:  # its class is not known here; the words are
            remedy = (
                "the class of this exception is not known here: catch sky.RemoteError, or install the "
                "package that defines it"
            )
    return errors.RemoteError(
        f"{info.full_type}: {info.message}",
        task=task,
        node=outcome.node,
        remedy=remedy,
        attempts=outcome.number,
    )


def _leaving(error: BaseException, task: str, outcome: Outcome) -> errors.RemoteError:
    """What means the end of the process there must not end this one, least of all without a word."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return errors.RemoteError(
        f"{words} was raised by the function: it left its process, and returned nothing",
        task=task,
        node=outcome.node,
        remedy="return a value, or raise an Exception, where the function calls sys.exit()",
        attempts=outcome.number,
    )


def _value(name: str, outcome: Outcome, *, one_of_many: bool = False) -> Any:
    try:
        return codec.loads(outcome.body)
    except PickleError as error:
        which = f" of call {outcome.index}" if one_of_many else ""
        raise errors.EnvironmentMismatch(
            f"task {name}: the result{which} arrived but cannot be read here: {error}",
            task=name,
            node=outcome.node,
            remedy="install here what the result is made of, or return plain data",
            attempts=outcome.number,
        ) from error


def _with_extent(error: Exception, failed: list[int], index: int, total: int) -> Exception:
    """Say which calls failed, where there is more than one."""
    if total > 1:
        which = ranges.encode(failed, _LONGEST_RANGES)
        error.add_note(f"{len(failed)} of {total} calls failed ({which}); this is call {index}")
    return error


def _last_cause(error: BaseException) -> BaseException:
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return error


def _attempt(outcome: Outcome) -> str:
    return f", attempt {outcome.number}" if outcome.number > 1 else ""


def _with_source(text: str) -> str:
    """The traceback with the source lines that only this side has."""
    lines = text.splitlines()
    full: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        full.append(line)
        frame = _FRAME.match(line)
        if frame is None or following.startswith(f"{frame[1]}  "):
            continue
        if source := linecache.getline(frame["file"], int(frame["line"])).strip():
            full.append(f"{frame[1]}  {source}")
    return "\n".join(full)


def _name(task: Mapping[str, Any]) -> str:
    return str(task["metadata"]["name"])
