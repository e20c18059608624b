"""From pending calls to how they run: what a pool's methods are made of."""

from collections.abc import Sequence
from typing import Any, Literal

from skyward import image
from skyward.functions import PendingFunction
from skyward.manifest import Call, call_options
from skyward.poolview import PoolView
from skyward.wire.options import CallOptions

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


def calls_of(calls: Sequence[Call]) -> tuple[Call, list[CallOptions]]:
    """How a Task of these calls runs, and how each of them runs where they differ.

    Raises ValueError for calls with different queue time-outs: that one belongs to the Task.
    """
    first = calls[0]
    if any(call.queue_timeout != first.queue_timeout for call in calls):
        given = ", ".join(sorted({f"{call.queue_timeout} s" for call in calls}))
        raise ValueError(
            f"calls of one group wait for a slot together, but their queue time-outs differ: {given}; "
            "give the whole group one with group.with_queue_timeout(...)"
        )
    if all(call == first for call in calls):
        return first, []
    return Call(queue_timeout=first.queue_timeout, result_ttl=first.result_ttl), [
        call_options(call) for call in calls
    ]


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
