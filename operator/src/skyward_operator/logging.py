"""What the operator says while it works: one line per change, plain for people or JSON for machines.

Log calls give the object they are about as `extra={"object": "namespace/name"}`; JSON lines carry it
as a field of its own.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS: Final = ("object", "controller", "node", "task", "pool")
_QUIET: Final[Mapping[str, int]] = {
    "kopf.objects": logging.WARNING,
    "kopf": logging.WARNING,
    "kopf._core.reactor.running": logging.ERROR,
    "kopf._cogs.clients": logging.CRITICAL,  # it says "failed; will retry" as an error, per attempt
    "aiohttp.access": logging.WARNING,
    "asyncssh": logging.WARNING,
    "asyncio": logging.WARNING,
}


def set_up(format: str, level: str, *, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (standard error) in one format; replaces what was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level) if root.level > logging.DEBUG else quiet)


class PlainFormatter(logging.Formatter):
    """`2026-11-22T04:00:00.123Z INFO    message`"""

    def format(self, record: logging.LogRecord) -> str:
        """One line, followed by the traceback where there is one."""
        line = f"{_time(record)} {record.levelname:<7} {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the object key, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
