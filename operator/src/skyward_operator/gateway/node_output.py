"""How nodes were made, read from the logs that their sessions leave on disk: also of nodes that are gone.

A log belongs to a pool as its node did: the node's object says so, and, when that is gone, the node's name,
which is derived from the uid of its pool. A pool that is made again under the same name inherits nothing.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import NODE, is_node_of
from skyward_operator.nodes.log import SUFFIX, folder_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skyward_operator.context import Context

_PIECE: Final = 1 << 16
_LINE: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) (.*)", re.DOTALL)


class NodeOutput:
    """The log of one node, read on from where it was left."""

    def __init__(self, path: Path) -> None:
        self.name = path.name.removesuffix(SUFFIX)
        self._path = path
        self._offset = 0

    def begins(self) -> float:
        """When its first line was written; 0 where that cannot be said."""
        try:
            with self._path.open("rb") as file:
                return _parted(file.readline().decode("utf-8", "replace"))[0] or 0.0
        except FileNotFoundError:
            return 0.0

    def records(self, *, to_the_end: bool = False) -> Iterator[tuple[float, bytes]]:
        """What was added since it was read last, by line, with times; half a line only `to_the_end`."""
        while data := self._read(to_the_end=to_the_end):
            for line in data.splitlines(keepends=True):
                self._offset += len(line)
                yield self._record(line.decode("utf-8", "replace").rstrip("\n"))

    def _record(self, line: str) -> tuple[float, bytes]:
        when, text = _parted(line)
        record: dict[str, Any] = {"node": self.name, "stream": "bootstrap", "offset": self._offset}
        if when is not None:
            record["time"] = when
        record["text"] = text
        return when or 0.0, json.dumps(record, ensure_ascii=False).encode() + b"\n"

    def _read(self, *, to_the_end: bool) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_PIECE)
        except FileNotFoundError:
            return b""
        if to_the_end and len(data) < _PIECE:
            return data
        return data[: data.rfind(b"\n") + 1] or (data if len(data) == _PIECE else b"")


class PoolNodes:
    """The logs of all nodes of a pool, those that are gone included."""

    def __init__(self, context: Context, pool: dict[str, Any]) -> None:
        metadata = pool["metadata"]
        self._namespace, self._pool, self._uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self._store = context.store
        self._folder = folder_of(context.settings.data_dir, self._namespace)
        self._known: dict[str, NodeOutput] = {}
        self._others: set[str] = set()

    def find(self) -> list[NodeOutput]:
        """All that there are by now."""
        for path in self._paths():
            name = path.name.removesuffix(SUFFIX)
            if name not in self._known and name not in self._others:
                if self._is_mine(name):
                    self._known[name] = NodeOutput(path)
                else:
                    self._others.add(name)
        return list(self._known.values())

    def released(self, name: str) -> NodeOutput | None:
        """The log of a node of this pool that is gone."""
        path = self._folder / f"{name}{SUFFIX}"
        if self._is_mine(name) and path.exists():
            return NodeOutput(path)
        return None

    def _paths(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(self._folder.glob(f"{self._pool}-*{SUFFIX}"))

    def _is_mine(self, name: str) -> bool:
        node = self._store.get(NODE, self._namespace, name)
        if node is not None:
            return bool(node["spec"]["poolRef"]["name"] == self._pool)
        return is_node_of(name, self._pool, self._uid)


def _parted(line: str) -> tuple[float | None, str]:
    """Time and text of a line."""
    match = _LINE.match(line)
    if match is None:
        return None, line
    return datetime.fromisoformat(match[1]).timestamp(), match[2].rstrip("\n")
