"""Puts the parts of this package together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from skyward_operator.gateway.blobs import BlobStore
from skyward_operator.gateway.keeper import Keeper
from skyward_operator.gateway.logs import LogBook
from skyward_operator.gateway.retention import Limits
from skyward_operator.gateway.stores import Store, open_store
from skyward_operator.tasks.backlog import Backlog
from skyward_operator.tasks.custody import Custody
from skyward_operator.tasks.dispatch import Dispatcher
from skyward_operator.tasks.expiry import Expiry
from skyward_operator.tasks.files import Files
from skyward_operator.tasks.floor import Floor
from skyward_operator.tasks.journal import Journal
from skyward_operator.tasks.ledger import Ledger, LiveTask
from skyward_operator.tasks.payload import Payloads
from skyward_operator.tasks.record import Pace
from skyward_operator.tasks.sender import Sender
from skyward_operator.tasks.watch import Watch
from skyward_operator.tasks.workload import Workload, workload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.context import Context
    from skyward_operator.nodes.fleet import Fleet, NodeListener
    from skyward_operator.tasks.reception import Reception


@dataclass(frozen=True, slots=True)
class GatewayBackend:
    """What the gateway needs of the tasks."""

    blobs: BlobStore
    store: Store
    logs: LogBook
    ledger: Ledger
    dispatcher: Dispatcher

    def payload_progressed(self, uid: str) -> None:
        """Bytes of a task's payload have come."""
        if (live := self.ledger.get(uid)) is not None:
            self.dispatcher.payload_progressed(live)

    def payload_arrived(self, uid: str) -> None:
        """A task's payload is complete and verified."""
        if (live := self.ledger.get(uid)) is not None:
            self.dispatcher.payload_arrived(live)

    def live(self, uid: str) -> LiveTask | None:
        """A task that has not ended."""
        return self.ledger.get(uid)

    @property
    def reception(self) -> Reception:
        """Who serves the clients of open tasks."""
        return self.dispatcher.reception

    def is_live(self, uid: str) -> bool:
        """Whether more output of this task may come."""
        return self.ledger.get(uid) is not None


class Tasks:
    """All tasks of the operator. `run` works until it is cancelled."""

    def __init__(self, context: Context, fleet: Fleet, pace: Pace) -> None:
        self._fleet = fleet
        root = context.settings.data_dir
        blobs = BlobStore(root / "blobs")
        settings = context.settings
        limits = Limits(settings.task_output_bytes, settings.output_bytes, settings.output_days)
        logs = LogBook(BlobStore(root / "output"), limits.task_bytes)
        logs.on_disk = partial(_tell_agent, fleet)
        payloads = Payloads(blobs)
        ledger = Ledger()
        store = open_store(context, blobs)
        custody = Custody(store, blobs, context.clock)
        files = Files(context, blobs, logs, store)
        self._logs = logs
        self._store = store
        self._journal = journal = Journal(root / "attempts", ledger)
        sender = Sender(fleet, payloads)
        self._floor = Floor(context, ledger, sender, payloads, blobs, logs, journal, custody)
        self._dispatcher = Dispatcher(self._floor, pace, files.drop)
        self._expiry = Expiry(context)
        self._keeper = Keeper(context, logs, limits)
        backlog = Backlog(self._dispatcher)
        self._files = files
        self._watch = Watch(context, ledger, self._dispatcher, self._expiry, files, custody, backlog, journal)
        self.listener: NodeListener = backlog
        """Who wants to hear of nodes, from the beginning."""
        self.caught_up = asyncio.Event()
        """Set once calls may be handed out."""
        self.gateway_backend = GatewayBackend(blobs, store, logs, ledger, self._dispatcher)

    def demand(self, namespace: str, pool: str) -> Workload | None:
        """The calls that a pool has before it: for scaling. None before they are known."""
        if not self.caught_up.is_set():
            return None
        room = self._floor.rooms.get((namespace, pool))
        return workload(room) if room is not None else Workload()

    def retire(self, namespace: str, pool: str, node: str) -> bool:
        """Hand nothing more to a node that has nothing; False, and no change, if it has something."""
        room = self._floor.rooms.get((namespace, pool))
        if not self.caught_up.is_set() or (room is not None and node in workload(room).busy):
            return False
        if room is not None:
            room.scheduler.pause_node(node)
        return True

    def reinstate(self, namespace: str, pool: str, node: str) -> None:
        """A node that was to be released stays: it takes calls again."""
        room = self._floor.rooms.get((namespace, pool))
        ready = self._fleet.node(namespace, node)
        if room is None or ready is None or node not in room.nodes:
            return  # it takes part again when it answers
        room.scheduler.add_node(ready.name, ready.rank, ready.slots)
        self._floor.on_change(room)

    async def run(self) -> None:
        """Catch up with what is, then work until cancelled."""
        if not self.caught_up.is_set():
            await self._watch.catch_up()
            self.caught_up.set()
        keeping = self._floor.context.supervisor.keep("retention of output", self._keeper.run)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._files.run())
                group.create_task(self._expiry.run())
        finally:
            keeping.cancel()
            self._store.close()
            self._journal.close()
            await asyncio.shield(self._logs.flush())


def _tell_agent(fleet: Fleet, namespace: str, node: str, attempts: Mapping[str, int]) -> None:
    """Output is on disk. An agent that is away sends it again, and is told then."""
    if (link := fleet.link(namespace, node)) is not None:
        link.logged(attempts)


def build(context: Context, fleet: Fleet, *, pace: Pace | None = None) -> Tasks:
    """The tasks of one operator."""
    return Tasks(context, fleet, pace or Pace())
