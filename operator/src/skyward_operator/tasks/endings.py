"""What becomes of a call when its attempt ended, was lost, refused, or overran: an outcome or another try."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import TaskPhase, TaskReason
from skyward.wire.envelopes import ErrorInfo, FailureReason, RefusalReason, parse_attempt
from skyward.wire.outcomes import Outcome, pack_outcomes
from skyward_operator.tasks import decide
from skyward_operator.tasks.decide import End, Retried
from skyward_operator.tasks.ledger import Attempt, Failure, LiveTask
from skyward_operator.tasks.payload import PayloadInvalid
from skyward_operator.tasks.record import INLINE_RESULT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skyward_operator.nodes.received import Received
    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.handout import Handout
    from skyward_operator.tasks.room import Room

logger = logging.getLogger(__name__)

_MOST_REFUSALS: Final = 3
_CANCELLED: Final = FailureReason.CANCELLED
_OVERRUN_MARGIN_SECONDS: Final = 30.0
_RECORD_ROOM: Final = 4096
"""What the record of an outcome takes beside its body, at most, for a body to be tried inline."""


class Endings:
    """Takes the ends of attempts."""

    def __init__(self, floor: Floor, completion: Completion, handout: Handout) -> None:
        self._floor = floor
        self._completion = completion
        self._handout = handout
        handout.not_again = self.not_again
        self.keep_open: Callable[[LiveTask, Outcome, bytes | Received, tuple[str, str] | None], None]
        """What to do with an outcome of an open task."""

    def started(self, live: LiveTask, attempt: Attempt, time: float) -> None:
        """The call left the agent's queue: its run timeout counts from here, there and with a margin here."""
        attempt.started = time = decide.placed(time, 0.0, attempt.sent, self._floor.now())
        live.started = min(live.started or time, time)
        if run_seconds := self._floor.payloads.terms(live.work, attempt.index).run_seconds:
            patience = run_seconds + live.work.grace_seconds + _OVERRUN_MARGIN_SECONDS
            self._floor.later(live, patience, lambda: self._overrun(live, attempt))

    def ended(
        self, live: LiveTask, attempt: Attempt, header: Mapping[str, Any], body: bytes | Received
    ) -> None:
        """A RESULT of the attempt that counts."""
        room = self._floor.room_of(live)
        if live.has_ended(attempt.index):
            # Another attempt at the same call was faster.
            self._floor.disembark(room, live, attempt)
            self._floor.sender.acknowledge(room.namespace, attempt.node, [attempt.id])
            self._completion.complete_if_done(live)
            return
        error = None if header["ok"] else ErrorInfo.from_json(header.get("error") or {})
        if error is not None and not self._is_outcome(room, live, attempt, error):
            self._floor.sender.acknowledge(room.namespace, attempt.node, [attempt.id])
            return
        self._floor.disembark(room, live, attempt)
        duration = float(header.get("duration") or 0.0)
        said = float(header.get("started") or attempt.sent)
        started = decide.placed(said, duration, attempt.sent, self._floor.now())
        live.started = min(live.started or started, started)
        if error is None and "value" in header:
            live.values[attempt.index] = header["value"]
        self._settle(live, _outcome(attempt, error, started, duration), body, attempt)

    def unexpected(
        self, live: LiveTask, name: str, node: str, header: Mapping[str, Any], body: bytes | Received
    ) -> None:
        """A RESULT of an attempt that is not known to be on that node: it had been given up too early. A
        value is a value, wherever it comes from; a failure counts only if no other attempt can follow."""
        _, index, number = parse_attempt(name)
        other = live.flights.get(index)
        wanted = (
            (live.open is not None or index < live.total)
            and not live.has_ended(index)
            and live.ending is None
        )
        if not wanted or not (header["ok"] or (other is None and not live.submitted)):
            self._floor.sender.acknowledge(live.work.namespace, node, [name])
            return
        if other is not None:
            self._floor.sender.cancel(live, other)
        attempt = Attempt(name, index, number, node, self._floor.rank_of(live, node), self._floor.now())
        live.delayed.discard(index)
        live.nodes.add(node)
        if number > live.numbers.get(index, 0):
            live.numbers[index] = number
            live.attempts += 1
        self.ended(live, attempt, header, body)

    def lost(self, live: LiveTask, index: int, where: str, cause: str) -> None:
        """The attempt of a call is gone with its node or agent; the scheduler has let go of it already."""
        attempt = live.flights.pop(index, None)
        if attempt is None or live.completing:
            return
        self._floor.trace(live, attempt, cause)
        earlier = live.interruptions.get(index, 0)
        live.interruptions[index] = earlier + 1
        if live.ending is not None or live.has_ended(index):
            self._completion.complete_if_done(live)
            return
        if live.open is not None and live.open.is_cancelled(index):
            error = decide.system_error(TaskReason.CANCELLED, f"cancelled, and {where} was lost meanwhile")
            self._settle(live, _outcome(attempt, error, attempt.sent, 0.0), b"", None)
            return
        if live.open is not None and live.open.has_begun(index):
            self._settle(live, _outcome(attempt, decide.broken(where, cause), attempt.sent, 0.0), b"", None)
            return
        verdict = decide.interrupted(
            self._floor.payloads.terms(live.work, index).retry, earlier, where, cause
        )
        if isinstance(verdict, Retried):
            # One text per loss, so that a node that takes a hundred calls along is one event with a count.
            self._floor.warn(live, cause, f"{where} was lost ({cause}) while a call ran; it is tried again")
            self._retry(live, index)
            return
        duration = self._floor.now() - attempt.sent
        self._settle(live, _outcome(attempt, verdict.error, attempt.sent, duration), b"", None)

    def not_again(self, live: LiveTask, index: int) -> None:
        """A call whose items have gone lost its attempt while nobody looked."""
        error = decide.broken("its node or its agent", "NodeLost")
        self._settle(live, Outcome(index, False, b"", error), b"", None)

    def refused(self, live: LiveTask, attempt: Attempt, header: Mapping[str, Any]) -> None:
        """The agent did not take the call: nothing ran, or it is running already."""
        reason, room = header.get("reason"), self._floor.room_of(live)
        if reason == RefusalReason.DUPLICATE:
            # One that it has ends with its result; one that was acknowledged has ended, and no result comes.
            if header.get("state") == "acknowledged":
                room.scheduler.release(live.work.uid, attempt.index)
                self.lost(live, attempt.index, f"the result on {attempt.node}", "ResultLost")
            return
        attempt.refusals += 1
        known = room.nodes.get(attempt.node)
        missing = reason in (RefusalReason.FUNCTION_MISSING, RefusalReason.BLOB_MISSING)
        if missing and known is not None and live.ending is None and attempt.refusals <= _MOST_REFUSALS:
            known.functions.clear()
            self._send_again(room, live, attempt)
            return
        self._floor.disembark(room, live, attempt)
        if live.ending is not None:
            self._completion.complete_if_done(live)
        elif reason == RefusalReason.STOPPING:
            room.scheduler.pause_node(attempt.node)
            self._handout.requeue(room, live, attempt.index)
        else:
            text = f"{attempt.node} refused the call: {header.get('message') or reason}"
            error = decide.system_error(TaskReason.PAYLOAD_INVALID, text)
            self._settle(live, _outcome(attempt, error, attempt.sent, 0.0), b"", attempt)

    def _is_outcome(self, room: Room, live: LiveTask, attempt: Attempt, error: ErrorInfo) -> bool:
        """Whether a failure ends its call; if not, it is tried again, or was cancelled with its task."""
        if live.open is not None and live.open.is_cancelled(attempt.index):
            return True
        if live.open is not None and live.open.has_begun(attempt.index) and error.reason != _CANCELLED:
            return True
        if error.reason == _CANCELLED:
            if live.ending is not None:
                self._floor.trace(live, attempt, error.reason)
                self._floor.disembark(room, live, attempt)
                self._completion.complete_if_done(live)
            else:
                # Nobody here asked for it: the node is being released under the call.
                if live.flights.get(attempt.index) is attempt:
                    room.scheduler.release(live.work.uid, attempt.index)
                self.lost(live, attempt.index, f"node {attempt.node}", "Drained")
            return False
        earlier = live.exceptions.get(attempt.index, 0)
        verdict = decide.judge(error, self._floor.payloads.terms(live.work, attempt.index).retry, earlier)
        if not isinstance(verdict, Retried) or live.ending is not None:
            return True
        live.exceptions[attempt.index] = earlier + 1
        self._floor.trace(live, attempt, error.reason)
        self._floor.disembark(room, live, attempt)
        if verdict.delay > 0:
            live.delayed.add(attempt.index)
            self._floor.later(live, verdict.delay, lambda: self._retry_now(live, attempt.index))
        else:
            self._handout.requeue(room, live, attempt.index)
        return False

    def settle(self, live: LiveTask, outcome: Outcome) -> None:
        """A call has an outcome that no attempt has brought."""
        self._settle(live, outcome, b"", None)

    def _settle(
        self, live: LiveTask, outcome: Outcome, body: bytes | Received, attempt: Attempt | None
    ) -> None:
        """A call has its outcome. Its attempt is acknowledged when that is durable."""
        if live.has_ended(outcome.index):
            self._completion.complete_if_done(live)
            return
        live.seconds += outcome.duration
        live.timed += 1
        live.ended = max(live.ended or 0.0, outcome.started + outcome.duration)
        (live.succeeded if outcome.ok else live.failed).add(outcome.index)
        if outcome.error is not None:
            if attempt is not None:
                self._floor.trace(live, attempt, outcome.error.reason)
            live.first_failure = live.first_failure or Failure(outcome.index, outcome.error, outcome.node)
        source = (attempt.node, attempt.id) if attempt is not None else None
        if source is not None:
            live.unacknowledged[source] = None
        if live.open is not None:
            self.keep_open(live, outcome, body, source)
        elif not self._keep_inline(live, outcome, body):
            self._append(live, outcome, body, source)
        if live.total > 1 or live.open is not None:
            self._after_one_of_many(live)
        self._completion.complete_if_done(live)

    def _keep_inline(self, live: LiveTask, outcome: Outcome, body: bytes | Received) -> bool:
        """The only outcome of a task, when it is small, goes straight into its final status."""
        if live.total != 1 or not isinstance(body, bytes) or len(body) > INLINE_RESULT - _RECORD_ROOM:
            return False
        packed = pack_outcomes([replace(outcome, body=body)])
        if len(packed) <= INLINE_RESULT:
            live.outcome = packed
        return live.outcome is not None

    def _append(
        self, live: LiveTask, outcome: Outcome, body: bytes | Received, source: tuple[str, str] | None
    ) -> None:
        def durable() -> None:
            if source is not None and live.unacknowledged.pop(source, ...) is None:
                self._floor.sender.acknowledge(live.work.namespace, source[0], [source[1]])

        if live.results.add(outcome, body, durable):
            job = live.results.drain()
            self._floor.context.supervisor.spawn(f"results of task {live.work.name}", job)

    def _after_one_of_many(self, live: LiveTask) -> None:
        room = self._floor.room_of(live)
        configured = room.view.buffer if room.view else 0
        room.scheduler.tune(live.work.uid, decide.buffer_depth(live.mean_seconds, configured))
        failure = live.first_failure
        if live.work.stop_on_error and failure is not None:
            end = decide.ending(failure.error, failure.index, len(live.failed), live.total)
            self._completion.stop(live, end)

    def _retry(self, live: LiveTask, index: int) -> None:
        room = self._floor.room_of(live)
        self._handout.requeue(room, live, index)
        wait = live.work.queue_seconds
        if live.members and wait is not None and not room.scheduler.has_rank(live.members[index].rank):
            self._floor.later(live, wait, lambda: self._member_missing(live, index))

    def _retry_now(self, live: LiveTask, index: int) -> None:
        if index in live.delayed:
            live.delayed.discard(index)
            self._handout.requeue(self._floor.room_of(live), live, index)

    def _member_missing(self, live: LiveTask, index: int) -> None:
        """No node took the rank of a lost member of a broadcast in time."""
        if live.ending is not None or live.has_ended(index) or index in live.flights:
            return
        member = live.members[index]
        error = decide.system_error(
            TaskReason.NODE_LOST,
            f"node {member.node} (rank {member.rank}) was lost and no other one took its rank "
            f"within the queue timeout of {live.work.queue_seconds} s",
        )
        self._settle(live, Outcome(index, False, b"", error, member.node, member.rank), b"", None)

    def _overrun(self, live: LiveTask, attempt: Attempt) -> None:
        """The agent should have stopped this call long ago."""
        if live.flights.get(attempt.index) is not attempt:
            return
        text = "attempt %s overran its timeout on %s; giving it up"
        logger.warning(text, attempt.id, attempt.node, extra={"object": live.work.label})
        self._floor.sender.cancel(live, attempt)
        self._floor.disembark(self._floor.room_of(live), live, attempt)
        run_seconds = self._floor.payloads.terms(live.work, attempt.index).run_seconds
        text = f"it ran longer than {run_seconds} s, and {attempt.node} does not say that it stopped"
        error = decide.system_error(TaskReason.RUN_TIMEOUT, text)
        begun = attempt.started or attempt.sent
        self._settle(live, _outcome(attempt, error, begun, self._floor.now() - begun), b"", attempt)

    def _send_again(self, room: Room, live: LiveTask, attempt: Attempt) -> None:
        try:
            self._floor.sender.send(room, live, attempt)
        except PayloadInvalid as error:
            self._completion.stop(live, End(TaskPhase.FAILED, TaskReason.PAYLOAD_INVALID, str(error)))


def _outcome(attempt: Attempt, error: ErrorInfo | None, started: float, duration: float) -> Outcome:
    return Outcome(
        attempt.index,
        error is None,
        b"",
        error,
        attempt.node,
        attempt.rank,
        attempt.id,
        started,
        max(0.0, duration),
    )
