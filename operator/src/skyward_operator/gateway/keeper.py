"""Keeps the output on disk within its limits: looks now and then, and soon after much was written."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import NODE, POOL, TASK, is_node_of
from skyward_operator.engine.clock import timestamp
from skyward_operator.gateway.output import REMOVED
from skyward_operator.gateway.retention import Kept, Kind, Remove, decide
from skyward_operator.nodes.log import SUFFIX, folder_of
from skyward_operator.tasks.work import is_final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from skyward_operator.context import Context
    from skyward_operator.gateway.logs import LogBook
    from skyward_operator.gateway.retention import Decision, Limits

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
_SHARE: Final = 64
"""One part of so many of what is kept in all may be written before it is looked again."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the API server has at a moment: tasks that have not ended by uid, nodes, and pools with uids."""

    running: frozenset[str]
    nodes: frozenset[tuple[str, str]]
    pools: tuple[tuple[str, str, str], ...]


class Keeper:
    """Looks after the output of all tasks and nodes. `run` works until it is cancelled."""

    def __init__(self, context: Context, logs: LogBook, limits: Limits) -> None:
        self._context = context
        self._logs = logs
        self._limits = limits

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._logs.grown(self._limits.bytes // _SHARE)

    async def look(self) -> None:
        """Compare what there is with what may be, and remove what is too much."""
        known, now = self._known(), self._context.clock.now().timestamp()
        decision = await asyncio.to_thread(self._decide, known, now)
        await asyncio.to_thread(self._remove, decision.remove)
        shrunk = [(kept.namespace, kept.name) for kept in decision.shrink.kept]
        await self._logs.shrink(decision.shrink.limit, shrunk)

    def _known(self) -> _Known:
        store = self._context.store
        tasks = (task for task in store.list(TASK) if not is_final(task))
        return _Known(
            frozenset(task["metadata"]["uid"] for task in tasks),
            frozenset(_place(node) for node in store.list(NODE)),
            tuple((*_place(pool), pool["metadata"]["uid"]) for pool in store.list(POOL)),
        )

    def _decide(self, known: _Known, now: float) -> Decision:
        return decide([*self._tasks(known), *self._nodes(known)], self._limits, now)

    def _tasks(self, known: _Known) -> Iterator[Kept]:
        for namespace, uid in self._logs.blobs.folders():
            size, changed = _measured(self._logs.blobs.folder(namespace, uid).glob("*"))
            yield Kept(Kind.TASK, namespace, uid, size, changed, uid not in known.running)

    def _nodes(self, known: _Known) -> Iterator[Kept]:
        for path in self._context.settings.data_dir.glob(f"logs/*/nodes/*{SUFFIX}"):
            namespace, name = path.parent.parent.name, path.name.removesuffix(SUFFIX)
            size, changed = _measured([path])
            is_there = (namespace, name) in known.nodes
            pools = ((pool, uid) for place, pool, uid in known.pools if place == namespace)
            wanted = is_there or any(is_node_of(name, pool, uid) for pool, uid in pools)
            yield Kept(Kind.NODE, namespace, name, size, changed, not is_there, wanted)

    def _remove(self, removed: Sequence[Remove]) -> None:
        for each in removed:
            kept = each.kept
            label = f"{kept.namespace}/{kept.name}"
            logger.info(
                "removing %d bytes of output of %s %s: %s", kept.size, kept.kind, label, each.why,
                extra={"object": label},
            )  # fmt: skip
            try:
                self._replace(each)
            except OSError as error:
                logger.warning("output of %s %s cannot be removed: %s", kept.kind, label, error)

    def _replace(self, each: Remove) -> None:
        """Leave a note in the place of output, in one step: a reader finds the one or the other."""
        kept, note = (
            each.kept,
            f"output was removed here on {timestamp(self._context.clock.now())}: {each.why}",
        )
        if kept.kind is Kind.NODE:
            path = folder_of(self._context.settings.data_dir, kept.namespace) / f"{kept.name}{SUFFIX}"
            if kept.wanted:
                _write(path, f"({note})\n")
            else:
                path.unlink(missing_ok=True)
            return
        folder = self._logs.blobs.folder(kept.namespace, kept.name)
        if folder.is_dir():
            _write(folder / REMOVED, note)
            for path in folder.iterdir():
                if path.name != REMOVED:
                    path.unlink(missing_ok=True)


def _place(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _measured(paths: Iterable[Path]) -> tuple[int, float]:
    """Bytes, and when one of them was written last; a file that goes meanwhile is none."""
    size, changed = 0, 0.0
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            size, changed = size + status.st_size, max(changed, status.st_mtime)
    return size, changed


def _write(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.replace(path)
