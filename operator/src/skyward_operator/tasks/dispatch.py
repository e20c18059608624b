"""The part of the operator that is on the way of every call: it is told what happens and has it acted upon.

All of it is synchronous on one event loop; what takes time (writes of status, files, large arguments) is
started from here and reports back. Nothing looks at all tasks or all calls because of one event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skyward.contract.reasons import NodePhase, TaskPhase, TaskReason
from skyward.wire.envelopes import RefusalReason, parse_attempt
from skyward_operator.nodes.collection import drop
from skyward_operator.nodes.received import Received
from skyward_operator.tasks import decide
from skyward_operator.tasks.admission import Admission
from skyward_operator.tasks.batches import Batches
from skyward_operator.tasks.completion import Completion
from skyward_operator.tasks.decide import End, PoolView
from skyward_operator.tasks.endings import Endings
from skyward_operator.tasks.flights import Attempt
from skyward_operator.tasks.handout import Handout
from skyward_operator.tasks.reception import Reception
from skyward_operator.tasks.record import Pace, Recorder
from skyward_operator.tasks.refusals import Refusals
from skyward_operator.tasks.reunion import Reunion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from skyward.wire.frames import Frame
    from skyward_operator.nodes.fleet import ReadyNode
    from skyward_operator.tasks.floor import Floor, Key
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.room import Room
    from skyward_operator.tasks.work import Work


class Dispatcher:
    """The live tasks on their pools; implements `NodeListener`."""

    def __init__(self, floor: Floor, pace: Pace, drop_files: Callable[[str, str], Awaitable[None]]) -> None:
        self._floor = floor
        self._recorder = Recorder(floor.context, self._refresh, pace)
        self._completion = Completion(floor, self._recorder, drop_files)
        floor.costs.stop = self._completion.stop
        self._handout = Handout(floor, self._completion)
        self._endings = Endings(floor, self._completion, self._handout)
        self._refusals = Refusals(floor, self._completion, self._handout, self._endings)
        self._batches = Batches(floor, self._endings)
        self._admission = Admission(floor, self._completion, self._handout)
        self.reception = Reception(floor, self._completion, self._handout, self._endings)
        self._reunion = Reunion(floor, self._completion, self._handout, self._endings)

    # The start

    def expect(self, node: Key, pool: Key) -> None:
        """Before the start: the API server calls this node ready, so its pool waits to hear of it."""
        room = self._floor.room(pool)
        room.awaited.add(node[1])
        self._floor.room_of_node[node] = room

    def start(self, forgotten: Iterable[tuple[LiveTask, Sequence[range]]] = ()) -> None:
        """Everything that the API server and the disk know is in: go to work. `forgotten` are calls that had
        ended, and whose outcomes are lost."""
        self._floor.started = True
        for live, spans in forgotten:
            for calls in spans:
                self._endings.forgotten(live, calls)
        for room in list(self._floor.rooms.values()):
            room.closed = False
            self._reunion.give_up(room)
            self._admit_all(room)

    # Pools and tasks

    def pool_changed(self, key: Key, view: PoolView | None) -> None:
        """A pool appeared, changed, or is gone (None)."""
        room = self._floor.room(key)
        room.view = view
        if view is None or view.deleting:
            end = End(TaskPhase.CANCELLED, TaskReason.POOL_DELETED, f"pool {key[1]} was deleted")
            for live in list(room.tasks.values()):
                self._completion.stop(live, end)
            self._floor.sweep(room)
            return
        room.scheduler.quorum = decide.quorum(view)
        if self._floor.started:
            self._admit_all(room)

    def node_phase(self, node: Key, phase: str | None) -> None:
        """A node's phase by the API server; None when the object is gone. Who left is not awaited."""
        room = self._floor.room_of_node.get(node)
        if room is not None and phase not in (NodePhase.READY, NodePhase.DRAINING):
            if self._floor.started and node[1] in room.awaited:
                self._reunion.give_up(room, node[1])
            self._heard_of(room, node[1])

    def add(self, live: LiveTask) -> None:
        """A task begins to live."""
        self._floor.ledger.add(live)
        room = self._floor.room_of(live)
        room.tasks[live.work.uid] = live
        if not self._floor.started:
            room.remember(live)
        self._admission.arm(live)
        self._floor.costs.watch(live)
        if live.open is not None:
            self.reception.await_caller(live)
        self._recorder.watch(live)
        self._admit(room, live)

    def changed(self, live: LiveTask, work: Work) -> None:
        """The task's spec is another one now."""
        before, live.work = live.work, work
        if live.ending is not None:
            return
        if work.cancel or work.deleting:
            self._completion.stop(live, End(TaskPhase.CANCELLED, TaskReason.CANCELLED, "cancelled"))
            return
        room = self._floor.room_of(live)
        reordered = (work.priority, work.parallelism) != (before.priority, before.parallelism)
        if live.submitted and (work.suspend or reordered):
            room.scheduler.forget(work.uid)
            live.submitted = False
        if work.queue_seconds != before.queue_seconds:
            self._admission.arm_queue(live)
        if work.run_seconds != before.run_seconds:
            for attempt in live.flights:
                self._floor.sender.limit(live, attempt)
                self._endings.guard(live, attempt)
        self._admit(room, live)

    def removed(self, live: LiveTask) -> None:
        """The object is gone: stop what runs, and say nothing more."""
        live.gone = True
        self._recorder.forget(live)
        end = End(TaskPhase.CANCELLED, TaskReason.CANCELLED, "the Task was deleted")
        self._completion.stop(live, end)

    def payload_progressed(self, live: LiveTask) -> None:
        """The gateway receives the payload."""
        self._admission.payload_progressed(live)

    def payload_arrived(self, live: LiveTask) -> None:
        """The gateway has the payload now."""
        self._admit(self._floor.room_of(live), live)

    # Nodes

    def node_ready(self, node: ReadyNode) -> None:
        """A node answers (again), and this is what its agent holds."""
        room = self._reunion.meet(node)
        self.reception.streaming.rejoin(room, node.name)
        self._limit_again(room, node.name)
        self._heard_of(room, node.name)
        self._handout.hand_out(room)

    def _limit_again(self, room: Room, node: str) -> None:
        """Limits that were changed while a node did not answer."""
        for live in room.tasks.values():
            if live.work.generation > 1:
                for attempt in live.flights:
                    if attempt.node == node:
                        self._floor.sender.limit(live, attempt)

    def node_lost(self, namespace: str, name: str, reason: str) -> None:
        """A node is gone, with all that ran on it."""
        room = self._floor.room_of_node.pop((namespace, name), None)
        if room is None:
            return
        flights = room.scheduler.remove_node(name)
        room.leave(name)
        for flight in flights:
            live = self._floor.ledger.get(flight.uid)
            attempt = live.flights.get(flight.index) if live is not None else None
            if live is not None and attempt is not None:
                self._endings.lost(live, attempt, f"node {name}", reason)
        self._reunion.give_up(room, name)
        self._heard_of(room, name)
        self._handout.hand_out(room)
        self._floor.sweep(room)

    def node_cordoned(self, namespace: str, name: str) -> None:
        """A node gets no more calls: what has not begun there is called back and goes to others."""
        room = self._floor.room_of_node.get((namespace, name))
        if room is None:
            return
        room.cordon(name)
        room.scheduler.pause_node(name)
        for uid, index in room.scheduler.in_flight(name):
            live = self._floor.ledger.get(uid)
            attempt = live.flights.get(index) if live is not None else None
            if live is not None and attempt is not None and live.ending is None:
                attempt.recalled = True
                self._floor.sender.recall(live, attempt)
        self._handout.hand_out(room)

    def busy(self, namespace: str, name: str) -> bool:
        """Whether a node has calls, or results that are not durable yet. Looks at all tasks of its pool."""
        room = self._floor.room_of_node.get((namespace, name))
        if room is None:
            return False
        if name in room.awaited or name in room.remembered or room.scheduler.in_flight(name):
            return True
        return any(node == name for live in room.tasks.values() for node, _ in live.unacknowledged)

    def started(self, namespace: str, node: str, header: Mapping[str, Any]) -> None:
        """A STARTED frame."""
        live, attempt = self._floor.find(str(header["attempt"]), node)
        if live is not None and attempt is not None and attempt.started is None:
            self._endings.started(live, attempt, float(header["time"]))

    def log(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes) -> None:
        """A LOG frame."""
        name = str(header["attempt"])
        live, attempt = self._floor.find(name, node)
        if live is None:
            self._floor.logs.decline(namespace, node, header, body)
            return
        if attempt is None:  # it has ended: the agent sends what was not written down before a restart
            _, index, number = parse_attempt(name)
            attempt = Attempt(name, index, number, node, self._floor.rank_of(live, node), self._floor.now())
        self._floor.logs.write(live.work, attempt, header, body)

    def streamed(self, namespace: str, node: str, frame: Frame) -> None:
        """An ITEM or NEED frame."""
        live, attempt = self._floor.find(str(frame.header["attempt"]), node)
        if live is not None and attempt is not None:
            self.reception.streaming.from_node(live, attempt, frame)

    def announced(self, namespace: str, node: str, header: Mapping[str, Any]) -> bool:
        """A large RESULT waits at the agent: whether it is wanted."""
        name = str(header["attempt"])
        live, attempt = self._floor.find(name, node)
        if live is None:
            self._floor.sender.acknowledge(namespace, node, [name])
            return False
        if attempt is not None:  # the rest of its slice goes on meanwhile
            self._floor.part(self._floor.room_of(live), live, attempt, attempt.index)
        return attempt is not None or (node, name) not in live.unacknowledged

    def stalled(self, namespace: str, node: str, attempt: str, trouble: str | None) -> None:
        """A large RESULT does not come, or comes again."""
        live, _ = self._floor.find(attempt, node)
        if live is not None:
            live.results.trouble = trouble

    def result(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes | Received) -> None:
        """A RESULT or REFUSED frame."""
        try:
            self._result(namespace, node, header, body)
        finally:
            if isinstance(body, Received) and not body.taken:
                drop(body)

    def _result(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes | Received) -> None:
        name = str(header["attempt"])
        live, attempt = self._floor.find(name, node)
        if live is None:
            # Its task has ended and says so, or does not exist: the agent may forget it.
            if not header.get("refused"):
                self._floor.sender.acknowledge(namespace, node, [name])
            return
        room = self._floor.room_of(live)
        if header.get("refused"):
            self._refused(room, live, node, header)
        elif (node, name) in live.unacknowledged:
            return  # it came again before it was durable
        elif isinstance(body, bytes) and "count" in header:
            self._batches.ended(live, node, header, body)
        elif attempt is not None:
            self._endings.ended(live, self._floor.part(room, live, attempt, attempt.index), header, body)
        else:
            self._endings.unexpected(live, name, node, header, body)
        self._handout.hand_out(room)

    def _refused(self, room: Room, live: LiveTask, node: str, header: Mapping[str, Any]) -> None:
        _, first, number = parse_attempt(str(header["attempt"]))
        last = first + int(header.get("count", 1)) - 1
        if header.get("reason") == RefusalReason.RETURNED:
            for each in live.flights.within(first, last):
                if (each.node, each.number) == (node, number):
                    pieces = self._floor.cut(room, live, each, first, last + 1)
                    self._refusals.returned(live, next(piece for piece in pieces if piece.index >= first))
        elif (attempt := live.flights.get(first)) is not None and attempt.node == node:
            self._refusals.refused(live, attempt, header)

    # Between

    def _admit(self, room: Room, live: LiveTask) -> None:
        if self._floor.started:
            self._admission.admit(room, live)
            self._handout.hand_out(room)

    def _admit_all(self, room: Room) -> None:
        for live in list(room.tasks.values()):
            self._admission.admit(room, live)
        self._handout.hand_out(room)

    def _heard_of(self, room: Room, node: str) -> None:
        if node in room.awaited:
            room.awaited.discard(node)
            if self._floor.started and room.open:
                self._admit_all(room)

    def _refresh(self, live: LiveTask) -> None:
        self._admission.explain(self._floor.room_of(live), live)
