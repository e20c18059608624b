"""How much output is kept, and for how long: a decision about what lies on disk.

What has ended goes first, the oldest first, and leaves a note of what is missing and why. Only where that is
not enough, tasks that still run share the room evenly: their beginning and their latest end stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from skyward_operator.settings import LEAST_OUTPUT_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTE_BYTES: Final = 512
"""What is no longer than this is a note of what was removed, or not worth one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept: bytes of one task, bytes in all, and days since the last line of what has ended."""

    task_bytes: int
    bytes: int
    days: float


class Kind(StrEnum):
    """Whose output it is."""

    TASK = "task"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Kept:
    """Output on disk: of a task by uid, of a node by name."""

    kind: Kind
    namespace: str
    name: str
    size: int
    changed: float
    """When it was written last, in seconds since the epoch."""
    ended: bool
    wanted: bool = True
    """Whether anybody may still read it: its Task, or the pool of its node, is there."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove it, and say why in its place where somebody may read that."""

    kept: Kept
    why: str


@dataclass(frozen=True, slots=True)
class Shrink:
    """Let each of these tasks, and all that run, have no more than so many bytes."""

    kept: tuple[Kept, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done."""

    remove: tuple[Remove, ...]
    shrink: Shrink


def decide(found: Sequence[Kept], limits: Limits, now: float) -> Decision:
    """What of the output goes. Running it again on what is left changes nothing."""
    too_old = now - limits.days * 86_400.0
    ended = sorted((kept for kept in found if kept.ended), key=lambda kept: kept.changed)
    removed = [
        Remove(kept, f"older than {limits.days:g} days")
        for kept in ended
        if kept.changed < too_old and (kept.size > NOTE_BYTES or not kept.wanted)
    ]
    gone = {each.kept for each in removed}
    total = sum(kept.size for kept in found) - sum(kept.size for kept in gone)
    for kept in ended:
        if total > limits.bytes and kept not in gone and kept.size > NOTE_BYTES:
            removed.append(Remove(kept, f"all output together was more than {limits.bytes:,} bytes"))
            total -= kept.size
    return Decision(tuple(removed), _share(found, limits, total))


def _share(found: Sequence[Kept], limits: Limits, total: int) -> Shrink:
    """What each task that runs may have: all that one may, or an even share where they are too many."""
    running = [kept for kept in found if not kept.ended and kept.kind is Kind.TASK]
    if total <= limits.bytes or not running:
        return Shrink((), limits.task_bytes)
    share = min(limits.task_bytes, max(LEAST_OUTPUT_BYTES, limits.bytes // len(running)))
    return Shrink(tuple(kept for kept in running if kept.size > share), share)
