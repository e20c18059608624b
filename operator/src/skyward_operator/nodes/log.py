"""The log of one node's bootstrap, on disk, for people: `<data_dir>/logs/<namespace>/nodes/<name>.log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward_operator.engine.clock import micro_timestamp

if TYPE_CHECKING:
    from pathlib import Path

    from skyward_operator.engine.clock import Clock

LIMIT = 10 * 1024 * 1024
SUFFIX = ".log"


def folder_of(data_dir: Path, namespace: str) -> Path:
    """Where the logs of a namespace's nodes are; they stay there when the nodes are gone."""
    return data_dir / "logs" / namespace / "nodes"


class NodeLog:
    """Appends lines, each with its time, up to LIMIT bytes; that the rest is left out is its last line."""

    def __init__(self, data_dir: Path, namespace: str, name: str, clock: Clock) -> None:
        self.path = folder_of(data_dir, namespace) / f"{name}{SUFFIX}"
        self._clock = clock
        self._size: int | None = None

    def line(self, text: str) -> None:
        """Append a line."""
        if self._size is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._size = self.path.stat().st_size if self.path.exists() else 0
        if self._size > LIMIT:
            return
        data = f"{micro_timestamp(self._clock.now())} {text}\n".encode()
        self._size += len(data)
        if self._size > LIMIT:
            data = f"(the log ends here, at {LIMIT} bytes)\n".encode()
        with self.path.open("ab") as file:
            file.write(data)
