"""The calls of a task, one to a line: how each ended, where, and at which attempt. Nothing is unpickled."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from skyward.cli.selection import timestamp

if TYPE_CHECKING:
    from skyward.records import CallRecord

_HEAD = ("INDEX", "OK", "ATTEMPTS", "NODE", "RANK", "STARTED", "SECONDS", "ERROR")
_WIDTHS = (8, 5, 8, 28, 4, 27, 11)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls; None is every index."""

    failed: bool = False
    index: range | None = None

    def takes(self, record: "CallRecord") -> bool:
        """Whether a call is wanted."""
        return not (self.failed and record.ok) and (self.index is None or record.index in self.index)


def print_records(records: "Iterable[CallRecord]", wanted: Wanted, *, as_json: bool) -> None:
    """Write each as it comes: as a line for people, or as one JSON object per line."""
    shown = filter(wanted.takes, records)
    for line in map(_as_json, shown) if as_json else _as_text(shown):
        sys.stdout.write(f"{line}\n")


def _as_text(records: "Iterable[CallRecord]") -> Iterator[str]:
    yield _line(_HEAD)
    for record in records:
        error = f"{record.error.type}: {record.error.message}" if record.error is not None else "-"
        yield _line(
            (
                str(record.index),
                "yes" if record.ok else "no",
                str(record.attempts),
                record.node or "-",
                str(record.rank) if record.node else "-",
                timestamp(record.started.timestamp()) if record.started is not None else "-",
                f"{record.seconds:.6f}" if record.started is not None else "-",
                " ".join(error.split()),  # a message of several lines stays on this one
            )
        )


def _line(cells: tuple[str, ...]) -> str:
    *most, last = cells
    return "  ".join([*(cell.ljust(width) for cell, width in zip(most, _WIDTHS, strict=True)), last])


def _as_json(record: "CallRecord") -> str:
    fields = {
        "index": record.index,
        "ok": record.ok,
        "attempts": record.attempts,
        "node": record.node,
        "rank": record.rank,
        "started": timestamp(record.started.timestamp()) if record.started is not None else None,
        "seconds": record.seconds,
        "error": asdict(record.error) if record.error is not None else None,
    }
    return json.dumps(fields, ensure_ascii=False)
