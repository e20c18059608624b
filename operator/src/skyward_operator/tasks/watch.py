"""Brings objects of the API server to the dispatcher: at the start all of them, then each change.

Nothing is dispatched before the store is complete and the files of outcomes were read: what looks unfinished
on a cold view may have ended long ago.
"""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from skyward.contract.names import NODE, POOL, TASK
from skyward.contract.reasons import NodePhase, TaskReason
from skyward.wire.envelopes import ErrorInfo
from skyward_operator.kube.cascade import let_go
from skyward_operator.kube.store import key_of, uid_of
from skyward_operator.tasks.custody import forgotten
from skyward_operator.tasks.ledger import Failure, Ledger, LiveTask, Past, read_members
from skyward_operator.tasks.results import Recovered, ResultFile
from skyward_operator.tasks.room import read_pool
from skyward_operator.tasks.work import Work, epoch, is_final, read_work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.context import Context
    from skyward_operator.tasks.backlog import Backlog
    from skyward_operator.tasks.custody import Custody
    from skyward_operator.tasks.dispatch import Dispatcher
    from skyward_operator.tasks.expiry import Expiry
    from skyward_operator.tasks.files import Files
    from skyward_operator.tasks.journal import Journal

logger = logging.getLogger(__name__)

type Object = dict[str, Any]


class Watch:
    """From the store to the dispatcher."""

    def __init__(
        self,
        context: Context,
        ledger: Ledger,
        dispatcher: Dispatcher,
        expiry: Expiry,
        files: Files,
        custody: Custody,
        backlog: Backlog,
        journal: Journal,
    ) -> None:
        self._context = context
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._expiry = expiry
        self._files = files
        self._custody = custody
        self._backlog = backlog
        self._journal = journal
        self._caught_up = False
        self._forgotten: list[tuple[LiveTask, Sequence[range]]] = []
        """Calls whose outcomes are lost with the disk of an earlier operator."""

    async def catch_up(self) -> None:
        """Build the ledger from what the API server and the disk have, then listen to nodes and start."""
        store = self._context.store
        await store.synced.wait()
        store.subscribe(POOL, self._pool_changed)
        store.subscribe(NODE, self._node_changed)
        store.subscribe(TASK, self._task_changed)
        for pool in store.list(POOL):
            self._dispatcher.pool_changed(key_of(pool), read_pool(pool))
        for node in store.list(NODE):
            if (node.get("status") or {}).get("phase") in (NodePhase.READY, NodePhase.DRAINING):
                pool_key = node["metadata"]["namespace"], node["spec"]["poolRef"]["name"]
                self._dispatcher.expect(key_of(node), pool_key)
        await asyncio.to_thread(self._journal.read)
        await self._recover()
        self._journal.begin()
        self._caught_up = True
        self._backlog.release()
        self._dispatcher.start(self._forgotten)
        self._forgotten = []

    async def _recover(self) -> None:
        store = self._context.store
        recovered = set[str]()
        while True:
            # Tasks may come and change while files are read: go on until there is nothing new.
            tasks = [task for task in store.list(TASK) if uid_of(task) not in recovered]
            if not tasks:
                break
            for task in tasks:
                recovered.add(uid_of(task))
                if is_final(task):
                    self._task_ended(task)
                elif not (work := read_work(task)).managed_elsewhere:
                    live = await self._restore(task, work)
                    if store.get(TASK, *work.key) is not None:
                        self._dispatcher.add(live)
        for live in self._ledger:
            task_now = store.get(TASK, *live.work.key)
            if task_now is None or uid_of(task_now) != live.work.uid:
                self._dispatcher.removed(live)
            elif task_now["metadata"].get("generation", 1) != live.work.generation:
                self._dispatcher.changed(live, read_work(task_now))

    async def _restore(self, task: Object, work: Work) -> LiveTask:
        live = LiveTask(work, ResultFile(self._files.blobs.results(work.namespace, work.uid)))
        status = task.get("status") or {}
        if status.get("startTime"):
            live.started = epoch(status["startTime"])
        live.cost = Decimal((status.get("cost") or {}).get("total") or 0)
        attempts = status.get("attempts") or {}
        live.attempts, live.interrupted = attempts.get("total", 0), attempts.get("interrupted", 0)
        if live.started is not None:
            await self._custody.recall_started(work)
        if work.broadcast:
            members = self._files.blobs.members(work.namespace, work.uid)
            if await asyncio.to_thread(members.exists):
                live.members = read_members(await asyncio.to_thread(members.read_bytes))
                live.total = len(live.members)
        if await asyncio.to_thread(live.results.path.exists):
            _take_in(live, await asyncio.to_thread(live.results.recover))
        for each in attempts.get("recent") or ():
            _remember(live, each)
        self._journal.restore(live)
        if lost := forgotten(status, live):
            self._forgotten.append((live, lost))
        return live

    def _pool_changed(self, old: Object | None, new: Object | None) -> None:
        obj = _either(old, new)
        self._dispatcher.pool_changed(key_of(obj), read_pool(new) if new is not None else None)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        obj = _either(old, new)
        phase = (new.get("status") or {}).get("phase", "") if new is not None else None
        self._dispatcher.node_phase(key_of(obj), phase)

    def _task_changed(self, old: Object | None, new: Object | None) -> None:
        if not self._caught_up:
            return
        if new is None:
            self._task_removed(_either(old, new))
            return
        live = self._ledger.get(uid_of(new))
        if is_final(new):
            self._task_ended(new)
        elif live is not None:
            metadata = new["metadata"]
            if metadata.get("generation", 1) != live.work.generation or "deletionTimestamp" in metadata:
                self._dispatcher.changed(live, read_work(new))
        elif old is None or uid_of(old) != uid_of(new):
            self._task_created(new)

    def _task_created(self, task: Object) -> None:
        work = read_work(task)
        if not work.managed_elsewhere:
            self._dispatcher.add(
                LiveTask(work, ResultFile(self._files.blobs.results(work.namespace, work.uid)))
            )

    def _task_ended(self, task: Object) -> None:
        self._expiry.ended(task)
        if "deletionTimestamp" in task["metadata"]:
            self._context.supervisor.spawn(f"end of {uid_of(task)}", let_go(self._context.api, TASK, task))

    def _task_removed(self, task: Object) -> None:
        self._expiry.forget(task)
        namespace, uid = task["metadata"]["namespace"], uid_of(task)
        live = self._ledger.get(uid)
        if live is not None:
            self._dispatcher.removed(live)
        else:
            self._context.supervisor.spawn(f"files of {uid}", self._files.drop(namespace, uid))


def _take_in(live: LiveTask, recovered: Recovered) -> None:
    live.succeeded, live.failed = recovered.succeeded, recovered.failed
    first = recovered.first_failure
    if first is not None:
        error = first.error or ErrorInfo(type=TaskReason.INTERNAL_ERROR, message="", kind="System")
        live.first_failure = Failure(first.index, error, first.node)


def _remember(live: LiveTask, recent: Mapping[str, Any]) -> None:
    """An attempt that the status shows: the next one at its calls has a higher number."""
    number, first = recent.get("attempt", 1), recent.get("index", 0)
    for span in live.without_end(first, first + recent.get("count", 1) - 1):
        for part, past in list(live.alike(span)):
            if past.number < number:
                live.remember(part, Past(number, past.exceptions, past.interruptions))


def _either(old: Object | None, new: Object | None) -> Object:
    found = new or old
    if found is None:
        raise ValueError("a change without an object")
    return found
