"""What the agents hold, against what the ledger says: after a start of the operator and after each break of
a link.

A slice is looked at call by call: an agent may have some of it running, some ended, and none of the rest.

An attempt that both know goes on. One that only the agent has is adopted, if its task still waits for it,
else ended. One that only the ledger has was lost on the way and is sent again under its own name, which the
agent refuses if it arrived after all; if the agent was started again meanwhile, it was lost with the old one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from skyward.wire.envelopes import parse_attempt
from skyward_operator.tasks.flights import Attempt
from skyward_operator.tasks.ledger import FRESH, LiveTask
from skyward_operator.tasks.ranges import Span

if TYPE_CHECKING:
    from skyward_operator.nodes.fleet import ReadyNode
    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.endings import Endings
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.handout import Handout
    from skyward_operator.tasks.room import Room


class Reunion:
    """Brings ledger and agents together."""

    def __init__(self, floor: Floor, completion: Completion, handout: Handout, endings: Endings) -> None:
        self._floor = floor
        self._completion = completion
        self._handout = handout
        self._endings = endings

    def meet(self, node: ReadyNode) -> Room:
        """A node answers (again)."""
        room = self._floor.room((node.namespace, node.pool))
        before = room.nodes.get(node.name)
        self._floor.room_of_node[node.namespace, node.name] = room
        room.join(node)
        room.scheduler.add_node(node.name, node.rank, node.slots, takes=not node.draining)
        restarted = before is not None and before.node.boot_id != node.boot_id
        for live, attempt in _remembered(room, node.name):
            room.scheduler.adopt(live.work.uid, attempt.index, node.name)
        held = _held(node)
        for uid, index in room.scheduler.in_flight(node.name):
            task = self._floor.ledger.get(uid)
            found = task.flights.get(index) if task is not None else None
            if task is None or found is None:
                room.scheduler.release(uid, index)
            else:
                self._check(room, task, found, node, held.get((uid, found.number), []), restarted)
        for name, state in node.held.items():
            self._place(room, node, name, state, node.counts.get(name, 1))
        return room

    def give_up(self, room: Room, node: str | None = None) -> None:
        """What an earlier operator had sent to this node is lost with it. Without a node: what it had sent
        to any node that is neither there nor awaited."""
        strangers = room.remembered.keys() - room.nodes.keys() - room.awaited
        for each in sorted(strangers) if node is None else [node]:
            for live in room.remembered.pop(each, {}).values():
                for attempt in live.flights:
                    if attempt.node == each:
                        self._endings.lost(live, attempt, f"node {each}", "NodeLost")

    def _check(
        self,
        room: Room,
        live: LiveTask,
        attempt: Attempt,
        node: ReadyNode,
        held: list[Span],
        restarted: bool,
    ) -> None:
        """One that the ledger has on the node, whose agent has these calls of its task and number."""
        borders = sorted({place for span in held for place in (span.first, span.last + 1)})
        for piece in self._floor.cut(room, live, attempt, *borders):
            piece.recalled, piece.heard = False, self._floor.context.clock.monotonic()
            if any(span.first <= piece.index <= span.last for span in held):
                continue
            if restarted or piece.boot not in ("", node.boot_id):
                self._endings.lost(live, piece, f"the agent on {node.name}", "AgentRestarted")
            elif live.ending is not None:
                self._never_arrived(room, live, piece)
                self._completion.complete_if_done(live)
            elif live.open is not None and piece.index not in live.open.calls:
                self._never_arrived(room, live, piece)  # its client brings it again
            elif node.draining:
                self._never_arrived(room, live, piece)
                self._handout.requeue(room, live, Span(piece.index, piece.count))
            else:
                self._floor.sender.send(room, live, piece)

    def _never_arrived(self, room: Room, live: LiveTask, attempt: Attempt) -> None:
        """The agent was there all the time and has nothing of it: it is as if it had not been sent."""
        self._floor.disembark(room, live, attempt)
        self._floor.journal.returned(live, attempt)
        live.attempts -= attempt.count

    def _place(self, room: Room, node: ReadyNode, held: str, state: str, count: int) -> None:
        """What the agent has: so many calls from this one on."""
        try:
            uid, first, number = parse_attempt(held)
        except ValueError:
            return
        last = first + count - 1
        live = self._floor.ledger.get(uid)
        there = live.flights.within(first, last) if live is not None else []
        mine = [each for each in there if (each.node, each.number) == (node.name, number)]
        if live is not None and mine:
            if live.ending is not None and state == "running":
                self._floor.sender.cancel(live, mine[0])
        elif live is not None and not there and (wanted := _wanted(live, first, last)):
            whole = Attempt(held, first, number, node.name, node.rank, self._floor.now(), boot=node.boot_id)
            for span in wanted:
                self._adopt(room, live, whole.piece(span.first, span.count))
        elif state == "running":
            self._floor.sender.cancel_stray(node.namespace, node.name, held)
        elif live is None or (
            not live.without_end(first, last) and (node.name, held) not in live.unacknowledged
        ):
            self._floor.sender.acknowledge(node.namespace, node.name, [held])

    def _adopt(self, room: Room, live: LiveTask, attempt: Attempt) -> None:
        attempt.size, attempt.heard = attempt.count, self._floor.context.clock.monotonic()
        live.flights.add(attempt)
        counted = live.open.counted.pop(attempt.index, 0) if live.open is not None else 0
        if attempt.number > max(counted, live.past.get(attempt.index, FRESH).number):
            live.attempts += attempt.count
        live.nodes.add(attempt.node)
        live.started = live.started or attempt.sent
        room.scheduler.adopt(live.work.uid, attempt.index, attempt.node)


def _held(node: ReadyNode) -> dict[tuple[str, int], list[Span]]:
    """The calls that the agent has, by task and number of the attempt."""
    held: dict[tuple[str, int], list[Span]] = {}
    for name in node.held:
        with suppress(ValueError):
            uid, first, number = parse_attempt(name)
            held.setdefault((uid, number), []).append(Span(first, node.counts.get(name, 1)))
    return held


def _remembered(room: Room, node: str) -> list[tuple[LiveTask, Attempt]]:
    """Attempts on a node that an earlier operator sent: they are in the ledger, and not in the scheduler."""
    return [
        (live, attempt)
        for live in room.remembered.pop(node, {}).values()
        for attempt in live.flights
        if attempt.node == node and room.scheduler.node_of(live.work.uid, attempt.index) is None
    ]


def _wanted(live: LiveTask, first: int, last: int) -> list[Span]:
    """Those of these calls at which a task that has not been submitted yet can take over an attempt."""
    if live.submitted or live.ending is not None:
        return []
    return live.without_end(first, last if live.open is not None else min(last, live.total - 1))
