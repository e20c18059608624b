"""The log of one node's bootstrap, on disk, for people: `<data_dir>/logs/<namespace>/nodes/<name>.log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward_operator.engine.clock import timestamp

if TYPE_CHECKING:
    from pathlib import Path

    from skyward_operator.engine.clock import Clock

LIMIT = 10 * 1024 * 1024


class NodeLog:
    """Appends lines, each with its time, up to LIMIT bytes; that the rest is left out is its last line."""

    def __init__(self, data_dir: Path, namespace: str, name: str, clock: Clock) -> None:
        self.path = data_dir / "logs" / namespace / "nodes" / f"{name}.log"
        self._clock = clock
        self._size: int | None = None

    def line(self, text: str) -> None:
        """Append a line."""
        if self._size is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._size = self.path.stat().st_size if self.path.exists() else 0
        if self._size > LIMIT:
            return
        data = f"{timestamp(self._clock.now())} {text}\n".encode()
        self._size += len(data)
        if self._size > LIMIT:
            data = f"(the log ends here, at {LIMIT} bytes)\n".encode()
        with self.path.open("ab") as file:
            file.write(data)
