"""`@sky.function` and the operators: work that is described now and runs where it is sent.

Calling a decorated function makes a frozen `PendingFunction`; nothing runs until an operator sends it to a
target (a pool, or the module `skyward` itself, which stands for the pool of the enclosing `with`).
This module travels to the VM: standard library only.
"""

import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

from skyward.runtime import call
from skyward.validation import instance, integer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from skyward.pools import Pool
    from skyward.streaming import ItemIterator
    from skyward.tasks import TaskFuture

    type Target = Pool | ModuleType
    """Where an operator sends work: a pool, or the module `skyward` for the pool of the enclosing `with`."""


_MOST_RETRIES = 100
_MOST_FIRST_BACKOFF = 3600
_MOST_BACKOFF = 86_400
_LONGEST_TIMEOUT = 30 * 86_400
"""What the API takes, in seconds."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is tried again, and how long it waits (seconds, doubling up to `max_backoff`).

    Raises TypeError or ValueError at once for what cannot be right.
    """

    on_interruption: int = 3
    on_exception: int = 0
    backoff: int = 1
    max_backoff: int = 60

    def __post_init__(self) -> None:
        for name in ("on_interruption", "on_exception"):
            integer(name, getattr(self, name), minimum=0, maximum=_MOST_RETRIES)
        integer("max_backoff", self.max_backoff, minimum=0, maximum=_MOST_BACKOFF)
        integer("backoff", self.backoff, minimum=0, maximum=min(_MOST_FIRST_BACKOFF, self.max_backoff))


class _Untyped:
    """What no function returns: only a call of unknown type fits a call of this."""


@dataclass(frozen=True, slots=True, eq=False)
class PendingFunction[T]:
    """A call that has not been made: the function, its arguments, and how it shall run."""

    function: Callable[..., T]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    queue_timeout: float | None = None
    retry: Retry | None = None

    # numpy must not try to broadcast over a pending call in `(f() >> pool) & g()`.
    __array_ufunc__ = None

    def with_timeout(self, seconds: float | None) -> "PendingFunction[T]":
        """Stop the call after `seconds` of running, which are rounded up to whole ones; None is no limit."""
        return replace(self, timeout=seconds_given("timeout", seconds))

    def with_queue_timeout(self, seconds: float | None) -> "PendingFunction[T]":
        """Give up after `seconds` of waiting for a slot, rounded up to whole ones; None is no limit."""
        return replace(self, queue_timeout=seconds_given("queue timeout", seconds))

    def with_retry(
        self, on_exception: int = 0, *, on_interruption: int = 3, backoff: int = 1, max_backoff: int = 60
    ) -> "PendingFunction[T]":
        """Try again after an exception of the function, or after the loss of its node, this many times."""
        return replace(self, retry=Retry(on_interruption, on_exception, backoff, max_backoff))

    @overload
    def __rshift__(self: "PendingFunction[_Untyped]", target: "Target") -> Any: ...
    @overload
    def __rshift__[X](self: "PendingFunction[Iterator[X]]", target: "Target") -> "ItemIterator[X]": ...
    @overload
    def __rshift__[X](
        self: "PendingFunction[Generator[X, Any, Any]]", target: "Target"
    ) -> "ItemIterator[X]": ...
    @overload
    def __rshift__[X](self: "PendingFunction[AsyncIterator[X]]", target: "Target") -> "ItemIterator[X]": ...
    @overload
    def __rshift__[X](
        self: "PendingFunction[AsyncGenerator[X, Any]]", target: "Target"
    ) -> "ItemIterator[X]": ...
    @overload
    def __rshift__(self, target: "Target") -> T: ...
    def __rshift__(self, target: "Target") -> Any:
        """`pending >> pool`: run on one node and return the result; a generator gives an iterator."""
        return resolve(target).run(self)

    def __gt__(self, target: "Target") -> "TaskFuture[T]":
        """`pending > pool`: start on one node and return a future, which can also be awaited."""
        return resolve(target).run_async(self)

    def __matmul__(self, target: "Target") -> list[T]:
        """`pending @ pool`: run on every node; one result per node, in the order of their index."""
        return resolve(target).broadcast(self)

    @overload
    def __and__[U](self, other: "PendingFunction[U]") -> "PendingFunctionGroup[T, U]": ...
    @overload
    def __and__[*Us](self, other: "PendingFunctionGroup[*Us]") -> "PendingFunctionGroup[T, *Us]": ...
    def __and__(self, other: Any) -> Any:
        """`a() & b()`: a group that runs in parallel."""
        if isinstance(other, PendingFunctionGroup):
            return PendingFunctionGroup((self, *other.members))
        return PendingFunctionGroup((self, checked_member(other)))

    def __rand__(self, other: object) -> NoReturn:
        checked_member(other)
        raise AssertionError("a pending function on the left handles & itself")

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} has not run, so it is neither true nor false. Send it to a pool first: "
            f"{self.name}(…) >> pool"
        )

    @property
    def name(self) -> str:
        """The function's name."""
        return _name_of(self.function)

    def __repr__(self) -> str:
        parts = [_short(value) for value in self.args]
        parts += [f"{key}={_short(value)}" for key, value in self.kwargs.items()]
        return f"<pending {self.name}({', '.join(parts)})>"


