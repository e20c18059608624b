"""What a running call knows of itself; `skyward.runtime` is the public view of it.

The worker makes one `CallContext` per call and sets it for the thread that runs the call. Its place in the
cluster (`node`, `total_nodes`, `peers`) is the frozen one that came with the call, never the live one.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from skyward.runtime import call_context


@dataclass(slots=True)
class CallContext:
    """One attempt at one call, on one slot of one worker. `stopping` is set when it is asked to end, and when
    its machine will be taken."""

    node: int = 0
    total_nodes: int = 1
    rank: int = 0
    worker: int = 0
    workers_per_node: int = 1
    slot: int = 0
    pool: str = ""
    namespace: str = ""
    task: str = ""
    index: int = 0
    attempt: int = 1
    attempt_id: str = ""
    peers: tuple[Any, ...] = ()
    head_addr: str = "127.0.0.1"
    head_port: int = 29500
    job_id: str = ""
    deadline: float | None = None
    """When the run timeout ends the call, in seconds since the epoch."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that the operator said about the call's place."""
    stopping: str | None = None
    stopping_at: float | None = None
    """When it ends at the latest, by the machine's monotonic clock, as far as that is known."""
    _mapping: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_call(cls, header: Mapping[str, Any]) -> "CallContext":
        """Read the context out of a CALL header as the worker gets it."""
        given = dict(header.get("context") or {})
        context = cls(
            task=str(header.get("task", "")),
            index=int(header.get("index", 0)),
            attempt=int(header.get("number", 1)),
            attempt_id=str(header.get("attempt", "")),
            deadline=header.get("deadline"),
        )
        for name in _GIVEN:
            if given.get(name) is not None:
                setattr(context, name, given.pop(name))
        context.peers = tuple(context.peers)
        context.facts = given
        return context

    def place(self) -> dict[str, Any]:
        """What is the same for all items of a slice, as arguments to make their contexts with."""
        return {name: getattr(self, name) for name in (*_GIVEN, "task", "attempt", "facts")}

    @property
    def mapping(self) -> dict[str, Any]:
        """The context as a dict that stays the same object, so that `stopping` can be seen in it."""
        if not self._mapping:
            named = {name: getattr(self, name) for name in _PUBLIC}
            self._mapping = {**self.facts, **named, "number": self.attempt}
        return self._mapping

    def stop(self, reason: str) -> None:
        """Tell the call that it is being ended, and why."""
        self._tell(reason, None)

    def warn(self, reason: str, at: float) -> None:
        """Tell the call that it ends at that time, whatever it does, unless it is being ended already."""
        if self.stopping is None:
            self._tell(reason, at)

    def _tell(self, reason: str, at: float | None) -> None:
        self.stopping, self.stopping_at = reason, at
        self.mapping["stopping_at"] = at
        self.mapping["stopping"] = reason


_GIVEN = (
    "node",
    "total_nodes",
    "rank",
    "worker",
    "workers_per_node",
    "slot",
    "pool",
    "namespace",
    "peers",
    "head_addr",
    "head_port",
    "job_id",
)
_PUBLIC = (*_GIVEN, "task", "index", "attempt_id", "deadline", "stopping", "stopping_at")

_current: ContextVar[CallContext | None] = ContextVar("skyward_agent_call", default=None)


def current_context() -> CallContext | None:
    """The call that runs in this thread or task, or None outside of one."""
    return _current.get()


@contextlib.contextmanager
def running(context: CallContext) -> Iterator[None]:
    """Run the body as the call that `context` describes."""
    token = _current.set(context)
    shown = call_context.set(context.mapping)
    try:
        yield
    finally:
        call_context.reset(shown)
        _current.reset(token)
