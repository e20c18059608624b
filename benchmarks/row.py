"""One line of the table, and what it has to reach. Pure.

A ratio is ours by the limit of the same run: for times and memory less is better, for rates more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.peers.run import Peer


class Unit(StrEnum):
    """What a figure counts."""

    SECONDS = "s"
    RATE = "/s"
    BYTES = "MB/s"
    MEMORY = "MiB"
    CPU = "CPU-ms"
    SHARE = "% of a core"
    COUNT = "times"
    PER_MINUTE = "/min"

    @property
    def less_is_better(self) -> bool:
        """Whether a smaller figure is the better one."""
        return self not in (Unit.RATE, Unit.BYTES)


@dataclass(frozen=True, slots=True)
class Within:
    """So many times the limit at most (of what should be little), or at least (of a rate)."""

    times: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """Better than these peers; with `times`, than so many times their figure."""

    peers: tuple[str, ...]
    times: float = 1.0


@dataclass(frozen=True, slots=True)
class Bound:
    """An absolute figure."""

    value: float


type Goal = Within | Ahead | Bound


@dataclass(frozen=True, slots=True)
class Row:
    """One path, measured."""

    path: str
    ours: float
    unit: Unit
    limit: float | None = None
    limit_name: str = ""
    peer: str = ""
    """What the peers' programs call this path; empty where they have no such thing."""
    goals: tuple[Goal, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Ours by the limit."""
        return self.ours / self.limit if self.limit else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a goal is met; None where what it is compared with is missing."""

    text: str
    met: bool | None


def theirs(row: Row, peer: Peer) -> float | None:
    """A peer's figure for a row."""
    return peer.figures.get(row.peer) if row.peer else None


def verdicts(row: Row, peers: Mapping[str, Peer]) -> list[Verdict]:
    """Each goal of a row; of several peers each one by itself."""
    found: list[Verdict] = []
    for goal in row.goals:
        match goal:
            case Within(times):
                target = row.limit * times if row.limit is not None else None
                found.append(_against(row, target, f"{times:g} x limit"))
            case Bound(value):
                found.append(_against(row, value, show(value, row.unit)))
            case Ahead(names, times):
                for name in names:
                    peer = peers.get(name)
                    figure = theirs(row, peer) if peer is not None else None
                    target = figure * times if figure is not None else None
                    share = "" if times == 1.0 else f"{times:g} x "
                    found.append(_against(row, target, f"{share}{peer.title if peer is not None else name}"))
    return found


def show(value: float, unit: Unit) -> str:
    """A figure with its unit, as people read it."""
    match unit:
        case Unit.SECONDS if value < 0.001:
            return f"{value * 1e6:,.0f} µs"
        case Unit.SECONDS if value < 0.5:
            return f"{value * 1e3:,.2f} ms"
        case Unit.SECONDS | Unit.CPU | Unit.SHARE:
            return f"{value:,.2f} {unit}"
        case Unit.COUNT:
            return f"{value:,.2f}"
        case _:
            return f"{value:,.0f} {unit}"


def _against(row: Row, target: float | None, name: str) -> Verdict:
    less = row.unit.less_is_better
    text = f"{'≤' if less else '≥'} {name}"
    if target is None:
        return Verdict(text, None)
    return Verdict(text, row.ours <= target if less else row.ours >= target)
