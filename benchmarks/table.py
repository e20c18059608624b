"""The table, for people and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.row import show, theirs, verdicts

if TYPE_CHECKING:
    from benchmarks.peers.run import Peer
    from benchmarks.row import Row, Verdict

_SHORT = {"ProcessPoolExecutor": "ProcessPool"}


@dataclass(slots=True)
class Table:
    """What one run found: rows, peers, and what could not be measured and why."""

    quick: bool
    begun: str
    load: float
    peers: dict[str, Peer] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The whole of it, for a terminal; a Markdown table, so that it can be kept as it is."""
        peers = [peer for peer in self.peers.values() if not peer.skipped]
        head = ["path", "ours", "limit in this run", "ratio", "goal", "met"]
        lines = [head + [_SHORT.get(peer.title, peer.title) for peer in peers]]
        for row in self.rows:
            found = verdicts(row, self.peers)
            lines.append(
                [
                    row.path,
                    show(row.ours, row.unit),
                    f"{show(row.limit, row.unit)}, {row.limit_name}" if row.limit is not None else "",
                    f"{row.ratio:.2f}" if row.ratio is not None else "",
                    ", ".join(each.text for each in found),
                    _met(found),
                    *(_cell(row, peer) for peer in peers),
                ]
            )
        return "\n".join([*_aligned(lines), *self._remarks()])

    def json(self) -> dict[str, Any]:
        """The same for programs: seconds, rates per second, MB/s, MiB."""
        return {
            "begun": self.begun,
            "quick": self.quick,
            "machine": {
                "cpus": os.cpu_count(),
                "load": self.load,
                "python": platform.python_version(),
                "system": platform.platform(),
            },
            "peers": {
                name: {"title": peer.title, "figures": dict(peer.figures), "skipped": peer.skipped}
                for name, peer in self.peers.items()
            },
            "rows": [self._row(row) for row in self.rows],
            "failed": self.failed,
        }

    def _row(self, row: Row) -> dict[str, Any]:
        return {
            "path": row.path,
            "ours": row.ours,
            "unit": str(row.unit),
            "limit": row.limit,
            "limitName": row.limit_name,
            "ratio": row.ratio,
            "peers": {name: theirs(row, peer) for name, peer in self.peers.items()},
            "goals": [{"text": each.text, "met": each.met} for each in verdicts(row, self.peers)],
        }

    def _remarks(self) -> list[str]:
        skipped = [peer for peer in self.peers.values() if peer.skipped]
        remarks = ["", *(f"SKIPPED {peer.title}: {peer.skipped}" for peer in skipped)]
        remarks += [f"FAILED {name}: {why}" for name, why in self.failed.items()]
        told = [verdict for row in self.rows for verdict in verdicts(row, self.peers)]
        met, missed = (sum(verdict.met is value for verdict in told) for value in (True, False))
        unknown = len(told) - met - missed
        remarks.append(
            f"{met} goals met, {missed} not met, {unknown} without what they are compared with; "
            f"begun {self.begun}, {os.cpu_count()} cores, load {self.load:.1f} before it began"
            + (", QUICK: too few samples to conclude from" if self.quick else "")
        )
        return remarks


def _met(found: list[Verdict]) -> str:
    words = {True: "yes", False: "NO", None: "?"}
    return ", ".join(words[each.met] for each in found)


def _cell(row: Row, peer: Peer) -> str:
    figure = theirs(row, peer)
    return show(figure, row.unit) if figure is not None else ""


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
