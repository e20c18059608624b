"""From pending calls to how they run, and from futures to iterators: what a pool's methods are made of."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any, Literal

from skyward import image
from skyward.functions import PendingFunction
from skyward.manifest import Call
from skyward.poolview import PoolView
from skyward.tasks import TaskFuture

type RankTarget = Literal["head"] | int | None


def call_of(pending: PendingFunction[Any], target: RankTarget = None, mode: str = "Any") -> Call:
    """Where and how one pending call runs. Raises TypeError or ValueError for a target that cannot be."""
    rank: int | None = None
    match target:
        case None:
            pass
        case "head":
            mode = "Head"
        case bool():
            raise TypeError(f"target is 'head' or the rank of a node, got {target!r}")
        case int() if target >= 0:
            mode, rank = "Rank", target
        case _:
            raise ValueError(f"target is 'head' or the rank of a node (0, 1, …), got {target!r}")
    return Call(mode, rank, pending.timeout, pending.queue_timeout, pending.retry)


def common_call(members: Sequence[PendingFunction[Any]]) -> Call | None:
    """The conditions that all members share; None if they differ."""
    calls = {call_of(member) for member in members}
    return calls.pop() if len(calls) == 1 else None


def check_python(view: PoolView) -> None:
    """Raise EnvironmentMismatch unless the pool runs this program's Python minor.

    What the ready nodes have counts; the image only says what those that come will have.
    """
    wanted = (view.pool or {}).get("spec", {}).get("image", {}).get("python")
    pythons = view.pythons
    if not pythons:
        if wanted:
            image.check_python(wanted, f"pool {view.name}")
    elif image.client_python() not in pythons.values():
        name, python = next(iter(pythons.items()))
        image.check_python(python, f"node {name}", outdated=name if wanted == image.client_python() else None)


def as_tuple(values: list[Any]) -> Any:
    """A list as a tuple of whatever types."""
    return tuple(values)


def in_order[T](futures: Sequence[TaskFuture[T]]) -> Iterator[T]:
    """Results in the order of the calls, each as soon as it and those before it are there."""
    for future in futures:
        yield future.result()


def as_finished[T](futures: Sequence[TaskFuture[T]]) -> Iterator[T]:
    """Results as the calls end."""
    waiting = set(futures)
    while waiting:
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            waiting.discard(future)
            yield future.result()
