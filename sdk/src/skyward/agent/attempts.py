"""One attempt at a call, and the words for how it ended when it brought no result of its own."""

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from skyward.agent.process import WorkerProcess
from skyward.wire.envelopes import INTERRUPTED, ErrorInfo, FailureReason
from skyward.wire.frames import Frame

_DEFAULT_GRACE = 10.0
_DIED = FailureReason.WORKER_DIED

type Ending = Literal["cancelled", "timeout", "agent stopped"]


@dataclass(slots=True)
class Attempt:
    """One call that was taken and has not ended."""

    id: str
    header: dict[str, Any]
    body: bytes
    function: bytes | None = None
    function_path: Path | None = None
    args_path: Path | None = None
    blobs: dict[str, Path] = field(default_factory=dict)
    """What function and arguments refer to by digest."""
    worker: WorkerProcess | None = None
    slot: int = -1
    started: float = 0.0
    begun: float = 0.0
    """The same moment by the clock that nobody sets: what durations are measured with."""
    ending: Ending | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may run."""
        timeout = self.header.get("timeout")
        return None if timeout is None else float(timeout)

    @property
    def grace(self) -> float:
        """Seconds between being asked to end and being killed."""
        grace = self.header.get("grace")
        return _DEFAULT_GRACE if grace is None else float(grace)

    def stop_timers(self) -> None:
        """The attempt needs no more watching."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class Listener(Protocol):
    """Who wants to know what happens to attempts."""

    def started(self, attempt: Attempt) -> None:
        """It was handed to a worker."""

    def output(self, attempt: str, stream: str, data: bytes) -> None:
        """It printed something."""

    def streamed(self, frame: Frame) -> None:
        """Its worker sent a frame of one of its streams."""

    def finished(self, attempt: Attempt, header: dict[str, Any], body: bytes, file: str | None) -> None:
        """It ended, or items of it did; `file` names the body of a large result in the spool."""

    def returned(self, name: str, count: int) -> None:
        """`count` attempts from this one on did not run and are not here any more."""

    def worker_gone(self, pid: int) -> None:
        """A worker ended; it writes no more files."""

    def notice(self, reason: str, message: str) -> None:
        """Something is wrong that belongs to no attempt."""


def ended_early(attempt: Attempt, raised: dict[str, str] | None) -> ErrorInfo:
    """Why an attempt was ended, with where it stood if it could still say so."""
    trace = (raised or {}).get("traceback", "")
    match attempt.ending:
        case "timeout":
            limit = f"{float(attempt.header['timeout']):g}"
            message = f"the call ran longer than its timeout of {limit} s and was stopped"
            return ErrorInfo("TimeoutError", message, "builtins", trace, "User", FailureReason.RUN_TIMEOUT)
        case "agent stopped":
            return ErrorInfo("WorkerDied", "the agent of the node was stopped", "", trace, "System", _DIED)
        case _:
            message = "the call was cancelled"
            return ErrorInfo("CancelledError", message, "", trace, "User", FailureReason.CANCELLED)


def ended_by_death(attempt: Attempt, status: int) -> ErrorInfo:
    """Its worker ended with this status."""
    if attempt.worker is not None and attempt.worker.retiring:
        message = "the worker process was stopped because another call in it did not end when it was asked to"
        return ErrorInfo(INTERRUPTED, message, "", "", "System", INTERRUPTED)
    message = f"the worker process ended during the call with {cause(status)}"
    return ErrorInfo("WorkerDied", message, "", "", "System", _DIED)


def lost_outcome() -> ErrorInfo:
    """It ran, and its worker does not say how it ended."""
    message = "the worker process lost the outcome of the call when it was interrupted"
    return ErrorInfo("WorkerDied", message, "", "", "System", _DIED)


def cause(status: int) -> str:
    """The end of a process in words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"signal {-status} ({name}){hint}"


def never_started(message: str) -> ErrorInfo:
    """No worker could be started for it."""
    return ErrorInfo("WorkerDied", message, "", "", "System", _DIED)
