"""What a function can ask while it runs on a node: its place in the cluster and the state of its call.

The worker sets the context of a call before it runs it; `fn.local()` sets one for a single node. The place is
the frozen one of the broadcast. This module travels to the VM: standard library only.
"""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

StopReason = Literal["preempted", "timeout", "budget", "cancelled", "scale_down"]

call_context: ContextVar[Mapping[str, Any] | None] = ContextVar("skyward_call_context", default=None)


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One node of the call's frozen set, as the others reach it."""

    node: int
    private_ip: str = ""
    public_ip: str = ""


@dataclass(frozen=True, slots=True)
class AcceleratorInfo:
    """The accelerator of this node."""

    type: str
    count: float = 1
    memory_gb: float = 0
    is_trainium: bool = False


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """The network between the nodes, as far as it is known."""

    interface: str = ""
    bandwidth_gbps: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceInfo:
    """This worker's place in the cluster and what is known of its machine.

    `node` is a dense index in the frozen set of the call (0..total_nodes-1); `rank` is the node's rank in its
    pool, which may have gaps. Money is USD per hour. What is not known is empty or 0.
    """

    node: int = 0
    worker: int = 0
    total_nodes: int = 1
    workers_per_node: int = 1
    accelerators: float = 0
    total_accelerators: float = 0
    head_addr: str = "127.0.0.1"
    head_port: int = 29500
    job_id: str = ""
    peers: tuple[PeerInfo, ...] = ()
    accelerator: AcceleratorInfo | None = None
    network: NetworkInfo = field(default_factory=NetworkInfo)
    rank: int = 0
    pool: str = ""
    id: str = ""
    provider: str = ""
    ip: str = ""
    private_ip: str = ""
    network_interface: str = ""
    spot: bool = False
    ssh_port: int = 22
    hourly_rate: float = 0
    on_demand_rate: float = 0
    instance_type: str = ""
    gpu_count: int = 0
    gpu_model: str = ""
    vcpus: float = 0
    memory_gb: float = 0
    gpu_vram_gb: int = 0

    @property
    def global_worker_index(self) -> int:
        """This worker among all workers of the call's nodes."""
        return self.node * self.workers_per_node + self.worker

    @property
    def total_workers(self) -> int:
        """All workers of the call's nodes."""
        return self.total_nodes * self.workers_per_node

    @property
    def is_head(self) -> bool:
        """True on exactly one worker of the call's nodes."""
        return self.global_worker_index == 0

    @property
    def hostname(self) -> str:
        """The host name of this machine."""
        return socket.gethostname()

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> "InstanceInfo":
        """Read the context of a call; keys of a newer version are left out."""
        known = {name: context[name] for name in cls.__dataclass_fields__ if context.get(name) is not None}
        known["peers"] = tuple(_only_known(PeerInfo, peer) for peer in known.get("peers", ()))
        if isinstance(known.get("accelerator"), Mapping):
            known["accelerator"] = _only_known(AcceleratorInfo, known["accelerator"])
        if isinstance(known.get("network"), Mapping):
            known["network"] = _only_known(NetworkInfo, known["network"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Call:
    """The call that is running: which, the how-manieth attempt, and whether it is being stopped."""

    task: str
    index: int
    attempt: int
    _context: Mapping[str, Any] = field(repr=False)

    @property
    def stopping(self) -> StopReason | None:
        """Why this call is being stopped, or None while it is not. It may change at any time: ask again.

        `preempted`, `budget` and `scale_down` come ahead of the end: the provider takes the machine back, a
        budget is used up, or the node is released, and until then the call goes on. One that returns in time
        is done; one that does not is tried again on another node, with a budget once it is raised.
        """
        reason: StopReason | None = self._context.get("stopping")
        return reason

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the machine goes, at least 0; None where no end is known."""
        at: float | None = self._context.get("stopping_at")
        return None if at is None else max(0.0, at - time.monotonic())


def instance_info() -> InstanceInfo:
    """Return this worker's place in the cluster. Raises RuntimeError outside a running call."""
    return InstanceInfo.from_context(_context("instance_info()"))


def is_head(info: InstanceInfo | None = None) -> bool:
    """True on exactly one worker: the one that should log, save and seed."""
    return (info or instance_info()).is_head


def current() -> Call:
    """Return the call that is running. Raises RuntimeError outside a running call."""
    context = _context("current()")
    return Call(
        task=str(context.get("task", "")),
        index=int(context.get("index", 0)),
        attempt=int(context.get("number", context.get("attempt_number", 1))),
        _context=context,
    )


@contextmanager
def call(context: Mapping[str, Any]) -> Iterator[None]:
    """Run the body as a call with this context (the worker and `fn.local()` use it)."""
    token = call_context.set(context)
    try:
        yield
    finally:
        call_context.reset(token)


def _context(wanted: str) -> Mapping[str, Any]:
    context = call_context.get()
    if context is None:
        raise RuntimeError(
            f"sky.{wanted} was asked for outside a running call. "
            "It works inside a @sky.function that runs on a pool, or under fn.local(...)."
        )
    return context


def _only_known[D](kind: type[D], values: Any) -> D:
    if isinstance(values, kind):
        return values
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in values.items() if name in names and value is not None})
