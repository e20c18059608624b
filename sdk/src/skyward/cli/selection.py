"""Which records of output `skyward logs` prints: options in words to a test of records."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted; None is everything. `since` is in seconds since the epoch."""

    since: float | None = None
    index: range | None = None
    attempt: int | None = None

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is wanted; what says that something is missing always is."""
        since = self.since is None or float(record.get("time", 0.0)) >= self.since
        if "index" not in record:  # of a node, or of all calls
            calls = self.index is not None or self.attempt is not None
            return bool(record.get("gap")) or (since and not calls)
        return (
            since
            and (self.index is None or record["index"] in self.index)
            and (self.attempt is None or record.get("attempt") == self.attempt)
        )


def parse_since(text: str, now: float) -> float:
    """`90s`, `10m`, `1h30m` ago, or a time such as 2026-11-25T10:00:00Z, in seconds since the epoch."""
    if re.fullmatch(r"(\d+[smhd])+", text):
        return now - sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a duration such as 10m or 1h30m nor a time such as 2026-11-25T10:00:00Z"
        ) from None


def parse_index(text: str) -> range:
    """`3` or `0-5`, both ends included."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is neither an index such as 3 nor a range such as 0-5")
    first = int(match[1])
    last = int(match[2] or first)
    if last < first:
        raise typer.BadParameter(f"{text!r} ends before it begins: write {last}-{first}")
    return range(first, last + 1)


def timestamp(seconds: float) -> str:
    """A time as it stands in front of a line."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
