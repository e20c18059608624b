"""What becomes of calls that an agent does not take, or gives back: nothing of them ran there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import TaskPhase, TaskReason
from skyward.wire.envelopes import RefusalReason
from skyward_operator.tasks import decide
from skyward_operator.tasks.decide import End
from skyward_operator.tasks.endings import outcome_of
from skyward_operator.tasks.payload import PayloadInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.endings import Endings
    from skyward_operator.tasks.flights import Attempt
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.handout import Handout
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.room import Room

_MOST_REFUSALS: Final = 3


class Refusals:
    """Takes the refusals of agents."""

    def __init__(self, floor: Floor, completion: Completion, handout: Handout, endings: Endings) -> None:
        self._floor = floor
        self._completion = completion
        self._handout = handout
        self._endings = endings

    def refused(self, live: LiveTask, attempt: Attempt, header: Mapping[str, Any]) -> None:
        """The agent did not take the call: nothing ran, or it is running already."""
        reason, room = header.get("reason"), self._floor.room_of(live)
        if reason == RefusalReason.DUPLICATE:
            # One that it has ends with its result; one that was acknowledged has ended, and no result comes.
            if header.get("state") == "acknowledged":
                self._endings.lost(live, attempt, f"the result on {attempt.node}", "ResultLost")
            return
        attempt.refusals += 1
        known = room.nodes.get(attempt.node)
        missing = reason in (RefusalReason.FUNCTION_MISSING, RefusalReason.BLOB_MISSING)
        if missing and known is not None and live.ending is None and attempt.refusals <= _MOST_REFUSALS:
            known.functions.clear()
            self._send_again(room, live, attempt)
            return
        if reason == RefusalReason.STOPPING:
            room.scheduler.pause_node(attempt.node)
            self.returned(live, attempt)
            return
        self._floor.disembark(room, live, attempt)
        if live.ending is not None:
            self._completion.complete_if_done(live)
            return
        text = f"{attempt.node} refused the call: {header.get('message') or reason}"
        is_full = reason == RefusalReason.BLOB_NOT_STORED
        why = TaskReason.ARGUMENTS_NOT_STORED if is_full else TaskReason.PAYLOAD_INVALID
        error = decide.system_error(why, text)
        self._floor.trace(live, attempt, error.reason)
        for index in range(attempt.index, attempt.last + 1):
            self._endings.settle(live, outcome_of(attempt.piece(index), error, attempt.sent, 0.0))

    def returned(self, live: LiveTask, attempt: Attempt) -> None:
        """The agent gives an attempt back of which nothing ran: it is handed out again as it was."""
        self._floor.disembark(self._floor.room_of(live), live, attempt)
        self._floor.journal.returned(live, attempt)
        live.attempts -= attempt.count
        if live.ending is not None:
            self._completion.complete_if_done(live)
            return
        for span in live.without_end(attempt.index, attempt.last):
            for alike, _ in list(live.alike(span)):
                self._handout.requeue(self._floor.room_of(live), live, alike)

    def _send_again(self, room: Room, live: LiveTask, attempt: Attempt) -> None:
        try:
            self._floor.sender.send(room, live, attempt)
        except PayloadInvalid as error:
            self._completion.stop(live, End(TaskPhase.FAILED, TaskReason.PAYLOAD_INVALID, str(error)))
