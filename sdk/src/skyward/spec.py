"""What a pool is made of, as a person writes it: `Spec`, `Nodes`, `Worker`, `Options`.

Plain frozen dataclasses that check themselves when constructed; `manifest` turns them into a ComputePool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from skyward.image import DEFAULT_IMAGE, Image
from skyward.providers import Provider
from skyward.validation import instance, integer, number, one_of, strict, text

if TYPE_CHECKING:
    from skyward.offer import Offer

type Allocation = Literal["spot-if-available", "spot", "on-demand", "cheapest"]
type Architecture = Literal["x86_64", "arm64"]
type Selection = Literal["cheapest", "first", "available"]
type Choice = Callable[[Sequence["Offer"]], "Offer | Sequence[Offer]"]
"""Gets the offers there are, and returns one, or several in order of preference."""
type ConsoleMode = Literal["auto", "rich", "minimal", "log", "silent"]

RESULT_SECONDS = 600
"""How long a finished Task of the SDK, which has collected its result by then, stays readable."""
ALLOCATIONS = ("spot-if-available", "spot", "on-demand", "cheapest")
_OLD_ALLOCATIONS = {"always-spot": "spot", "on_demand": "on-demand", "spot_if_available": "spot-if-available"}
ELSEWHERE = {
    "gpu": "accelerator='A100'",
    "gpus": "accelerator=sky.Accelerator('A100', count=2)",
    "market": "allocation='spot'",
    **dict.fromkeys(("budget", "max_total_cost", "max_cost"), "options=sky.Options(budget=20)"),
    "timeout": "options=sky.Options(default_compute_timeout=60)",
    **{name: f"options=sky.Options({name}=...)" for name in ("worker", "selection", "console", "namespace")},
}
"""Where things are that people look for in `Compute(...)`."""
_VOLUMES = "[sky.Volume(bucket='data', mount='/data')]"


@strict
@dataclass(frozen=True, slots=True)
class Nodes:
    """How many nodes: `desired` is the floor, `max` makes the pool elastic, `min` are enough to begin."""

    desired: int
    max: int | None = None
    min: int | None = None

    def __post_init__(self) -> None:
        integer("nodes.desired", self.desired, minimum=0, maximum=1000)
        if self.max is not None and integer("nodes.max", self.max, maximum=1000) < self.desired:
            raise ValueError(f"nodes.max must be at least nodes.desired ({self.desired}), got {self.max}")
        if self.min is not None and integer("nodes.min", self.min, minimum=0) > self.desired:
            raise ValueError(f"nodes.min must be at most nodes.desired ({self.desired}), got {self.min}")

    @classmethod
    def of(cls, value: Any) -> "Nodes":
        """`4`, `(2, 8)` for 2 that may grow to 8, or a `Nodes`."""
        match value:
            case Nodes():
                return value
            case bool():
                pass
            case int():
                return cls(integer("nodes", value, minimum=0))
            case (int() as desired, int() as top):
                return cls(desired, max=top)
        raise TypeError(f"nodes must be a number, (from, to) or sky.Nodes(...), got {value!r}")


@strict
@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator by name, how many of it per node, and optionally its memory ("80GB"), form factor, and
    the MIG profile that each is divided into ("3g.40gb").

    `Accelerator.NVIDIA.H100(count=8)` is the same as `accelerators.H100(count=8)`.
    """

    NVIDIA: ClassVar["Vendor"]
    AMD: ClassVar["Vendor"]
    name: str
    count: float = 1
    memory: str | None = None
    form_factor: str | None = None
    mig: str | None = None

    def __post_init__(self) -> None:
        text("accelerator", self.name)
        if number("accelerator count", self.count) <= 0:
            raise ValueError(f"accelerator count must be more than 0, got {self.count!r}")
        if self.memory is not None:
            text("accelerator memory", self.memory, pattern=r"\d+ ?(GB|GiB)", example="80GB")
        if self.mig is not None:
            text("accelerator mig", self.mig, pattern=r"[1-9]g\.[1-9][0-9]*gb", example="3g.40gb")

    @property
    def memory_gib(self) -> int | None:
        """The memory as a number, as vendors count it."""
        return int(self.memory.rstrip("GiBb ")) if self.memory else None


class Vendor:
    """Accelerators of one vendor, by name: `Accelerator.NVIDIA.H100(count=8, mig="3g.40gb")`."""

    def __getattr__(self, name: str) -> Callable[..., Accelerator]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(Accelerator, name.replace("_", "-"))


Accelerator.NVIDIA = Accelerator.AMD = Vendor()


