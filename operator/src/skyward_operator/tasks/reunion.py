"""What the agents hold, against what the ledger says: after a start of the operator and after each break of
a link.

An attempt that both know goes on. One that only the agent has is adopted, if its task still waits for it,
else ended. One that only the ledger has was lost on the way and is sent again under its own name, which the
agent refuses if it arrived after all; if the agent was started again meanwhile, it was lost with the old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward.wire.envelopes import parse_attempt
from skyward_operator.tasks.ledger import Attempt, LiveTask

if TYPE_CHECKING:
    from skyward_operator.nodes.fleet import ReadyNode
    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.endings import Endings
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.room import Room


class Reunion:
    """Brings ledger and agents together."""

    def __init__(self, floor: Floor, completion: Completion, endings: Endings) -> None:
        self._floor = floor
        self._completion = completion
        self._endings = endings

    def meet(self, node: ReadyNode) -> Room:
        """A node answers (again)."""
        room = self._floor.room((node.namespace, node.pool))
        before = room.nodes.get(node.name)
        self._floor.room_of_node[node.namespace, node.name] = room
        room.join(node)
        room.scheduler.add_node(node.name, node.rank, node.slots)
        if node.draining:
            room.scheduler.pause_node(node.name)
        restarted = before is not None and before.node.boot_id != node.boot_id
        for live, index in _remembered(room, node.name):
            room.scheduler.adopt(live.work.uid, index, node.name)
        for uid, index in room.scheduler.in_flight(node.name):
            self._check(room, uid, index, node, restarted)
        for held, state in node.held.items():
            self._place(room, node, held, state)
        return room

    def give_up(self, room: Room, node: str | None = None) -> None:
        """What an earlier operator had sent to this node is lost with it. Without a node: what it had sent
        to any node that is neither there nor awaited."""
        for live in list(room.tasks.values()):
            for index, attempt in list(live.flights.items()):
                known = attempt.node in room.nodes or attempt.node in room.awaited
                if node == attempt.node if node is not None else not known:
                    room.scheduler.release(live.work.uid, index)
                    self._endings.lost(live, index, f"node {attempt.node}", "NodeLost")

    def _check(self, room: Room, uid: str, index: int, node: ReadyNode, restarted: bool) -> None:
        live = self._floor.ledger.get(uid)
        attempt = live.flights.get(index) if live is not None else None
        if live is None or attempt is None:
            room.scheduler.release(uid, index)
        elif attempt.id in node.held:
            return
        elif restarted or attempt.boot not in ("", node.boot_id):
            room.scheduler.release(uid, index)
            self._endings.lost(live, index, f"the agent on {node.name}", "AgentRestarted")
        elif live.ending is not None:
            self._floor.disembark(room, live, attempt)
            self._completion.complete_if_done(live)
        elif live.open is not None and index not in live.open.calls:
            self._floor.disembark(room, live, attempt)  # its client brings it again
        else:
            self._floor.sender.send(room, live, attempt)

    def _place(self, room: Room, node: ReadyNode, held: str, state: str) -> None:
        try:
            uid, index, number = parse_attempt(held)
        except ValueError:
            return
        live = self._floor.ledger.get(uid)
        attempt = live.flights.get(index) if live is not None else None
        if live is not None and attempt is not None and (attempt.id, attempt.node) == (held, node.name):
            if live.ending is not None and state == "running":
                self._floor.sender.cancel(live, attempt)
        elif live is not None and attempt is None and _wants(live, index):
            self._adopt(room, live, Attempt(held, index, number, node.name, node.rank, self._floor.now()))
        elif state == "running":
            self._floor.sender.cancel_stray(node.namespace, node.name, held)
        elif live is None or (live.has_ended(index) and (node.name, held) not in live.unacknowledged):
            self._floor.sender.acknowledge(node.namespace, node.name, [held])

    def _adopt(self, room: Room, live: LiveTask, attempt: Attempt) -> None:
        live.flights[attempt.index] = attempt
        if attempt.number > live.numbers.get(attempt.index, 0):
            live.numbers[attempt.index] = attempt.number
            live.attempts += 1
        live.nodes.add(attempt.node)
        live.started = live.started or attempt.sent
        room.scheduler.adopt(live.work.uid, attempt.index, attempt.node)


def _remembered(room: Room, node: str) -> list[tuple[LiveTask, int]]:
    """Attempts on a node that an earlier operator sent: they are in the ledger, and not in the scheduler."""
    return [
        (live, index)
        for live in room.tasks.values()
        for index, attempt in live.flights.items()
        if attempt.node == node and room.scheduler.node_of(live.work.uid, index) is None
    ]


def _wants(live: LiveTask, index: int) -> bool:
    """Whether a task that has not been submitted yet can take over an attempt at this call."""
    if live.submitted or live.ending is not None or live.has_ended(index):
        return False
    return live.open is not None or index < live.total
