"""What all parts of dispatching share: the rooms of the pools, the live tasks, and the small verbs on them.

One event loop, no locks: whatever is done on one event is done before the next, so there are no half-made
states. The parts build on one another in this order: floor, completion, handout, endings, admission, reunion.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from skyward.contract.names import TASK
from skyward.wire.envelopes import parse_attempt
from skyward_operator.tasks.costs import Costs
from skyward_operator.tasks.ledger import Ledger, LiveTask, Trace
from skyward_operator.tasks.room import Room

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward_operator.context import Context
    from skyward_operator.gateway.blobs import BlobStore
    from skyward_operator.gateway.logs import LogBook
    from skyward_operator.tasks.custody import Custody
    from skyward_operator.tasks.flights import Attempt
    from skyward_operator.tasks.journal import Journal
    from skyward_operator.tasks.payload import Payloads
    from skyward_operator.tasks.sender import Sender

type Key = tuple[str, str]

_MANY_TIMERS = 64


class Floor:
    """The shared state of dispatching."""

    def __init__(
        self,
        context: Context,
        ledger: Ledger,
        sender: Sender,
        payloads: Payloads,
        blobs: BlobStore,
        logs: LogBook,
        journal: Journal,
        custody: Custody,
    ) -> None:
        self.context = context
        self.ledger = ledger
        self.sender = sender
        self.payloads = payloads
        self.blobs = blobs
        self.logs = logs
        self.journal = journal
        self.custody = custody
        self.costs = Costs(self)
        self.rooms: dict[Key, Room] = {}
        self.room_of_node: dict[Key, Room] = {}
        self.started = False
        self.on_change: Callable[[Room], None] = lambda room: None
        """Called after a timer has changed something in a room."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.context.clock.now().timestamp()

    def room(self, key: Key) -> Room:
        """The room of a pool, made when it is first spoken of."""
        room = self.rooms.get(key)
        if room is None:
            room = self.rooms[key] = Room(*key, closed=not self.started)
        return room

    def room_of(self, live: LiveTask) -> Room:
        """The room of a task's pool."""
        return self.room(live.work.pool_key)

    def sweep(self, room: Room) -> None:
        """Drop a room that nothing refers to any more."""
        if room.empty:
            self.rooms.pop((room.namespace, room.name), None)

    def find(self, name: str, node: str) -> tuple[LiveTask | None, Attempt | None]:
        """The live task of an attempt, and the attempt if it is the one that counts. One at several calls is
        found by its first."""
        try:
            uid, index, _ = parse_attempt(name)
        except ValueError:
            return None, None
        live = self.ledger.get(uid)
        attempt = live.flights.get(index) if live is not None else None
        counts = attempt is not None and (attempt.id, attempt.node) == (name, node)
        return live, attempt if counts else None

    def disembark(self, room: Room, live: LiveTask, attempt: Attempt) -> None:
        """The attempt is not on its node any more."""
        if live.flights.holds(attempt):
            room.scheduler.release(live.work.uid, attempt.index)
            live.flights.remove(attempt)

    def advance(self, room: Room, live: LiveTask, attempt: Attempt, count: int) -> None:
        """The first `count` calls of an attempt that is on its node have ended; after the last one it is not
        there any more."""
        if count == attempt.count:
            self.disembark(room, live, attempt)
            live.largest = max(live.largest, attempt.size)
        else:
            room.scheduler.advance(live.work.uid, attempt.index, attempt.index + count)
            live.flights.advance(attempt, count)
            attempt.heard = self.context.clock.monotonic()

    def part(self, room: Room, live: LiveTask, attempt: Attempt, index: int) -> Attempt:
        """Make one of its calls an attempt of its own, on the same node."""
        return next(each for each in self.cut(room, live, attempt, index, index + 1) if each.index == index)

    def cut(self, room: Room, live: LiveTask, attempt: Attempt, *places: int) -> list[Attempt]:
        """Make attempts of their own, on the same node, of its calls before and behind these places."""
        if not any(attempt.index < place <= attempt.last for place in places):
            return [attempt]
        flies = room.scheduler.release(live.work.uid, attempt.index)
        live.flights.remove(attempt)
        pieces = attempt.cut(*places)
        for piece in pieces:
            live.flights.add(piece)
            if flies:
                room.scheduler.adopt(live.work.uid, piece.index, piece.node)
        return pieces

    def rank_of(self, live: LiveTask, node: str) -> int:
        """The rank of a node of the task's pool; 0 where it is not known yet."""
        known = self.room_of(live).nodes.get(node)
        return known.node.rank if known is not None else 0

    def trace(self, live: LiveTask, attempt: Attempt, cause: str) -> None:
        """Remember an attempt that did not return, for people."""
        begun = attempt.started or attempt.sent
        now, count = self.now(), attempt.count
        trace = Trace(attempt.index, attempt.number, attempt.node, attempt.rank, begun, now, cause, count)
        live.recent.append(trace)
        self.journal.over(live, trace)

    def warn(self, live: LiveTask, reason: str, message: str) -> None:
        """Show people who describe the task what happened to it."""
        work = live.work
        metadata = {"namespace": work.namespace, "name": work.name, "uid": work.uid}
        task = {"apiVersion": TASK.api_version, "kind": TASK.kind, "metadata": metadata}
        self.context.events.emit(task, "Warning", reason, message)

    def later(self, live: LiveTask, delay: float, call: Callable[[], None]) -> None:
        """Do something for a task after some seconds, unless it ends first."""
        loop = asyncio.get_running_loop()
        if len(live.timers) > _MANY_TIMERS:
            now = loop.time()
            live.timers[:] = [timer for timer in live.timers if timer.when() > now]
        live.timers.append(loop.call_later(delay, self._due, live, call))

    def _due(self, live: LiveTask, call: Callable[[], None]) -> None:
        if not live.completing:
            call()
            self.on_change(self.room_of(live))
