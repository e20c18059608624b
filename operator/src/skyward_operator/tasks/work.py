"""What a Task asks for, read once from the object that the API server holds.

The API server has validated and defaulted the object already; this is the hot path of every call, so it is
read straight into one frozen record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import TaskPhase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward.wire.options import CallOptions

OPERATOR_NAME: Final = "skyward.dev/operator"
"""The value of `managedBy` that means this operator."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is tried again, and how long is waited before."""

    on_interruption: int = 3
    on_exception: int = 0
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a call may run, and how often it is tried again."""

    run_seconds: int | None
    retry: Retry


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes at the gateway."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Work:
    """One Task's spec, and who it is."""

    namespace: str
    name: str
    uid: str
    pool: str
    created: float
    """Seconds since the epoch."""
    count: int = 1
    """Calls in the payload. A broadcast has one, which runs once per member."""
    python: str | None = None
    package: str | None = None
    blob: Blob | None = None
    open: bool = False
    """Calls come while the task runs."""
    function: Mapping[str, Any] | None = None
    command: Mapping[str, Any] | None = None
    mode: str = "Any"
    target_rank: int | None = None
    parallelism: int | None = None
    queue_seconds: int | None = None
    run_seconds: int | None = None
    grace_seconds: float = 10.0
    retry: Retry = Retry()
    stop_on_error: bool = False
    ttl_seconds: int | None = None
    priority: int = 0
    suspend: bool = False
    cancel: bool = False
    managed_elsewhere: bool = False
    ticket_hash: str | None = None
    max_cost: Decimal | None = None
    """The most US dollars that its calls may cost."""
    generation: int = 1
    deleting: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def label(self) -> str:
        """The task in logs."""
        return f"{self.namespace}/{self.name}"

    @property
    def pool_key(self) -> tuple[str, str]:
        """Namespace and name of the pool."""
        return self.namespace, self.pool

    @property
    def broadcast(self) -> bool:
        """Whether the call runs on every node of a frozen set."""
        return self.mode == "All"

    @property
    def terms(self) -> Terms:
        """The terms of calls that have none of their own."""
        return Terms(self.run_seconds, self.retry)

    @property
    def rank(self) -> int | None:
        """The rank that calls have to run on, if any."""
        if self.mode == "Head":
            return 0
        return (self.target_rank or 0) if self.mode == "Rank" else None


def read_work(task: Mapping[str, Any]) -> Work:
    """The work of a Task object."""
    metadata, spec = task["metadata"], task["spec"]
    calls, function = spec.get("calls") or {}, spec.get("function")
    target, timeouts = spec.get("target") or {}, spec.get("timeouts") or {}
    blob = calls.get("blob")
    items = (function or {}).get("items")
    return Work(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        pool=spec["poolRef"]["name"],
        created=epoch(metadata.get("creationTimestamp")),
        count=calls.get("count", 1) if calls else len(items) if items is not None else 1,
        python=calls.get("python"),
        package=calls.get("package"),
        blob=Blob(blob["digest"], blob["sizeBytes"]) if blob else None,
        open=bool(calls.get("open")),
        function=function,
        command=spec.get("command"),
        mode=target.get("mode", "Any"),
        target_rank=target.get("rank"),
        parallelism=spec.get("parallelism"),
        queue_seconds=timeouts.get("queueSeconds"),
        run_seconds=timeouts.get("runSeconds"),
        grace_seconds=timeouts.get("graceSeconds", 10),
        retry=_read_retry(spec.get("retry") or {}),
        stop_on_error=spec.get("onError") == "Stop",
        ttl_seconds=spec.get("ttlSecondsAfterFinished"),
        priority=spec.get("priority", 0),
        suspend=bool(spec.get("suspend")),
        cancel=bool(spec.get("cancel")),
        managed_elsewhere=spec.get("managedBy") not in (None, "", OPERATOR_NAME),
        ticket_hash=spec.get("ticketHash"),
        max_cost=Decimal(most) if (most := (spec.get("budget") or {}).get("maxTotal")) else None,
        generation=metadata.get("generation", 1),
        deleting="deletionTimestamp" in metadata,
    )


def own_terms(options: CallOptions) -> Terms:
    """The terms that a call brings along."""
    retry = Retry(
        options.on_interruption, options.on_exception, options.backoff_seconds, options.max_backoff_seconds
    )
    return Terms(options.run_seconds or None, retry)


def is_final(task: Mapping[str, Any]) -> bool:
    """Whether a Task object has ended for good."""
    phase = (task.get("status") or {}).get("phase")
    return phase in (TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.CANCELLED)


def epoch(time: str | None) -> float:
    """Seconds since the epoch of a Kubernetes time; 0 for none."""
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def _read_retry(retry: Mapping[str, Any]) -> Retry:
    return Retry(
        on_interruption=retry.get("onInterruption", 3),
        on_exception=retry.get("onException", 0),
        backoff_seconds=retry.get("backoffSeconds", 1),
        max_backoff_seconds=retry.get("maxBackoffSeconds", 60),
    )
