"""From the scheduler's assignments to CALL frames."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from skyward.contract.reasons import TaskPhase, TaskReason
from skyward.wire.envelopes import attempt_id
from skyward_operator.gateway.blobs import write_durably
from skyward_operator.tasks import decide
from skyward_operator.tasks.decide import End
from skyward_operator.tasks.flights import Attempt
from skyward_operator.tasks.ledger import FRESH, LiveTask, Member, write_members
from skyward_operator.tasks.payload import PayloadInvalid
from skyward_operator.tasks.ranges import Span
from skyward_operator.tasks.stealing import Stealing

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward.wire.outcomes import Outcome
    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.room import Room
    from skyward_operator.tasks.scheduler import Assignment


class Handout:
    """Sends what can be sent."""

    def __init__(self, floor: Floor, completion: Completion) -> None:
        self._floor = floor
        self._completion = completion
        self._stealing = Stealing(floor)
        self.not_again: Callable[[LiveTask, int], None]
        """What to do with a call that must not have another attempt."""
        self.outcome_lost: Callable[[LiveTask, int], None]
        """What to do with a call that had ended, and whose outcome nobody has."""
        self.settle: Callable[[LiveTask, Outcome], None]
        """What to do with the outcome of a call that does not run."""
        floor.on_change = self.hand_out

    def hand_out(self, room: Room) -> None:
        """Send all calls of a pool that have a slot now."""
        again = room.open and self._floor.context.leadership.is_leader
        while again and (assignments := room.scheduler.assign()):
            again = False
            broadcasts: dict[str, list[Attempt]] = {}
            for assignment in assignments:
                live = self._floor.ledger.get(assignment.uid)
                last = assignment.index + assignment.count - 1
                if live is None or live.any_ended(assignment.index, last):
                    room.scheduler.release(assignment.uid, assignment.index)
                    if live is not None:
                        for span in live.without_end(assignment.index, last):
                            self.requeue(room, live, span)
                    again = True
                    continue
                if live.open is not None and live.open.has_begun(assignment.index):
                    room.scheduler.release(assignment.uid, assignment.index)
                    self.not_again(live, assignment.index)
                    again = True
                    continue
                if live.open is not None and assignment.index in live.open.counted:
                    self.outcome_lost(live, assignment.index)
                    again = True
                    continue
                attempt = self._board(room, live, assignment)
                if live.work.broadcast and not live.members:
                    broadcasts.setdefault(assignment.uid, []).append(attempt)
                elif not self._send(room, live, attempt):
                    again = True
            for uid, attempts in broadcasts.items():
                self._freeze(room, uid, attempts)
        self._stealing.look(room)

    def requeue(self, room: Room, live: LiveTask, span: Span) -> None:
        """Calls with the same history wait again: one of a broadcast with a queue timeout on its own rank
        only."""
        work, index = live.work, span.first
        if not live.submitted or live.ending is not None:
            return
        if live.open is not None and index not in live.open.calls:
            return  # its client has to send it again first
        if live.members and work.queue_seconds is not None:
            room.scheduler.requeue(work.uid, index, rank=live.members[index].rank)
        else:
            room.scheduler.requeue(work.uid, index, span.count, rank=work.rank)

    def _board(self, room: Room, live: LiveTask, assignment: Assignment) -> Attempt:
        index, count = assignment.index, assignment.count
        number = live.past.get(index, FRESH).number + 1
        name = attempt_id(live.work.uid, index, number)
        known = room.nodes[assignment.node].node
        attempt = Attempt(name, index, number, known.name, known.rank, self._floor.now(), boot=known.boot_id)
        attempt.count = attempt.size = count
        live.flights.add(attempt)
        return attempt

    def _send(self, room: Room, live: LiveTask, attempt: Attempt) -> bool:
        """Send an attempt that is on board; False when it got off again and others may have its slot."""
        end: End | None = None
        if (failed := self._floor.payloads.failed(live.work, attempt.index)) is not None:
            self._floor.disembark(room, live, attempt)
            self.settle(live, failed)
            return False
        python, node = live.work.python, room.nodes[attempt.node].node
        if python and node.python and not decide.same_python(python, node.python):
            end = decide.node_mismatch(
                python, node.name, node.python, room.view.python if room.view else None
            )
        else:
            try:
                if self._floor.sender.send(room, live, attempt):
                    # in the same turn of the loop as the frame, which leaves with the next
                    self._floor.journal.sent(live, attempt)
                    attempt.heard = self._floor.context.clock.monotonic()
                    live.attempts += attempt.count
                    live.nodes.add(attempt.node)
                    live.started = live.started or attempt.sent
                    return True
            except PayloadInvalid as error:
                end = End(TaskPhase.FAILED, TaskReason.PAYLOAD_INVALID, str(error))
        self._floor.disembark(room, live, attempt)
        if end is not None:
            self._completion.stop(live, end)
        else:
            # No link for the moment: the node takes part again when it answers.
            room.scheduler.pause_node(attempt.node)
            self.requeue(room, live, Span(attempt.index, attempt.count))
        return False

    def _freeze(self, room: Room, uid: str, attempts: list[Attempt]) -> None:
        """A broadcast begins: its members are durable before the first of them hears of it."""
        live = self._floor.ledger.get(uid)
        if live is None:
            return
        nodes = [room.nodes[attempt.node].node for attempt in attempts]
        live.members = tuple(Member(node.name, node.rank, node.address) for node in nodes)
        live.total = len(live.members)
        job = self._send_frozen(room, live, attempts)
        self._floor.context.supervisor.spawn(f"broadcast {live.work.name}", job)

    async def _send_frozen(self, room: Room, live: LiveTask, attempts: list[Attempt]) -> None:
        path = self._floor.blobs.members(live.work.namespace, live.work.uid)
        try:
            await asyncio.to_thread(write_durably, path, write_members(live.members))
        except OSError as error:
            text = f"the members of the broadcast cannot be stored: {error.strerror or error}"
            self._completion.stop(live, End(TaskPhase.FAILED, TaskReason.INTERNAL_ERROR, text))
        else:
            keeping = self._floor.custody.keep_members(live)
            self._floor.context.supervisor.spawn(f"members of {live.work.name}", keeping)
        for attempt in attempts:
            if not live.flights.holds(attempt):
                continue  # its node was lost meanwhile
            if live.ending is None and room.takes_calls(attempt.node):
                self._send(room, live, attempt)
            else:
                self._floor.disembark(room, live, attempt)
                self.requeue(room, live, Span(attempt.index))
        self._completion.complete_if_done(live)
        self.hand_out(room)
