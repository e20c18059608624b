"""`gather`: a group of any number of calls that run in parallel; `stream=True` hands results out early.

This module travels to the VM: standard library only.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from skyward.functions import PendingFunction, PendingFunctionGroup, checked_member, resolve

if TYPE_CHECKING:
    from skyward.functions import Target
    from skyward.tasks import ResultIterator


@dataclass(frozen=True, slots=True, eq=False)
class StreamingGroup[T]:
    """Calls that run in parallel and whose results are handed out while others still run."""

    members: tuple[PendingFunction[Any], ...]
    ordered: bool = True
    on_error: Literal["raise", "return"] = "raise"

    def __rshift__(self, target: "Target") -> "ResultIterator[T]":
        """`gather(..., stream=True) >> pool`: an iterator over the results."""
        return resolve(target).stream(self)


@overload
def gather[A, B](a: PendingFunction[A], b: PendingFunction[B], /) -> PendingFunctionGroup[A, B]: ...
@overload
def gather[A, B, C](
    a: PendingFunction[A], b: PendingFunction[B], c: PendingFunction[C], /
) -> PendingFunctionGroup[A, B, C]: ...
@overload
def gather[A, B, C, D](
    a: PendingFunction[A], b: PendingFunction[B], c: PendingFunction[C], d: PendingFunction[D], /
) -> PendingFunctionGroup[A, B, C, D]: ...
@overload
def gather[T](
    *pendings: PendingFunction[T],
    stream: Literal[True],
    ordered: bool = True,
    on_error: Literal["raise"] = "raise",
) -> StreamingGroup[T]: ...
@overload
def gather[T](
    *pendings: PendingFunction[T], stream: Literal[True], ordered: bool = True, on_error: Literal["return"]
) -> StreamingGroup[T | Exception]: ...
@overload
def gather[T](
    *pendings: PendingFunction[T],
    stream: Literal[False] = False,
    ordered: bool = True,
    on_error: Literal["raise"] = "raise",
) -> PendingFunctionGroup[*tuple[T, ...]]: ...
@overload
def gather[T](
    *pendings: PendingFunction[T],
    stream: Literal[False] = False,
    ordered: bool = True,
    on_error: Literal["return"],
) -> PendingFunctionGroup[*tuple[T | Exception, ...]]: ...
def gather(
    *pendings: PendingFunction[Any],
    stream: bool = False,
    ordered: bool = True,
    on_error: Literal["raise", "return"] = "raise",
) -> Any:
    """Group calls; `gather(...) >> pool` returns a tuple of their results in order.

    With `stream=True` it returns an iterator instead: in order, or with `ordered=False` as calls finish.
    A call that fails fails only itself: its exception is raised once all have ended, or with
    `on_error="return"` stands in its place. Raises TypeError if a member is no pending call, ValueError if
    there is none.
    """
    if not pendings:
        raise ValueError("gather() needs at least one call: sky.gather(a(), b()) >> pool")
    checked_on_error(on_error)
    members: tuple[PendingFunction[Any], ...] = tuple(checked_member(each) for each in pendings)
    if stream:
        return StreamingGroup(members, ordered, on_error)
    return PendingFunctionGroup(members, on_error)


def checked_on_error(on_error: str) -> None:
    """Raise ValueError for what `on_error` cannot be."""
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error is 'raise' or 'return', got {on_error!r}")