@strict
@dataclass(frozen=True, slots=True)
class Worker:
    """How a node runs calls: `concurrency` at a time, in processes (or threads of one process)."""

    concurrency: int = 1
    buffer: int = 0
    executor: Literal["auto", "process", "thread"] = "auto"
    reuse_processes: bool = True

    def __post_init__(self) -> None:
        integer("worker.concurrency", self.concurrency, minimum=1, maximum=256)  # as in the resources
        integer("worker.buffer", self.buffer, minimum=0, maximum=256)
        one_of("worker.executor", self.executor, ("auto", "process", "thread"))
        instance("worker.reuse_processes", self.reuse_processes, bool, "True")


@strict
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that a pool may cost, in US dollars: over its life, and per hour of all its machines together.

    When `total` is used up, running calls have `drain_seconds` to finish (`on_exceeded="stop"`: none), and
    the machines go. With `unknown_price="allow"` machines are bought whose price the provider does not tell.
    """

    total: float | None = None
    hourly: float | None = None
    on_exceeded: Literal["drain", "stop"] = "drain"
    drain_seconds: int = 30
    unknown_price: Literal["deny", "allow"] = "deny"

    def __post_init__(self) -> None:
        for name in ("total", "hourly"):
            if getattr(self, name) is not None:
                number(f"budget.{name}", getattr(self, name), minimum=0)
        one_of("budget.on_exceeded", self.on_exceeded, ("drain", "stop"))
        integer("budget.drain_seconds", self.drain_seconds, minimum=0, maximum=3600)
        one_of("budget.unknown_price", self.unknown_price, ("deny", "allow"))


@strict
@dataclass(frozen=True, slots=True)
class Volume:
    """A bucket, mounted as a folder on every node."""

    bucket: str
    mount: str
    prefix: str = ""
    read_only: bool = True

    def __post_init__(self) -> None:
        text("volume.bucket", self.bucket)
        text("volume.mount", self.mount, pattern=r"/[^/].*", example="/data")


@strict
@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What one candidate of a pool needs. `ttl` is the dead-man's switch in seconds, 0 disables it."""

    provider: Provider
    accelerator: Accelerator | str | None = None
    nodes: int | tuple[int, int] | Nodes = 1
    vcpus: float | None = None
    memory_gb: float | None = None
    disk_gb: int | None = None
    architecture: Architecture | None = None
    allocation: Allocation = "spot-if-available"
    image: Image = DEFAULT_IMAGE
    region: str | None = None
    instance_type: str | None = None
    max_hourly_cost: float | None = None
    ttl: int = 600
    volumes: Sequence[Volume] = ()

    def __post_init__(self) -> None:
        _provider(self.provider)
        object.__setattr__(self, "nodes", Nodes.of(self.nodes))
        if isinstance(self.allocation, str):
            allocation = _OLD_ALLOCATIONS.get(self.allocation, self.allocation)
            object.__setattr__(self, "allocation", allocation)
        one_of("allocation", self.allocation, ALLOCATIONS)
        instance("image", self.image, Image, "sky.Image(pip=['torch'])")
        if isinstance(self.accelerator, str):
            object.__setattr__(self, "accelerator", Accelerator(self.accelerator))
        if self.accelerator is not None:
            instance("accelerator", self.accelerator, Accelerator, "sky.accelerators.A100()")
        if self.max_hourly_cost is not None:
            number("max_hourly_cost", self.max_hourly_cost, minimum=0)
        for name, most in (("vcpus", 4096), ("memory_gb", 65_536)):
            value = getattr(self, name)
            if value is not None and number(name, value, maximum=most) <= 0:
                raise ValueError(f"{name} must be more than 0, got {value!r}")
        if self.disk_gb is not None:
            integer("disk_gb", self.disk_gb, minimum=1, maximum=65_536)
        if self.architecture is not None:
            one_of("architecture", self.architecture, ("x86_64", "arm64"))
        for name in ("region", "instance_type"):
            if getattr(self, name) is not None:
                text(name, getattr(self, name))
        integer("ttl", self.ttl, minimum=0, maximum=30 * 86_400)
        if not isinstance(self.volumes, list | tuple):
            instance("volumes", self.volumes, list, _VOLUMES)
        for volume in self.volumes:
            instance("volumes", volume, Volume, _VOLUMES)
        object.__setattr__(self, "volumes", tuple(self.volumes))

    @property
    def node_counts(self) -> Nodes:
        """`nodes` in its one form."""
        return Nodes.of(self.nodes)