@dataclass(frozen=True, slots=True, eq=False)
class PendingFunctionGroup[*Ts]:
    """Calls that run in parallel, as one task; made with `&` or `gather`."""

    members: tuple[PendingFunction[Any], ...]
    on_error: Literal["raise", "return"] = "raise"

    __array_ufunc__ = None

    @overload
    def __and__[U](self, other: "PendingFunction[U]") -> "PendingFunctionGroup[*Ts, U]": ...
    @overload
    def __and__(self, other: "PendingFunctionGroup[*tuple[Any, ...]]") -> "_AnyGroup": ...
    def __and__(self, other: Any) -> Any:
        """One more call in the group, or those of another group."""
        if isinstance(other, PendingFunctionGroup):
            return replace(self, members=(*self.members, *other.members))
        return replace(self, members=(*self.members, checked_member(other)))

    def __rand__(self, other: object) -> NoReturn:
        checked_member(other)
        raise AssertionError("a pending function on the left handles & itself")

    def __rshift__(self, target: "Target") -> tuple[*Ts]:
        """`(a() & b()) >> pool`: run all in parallel and return their results in order."""
        return resolve(target).run_parallel(self)

    def __gt__(self, target: "Target") -> "TaskFuture[tuple[*Ts]]":
        """`(a() & b()) > pool`: start all in parallel and return one Future."""
        return resolve(target).run_parallel_async(self)

    def __matmul__(self, target: "Target") -> NoReturn:
        raise TypeError(
            "a group cannot be broadcast. Broadcast its members one by one: a() @ pool, then b() @ pool; "
            "or call both inside one function and broadcast that."
        )

    def with_timeout(self, seconds: float | None) -> "PendingFunctionGroup[*Ts]":
        """Stop every call of the group after `seconds` of running."""
        return replace(self, members=tuple(member.with_timeout(seconds) for member in self.members))

    def with_queue_timeout(self, seconds: float | None) -> "PendingFunctionGroup[*Ts]":
        """Give up after `seconds` of waiting for a slot for the first of them."""
        return replace(self, members=tuple(member.with_queue_timeout(seconds) for member in self.members))

    def __len__(self) -> int:
        return len(self.members)


type _AnyGroup = PendingFunctionGroup[*tuple[Any, ...]]