class SpecFields(TypedDict, total=False):
    """The fields of `Spec` as keyword arguments of `Compute`."""

    provider: Provider
    accelerator: Accelerator | str | None
    nodes: int | tuple[int, int] | Nodes
    vcpus: float | None
    memory_gb: float | None
    disk_gb: int | None
    architecture: Architecture | None
    allocation: Allocation
    image: Image
    region: str | None
    instance_type: str | None
    max_hourly_cost: float | None
    ttl: int
    volumes: Sequence[Volume]


@strict
@dataclass(frozen=True, slots=True)
class HealthChecker:
    """A function that tells whether a node is well: it is called on each node, without arguments, and returns
    a true value while all is well. Times are seconds.

    It runs beside the calls in a process of its own, which is kept from run to run, so what it imports is
    imported once. A run that raises, returns a false value, or takes longer than `timeout` failed; after
    `consecutive_failures` in a row the node gets no more calls and is replaced, unless too many nodes are bad
    at once for the node to be the cause.
    """

    fn: Callable[[], Any]
    interval: int = 30
    timeout: int = 15
    consecutive_failures: int = 3
    initial_delay: int = 0

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn must be a function without arguments, got {self.fn!r}")
        integer("interval", self.interval, minimum=1, maximum=3600)
        integer("timeout", self.timeout, minimum=1, maximum=600)
        integer("consecutive_failures", self.consecutive_failures, minimum=1, maximum=100)
        integer("initial_delay", self.initial_delay, minimum=0, maximum=86_400)


@strict
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the pool is run. Times are seconds; None leaves them to the operator's defaults.

    `selection` says which offer is bought first: the cheapest over all candidates, that of the first
    candidate, the one that is likely to start soonest, or a function. It runs here before the pool is made,
    gets the offers there are (`sky.Offer`) as `cheapest` would ask for them, and returns one or several in
    its order, at most 16.
    `default_compute_timeout` limits calls that have no timeout of their own; there is none unless given.
    `lease_timeout` is how long the pool outlives a program that is killed or cut off; None: until somebody
    deletes it.
    `max_lifetime` is when each machine is released at the latest, whatever it runs; None: no such end.
    `result_ttl` is how long result and output of a call can be read once it has ended, by other programs too;
    None: until somebody deletes its Task.
    `budget` is the most that the pool may cost, in US dollars: a number is a `Budget(total=...)`.
    """

    selection: "Selection | Choice" = "cheapest"
    worker: Worker | None = None
    provision_timeout: int | None = None
    ssh_timeout: int | None = None
    bootstrap_timeout: int | None = None
    default_compute_timeout: float | None = None
    autoscale_idle_timeout: int | None = None
    shutdown_timeout: float = 120.0
    lease_timeout: int | None = 600
    max_lifetime: int | None = None
    result_ttl: int | None = RESULT_SECONDS
    retry_on_interruption: int = 3
    budget: Budget | float | None = None
    health_checker: HealthChecker | None = None
    console: bool | ConsoleMode = True
    namespace: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.selection):
            one_of("selection", self.selection, ("cheapest", "first", "available"))
        if self.worker is not None:
            instance("worker", self.worker, Worker, "sky.Worker(concurrency=4)")
        for name in ("provision_timeout", "ssh_timeout", "bootstrap_timeout", "autoscale_idle_timeout"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name), minimum=1)
        if self.default_compute_timeout is not None:
            number("default_compute_timeout", self.default_compute_timeout, minimum=0.001)
        if self.lease_timeout is not None:
            integer("lease_timeout", self.lease_timeout, minimum=30)
        if self.max_lifetime is not None:
            integer("max_lifetime", self.max_lifetime, minimum=1, maximum=365 * 86_400)
        if self.result_ttl is not None:
            integer("result_ttl", self.result_ttl, minimum=60, maximum=365 * 86_400)
        number("shutdown_timeout", self.shutdown_timeout, minimum=0)
        integer("retry_on_interruption", self.retry_on_interruption, minimum=0, maximum=100)
        if self.budget is not None and not isinstance(self.budget, Budget):
            object.__setattr__(self, "budget", Budget(total=number("budget", self.budget, minimum=0)))
        if self.health_checker is not None:
            instance("health_checker", self.health_checker, HealthChecker, "sky.HealthChecker(fn)")
        if not isinstance(self.console, bool):
            one_of("console", self.console, ("auto", "rich", "minimal", "log", "silent"))


def _provider(value: Any) -> None:
    if isinstance(value, type) and issubclass(value, Provider):
        raise TypeError(f"provider must be an object: write sky.{value.__name__}(), with brackets")
    instance("provider", value, Provider, "sky.Local()")