class Function[**P, T]:
    """A function that runs on a pool. Calling it describes the call; `.local(...)` makes it here."""

    __wrapped__: Callable[P, T]
    __name__: str

    def __init__(self, fn: Callable[P, T], timeout: float | None = None, retry: Retry | None = None) -> None:
        functools.update_wrapper(self, fn)
        self.__name__ = _name_of(fn)
        self.fn = fn
        self.timeout = seconds_given("timeout", timeout)
        self.retry = retry if retry is None else instance("retry", retry, Retry, "sky.Retry(on_exception=2)")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> PendingFunction[T]:
        """Describe one call. Raises TypeError at once if the arguments do not fit the signature."""
        signature = _signature(self.fn)
        if signature is not None:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.__name__}{signature}: {error}") from None
        return PendingFunction(
            self.fn, args, MappingProxyType(kwargs), timeout=self.timeout, retry=self.retry
        )

    def local(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function here, in this process, as node 0 of 1."""
        with call({"node": 0, "total_nodes": 1, "job_id": "local", "task": "local"}):
            return self.fn(*args, **kwargs)

    def with_retry(
        self, on_exception: int = 0, *, on_interruption: int = 3, backoff: int = 1, max_backoff: int = 60
    ) -> "Function[P, T]":
        """The same function, each call of which is tried again this often, in a map too."""
        retry = Retry(on_interruption, on_exception, backoff, max_backoff)
        return Function(self.fn, self.timeout, retry)

    def _not_called(self, _: object) -> NoReturn:
        raise TypeError(_brackets_missing(self))

    if not TYPE_CHECKING:  # a type checker refuses them already
        __rshift__ = __gt__ = __matmul__ = __and__ = _not_called

    def __repr__(self) -> str:
        return f"<sky.function {self.__name__}>"


@overload
def function[**P, T](
    fn: Callable[P, T], *, timeout: float | None = None, retry: Retry | None = None
) -> Function[P, T]: ...
@overload
def function[**P, T](
    fn: None = None, *, timeout: float | None = None, retry: Retry | None = None
) -> Callable[[Callable[P, T]], Function[P, T]]: ...
def function[**P, T](
    fn: Callable[P, T] | None = None, *, timeout: float | None = None, retry: Retry | None = None
) -> Function[P, T] | Callable[[Callable[P, T]], Function[P, T]]:
    """Mark a function for remote execution: `@sky.function` or `@sky.function(timeout=600)` (seconds).

    `retry=sky.Retry(on_exception=2)` has its calls tried again.
    """
    if fn is None:
        return lambda decorated: Function(decorated, timeout, retry)
    if isinstance(fn, Function):
        return fn
    if not callable(fn):
        raise TypeError(f"@sky.function goes over a function, got {fn!r}")
    return Function(fn, timeout, retry)


compute = function
"""The first generation's name of `function`."""

_active: ContextVar["Pool | None"] = ContextVar("skyward_active_pool", default=None)
_entered: list["Pool"] = []


def activate(pool: "Pool") -> None:
    """Make `pool` what `>> sky` means, here and (while it is the only one) in other threads."""
    _entered.append(pool)
    _active.set(pool)


def deactivate(pool: "Pool") -> None:
    """Undo `activate`."""
    if pool in _entered:
        _entered.remove(pool)
    if _active.get() is pool:
        _active.set(_entered[-1] if _entered else None)


def active_pool() -> "Pool":
    """The pool of the enclosing `with`. Raises RuntimeError if there is none, or several in other threads."""
    pool = _active.get()
    if pool is not None:
        return pool
    if len(_entered) == 1:
        return _entered[0]
    if not _entered:
        raise RuntimeError(
            "no pool is active: use `>> sky` inside `with sky.Compute(...):`, or send to a pool: >> pool"
        )
    names = ", ".join(pool.name for pool in _entered)
    raise RuntimeError(
        f"several pools are active ({names}) and this thread entered none: send to one of them"
    )


def resolve(target: "Target") -> "Pool":
    """The pool behind the right-hand side of an operator."""
    if isinstance(target, ModuleType):
        if target.__name__ == "skyward":
            return active_pool()
        raise TypeError(f"a call is sent to a pool or to `sky`, not to the module {target.__name__!r}")
    if not hasattr(target, "run_parallel"):
        raise TypeError(
            f"a call is sent to a pool or to `sky`, not to {_short(target)}. "
            "Example: with sky.Compute(provider=sky.Local()) as pool: result = fn(1) >> pool"
        )
    return target


def checked_member[T](other: PendingFunction[T] | object) -> PendingFunction[T]:
    """`other` if it can stand beside `&`; otherwise the error that says where the brackets go."""
    if isinstance(other, PendingFunction):
        return other
    if isinstance(other, Function):
        raise TypeError(_brackets_missing(other))
    raise TypeError(
        f"`&` joins calls that have not run, but one side is already a result: {_short(other)}. "
        "In Python >> and @ bind tighter than &, so `a() & b() >> pool` sends only b(). "
        "Put brackets around the group: (a() & b()) >> pool"
    )


def _brackets_missing(function: Function[..., Any]) -> str:
    name = function.__name__
    return f"{name} is a function, not yet a call: put brackets behind its name, {name}(...) >> pool"


def _name_of(function: Callable[..., Any]) -> str:
    """The name of a function; of a partial one that of what it calls, of another object that of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def seconds_given(what: str, seconds: float | None) -> float | None:
    """A time-out as a person gave it, or None for no limit. Raises TypeError or ValueError for others."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what} is a number of seconds, got {seconds!r}")
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise ValueError(
            f"{what} must be more than 0 seconds and at most {_LONGEST_TIMEOUT:,} (30 days), got "
            f"{seconds!r}; leave it out for no limit"
        )
    return float(seconds)


@functools.lru_cache(maxsize=1024)
def _signature(fn: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):  # some builtins have none
        return None


def _short(value: object, limit: int = 60) -> str:
    text = reprlib.repr(value) if not hasattr(value, "shape") else f"<{type(value).__name__} {value.shape}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"
