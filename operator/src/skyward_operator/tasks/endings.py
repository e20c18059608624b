"""What becomes of a call when its attempt ended, was lost, refused, or overran: an outcome or another try."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import TaskReason
from skyward.wire.envelopes import INTERRUPTED, ErrorInfo, FailureReason, attempt_id, parse_attempt
from skyward.wire.outcomes import Outcome, pack_outcomes
from skyward_operator.tasks import decide
from skyward_operator.tasks.decide import Retried
from skyward_operator.tasks.flights import Attempt
from skyward_operator.tasks.ledger import FRESH, Failure, LiveTask, Past, Receipt
from skyward_operator.tasks.ranges import Span
from skyward_operator.tasks.record import INLINE_RESULT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skyward_operator.nodes.received import Received
    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.handout import Handout
    from skyward_operator.tasks.room import Room

logger = logging.getLogger(__name__)

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
        handout.outcome_lost = self.outcome_lost
        handout.settle = self.settle
        self.keep_open: Callable[[LiveTask, Outcome, bytes | Received, tuple[str, str] | None], None]
        """What to do with an outcome of an open task."""

    def started(self, live: LiveTask, attempt: Attempt, time: float) -> None:
        """The call left the agent's queue: its run timeout counts from here, there and with a margin here."""
        attempt.started = time = decide.placed(time, 0.0, attempt.sent, self._floor.now())
        live.started = min(live.started or time, time)
        attempt.heard = self._floor.context.clock.monotonic()
        self.guard(live, attempt)

    def guard(self, live: LiveTask, attempt: Attempt) -> None:
        """Give up an attempt that has started, if its agent does not stop it by the limit that it has now."""
        limit = self._run_seconds(live, attempt)
        if attempt.started is None or attempt.heard is None or not limit:
            return
        patience = limit + live.work.grace_seconds + _OVERRUN_MARGIN_SECONDS
        left = max(0.0, patience + attempt.heard - self._floor.context.clock.monotonic())
        self._floor.later(live, left, lambda: self._overrun(live, attempt, limit, patience))

    def _run_seconds(self, live: LiveTask, attempt: Attempt) -> int | None:
        return self._floor.payloads.terms(live, attempt.index).run_seconds

    def ended(
        self,
        live: LiveTask,
        attempt: Attempt,
        header: Mapping[str, Any],
        body: bytes | Received,
        receipt: Receipt | None = None,
    ) -> None:
        """A RESULT of the attempt that counts, at one call; with `receipt` it came with others."""
        room = self._floor.room_of(live)
        if live.has_ended(attempt.index):
            # Another attempt at the same call was faster.
            self._floor.disembark(room, live, attempt)
            self._let_go(live, attempt, receipt)
            self._completion.complete_if_done(live)
            return
        error = None if header["ok"] else ErrorInfo.from_json(header.get("error") or {})
        if error is not None and not self.is_outcome(room, live, attempt, error):
            self._floor.costs.took(live, attempt.node, float(header.get("duration") or 0.0))
            self._let_go(live, attempt, receipt)
            return
        self._floor.disembark(room, live, attempt)
        duration = float(header.get("duration") or 0.0)
        said = float(header.get("started") or attempt.sent)
        started = decide.placed(said, duration, attempt.sent, self._floor.now())
        live.started = min(live.started or started, started)
        if error is None and "value" in header:
            live.values[attempt.index] = header["value"]
        self.paced(live, attempt.node, duration)
        self._settle(live, outcome_of(attempt, error, started, duration), body, attempt, receipt)

    def unexpected(
        self,
        live: LiveTask,
        name: str,
        node: str,
        header: Mapping[str, Any],
        body: bytes | Received,
        receipt: Receipt | None = None,
    ) -> None:
        """A RESULT of an attempt that is not known to be on that node: it had been given up too early. A
        value is a value, wherever it comes from; a failure counts only if no other attempt can follow."""
        _, index, number = parse_attempt(name)
        other = live.flights.at(index)
        wanted = (
            (live.open is not None or index < live.total)
            and not live.has_ended(index)
            and live.ending is None
        )
        attempt = Attempt(name, index, number, node, self._floor.rank_of(live, node), self._floor.now())
        if not wanted or not (header["ok"] or (other is None and not live.submitted)):
            self._let_go(live, attempt, receipt)
            return
        if other is not None and other.count == 1:  # one of several ends in its time, and counts no more then
            self._floor.sender.cancel(live, other)
        live.delayed.discard(index)
        live.nodes.add(node)
        if number > live.past.get(index, FRESH).number:
            live.attempts += 1
        self.ended(live, attempt, header, body, receipt)

    def lost(self, live: LiveTask, attempt: Attempt, where: str, cause: str) -> None:
        """An attempt is gone with its node or agent. Each call of it without an end may have begun."""
        self._floor.disembark(self._floor.room_of(live), live, attempt)
        if live.completing:
            return
        self._floor.trace(live, attempt, cause)
        if attempt.started is not None:
            self._floor.costs.took(live, attempt.node, self._floor.now() - attempt.started)
        live.interrupted += attempt.count
        if live.ending is not None:
            self._completion.complete_if_done(live)
            return
        for span in live.without_end(attempt.index, attempt.last):
            for alike, past in list(live.alike(span)):
                self._interrupted(live, attempt.piece(alike.first, alike.count), past, where, cause)
        self._completion.complete_if_done(live)

    def _interrupted(self, live: LiveTask, attempt: Attempt, past: Past, where: str, cause: str) -> None:
        """One that is gone, at calls with the same history."""
        index = attempt.index
        if live.open is not None and live.open.is_cancelled(index):
            error = decide.system_error(TaskReason.CANCELLED, f"cancelled, and {where} was lost meanwhile")
            self._settle(live, outcome_of(attempt, error, attempt.sent, 0.0), b"", None)
            return
        if live.open is not None and live.open.has_begun(index):
            self._settle(live, outcome_of(attempt, decide.broken(where, cause), attempt.sent, 0.0), b"", None)
            return
        retry = self._floor.payloads.terms(live, index).retry
        verdict = decide.interrupted(retry, past.interruptions, where, cause)
        if isinstance(verdict, Retried):
            # One text per loss, so that a node that takes a hundred calls along is one event with a count.
            self._floor.warn(live, cause, f"{where} was lost ({cause}) while a call ran; it is tried again")
            span = Span(index, attempt.count)
            live.remember(span, Past(attempt.number, past.exceptions, past.interruptions + 1))
            self._retry(live, span)
            return
        duration = self._floor.now() - attempt.sent
        for each in range(index, attempt.last + 1):
            outcome = outcome_of(attempt.piece(each), verdict.error, attempt.sent, duration)
            self._settle(live, outcome, b"", None)

    def not_again(self, live: LiveTask, index: int) -> None:
        """A call whose items have gone lost its attempt while nobody looked."""
        error = decide.broken("its node or its agent", "NodeLost")
        name = attempt_id(live.work.uid, index, max(1, live.past.get(index, FRESH).number))
        self._settle(live, Outcome(index, False, b"", error, attempt=name), b"", None)

    def outcome_lost(self, live: LiveTask, index: int) -> None:
        """A call of an open task had ended under an earlier operator, its client has not heard of it, and no
        agent keeps the outcome: its attempt is gone as with its node, and not in silence."""
        if live.open is None or (number := live.open.counted.pop(index, None)) is None:
            return
        name = attempt_id(live.work.uid, index, number)
        attempt = Attempt(name, index, number, "", 0, live.started or self._floor.now())
        live.flights.add(attempt)
        self.lost(live, attempt, "the outcome of a call", "ResultLost")

    def forgotten(self, live: LiveTask, calls: range) -> None:
        """Calls had ended, and their outcomes are lost with the disk of an operator on another machine: as if
        their node had been lost, so that they run again only where that is allowed, and not in silence."""
        sent = live.started or self._floor.now()
        for span in live.without_end(calls[0], calls[-1]):
            for alike, past in list(live.alike(span)):
                first, number = alike.first, max(1, past.number)
                name = attempt_id(live.work.uid, first, number)
                count = alike.count
                attempt = Attempt(name, first, number, "", 0, sent, count=count, size=count)
                live.flights.add(attempt)
                self.lost(live, attempt, "the disk with its result", "ResultLost")

    def is_outcome(self, room: Room, live: LiveTask, attempt: Attempt, error: ErrorInfo) -> bool:
        """Whether a failure ends its call; if not, it is tried again, or was cancelled with its task."""
        if error.reason == INTERRUPTED:
            self.lost(live, attempt, f"the worker on {attempt.node}", "WorkerStopped")
            return False
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
                self.lost(live, attempt, f"node {attempt.node}", "Drained")
            return False
        past, span = live.past.get(attempt.index, FRESH), Span(attempt.index)
        retry = self._floor.payloads.terms(live, attempt.index).retry
        verdict = decide.judge(error, retry, past.exceptions)
        if not isinstance(verdict, Retried) or live.ending is not None:
            return True
        live.remember(span, Past(attempt.number, past.exceptions + 1, past.interruptions))
        self._floor.trace(live, attempt, error.reason)
        self._floor.disembark(room, live, attempt)
        if verdict.delay > 0:
            live.delayed.add(attempt.index)
            self._floor.later(live, verdict.delay, lambda: self._retry_now(live, attempt.index))
        else:
            self._handout.requeue(room, live, span)
        return False

    def settle(self, live: LiveTask, outcome: Outcome) -> None:
        """A call has an outcome that no attempt has brought."""
        self._settle(live, outcome, b"", None)

    def _settle(
        self,
        live: LiveTask,
        outcome: Outcome,
        body: bytes | Received,
        attempt: Attempt | None,
        receipt: Receipt | None = None,
    ) -> None:
        """A call has its outcome. Its attempt is acknowledged when that is durable."""
        if live.has_ended(outcome.index):
            self._completion.complete_if_done(live)
            return
        if not outcome.attempt and (past := live.past.get(outcome.index)) is not None:
            name = attempt_id(live.work.uid, outcome.index, past.number)
            outcome = replace(outcome, attempt=name)  # it ends now, and earlier attempts have run
        live.took(outcome.duration, 1)
        if attempt is not None:
            self._floor.costs.took(live, attempt.node, outcome.duration)
        live.forget(outcome.index, outcome.index)
        live.ended = max(live.ended or 0.0, outcome.started + outcome.duration)
        (live.succeeded if outcome.ok else live.failed).add(outcome.index)
        if outcome.error is not None:
            if attempt is not None:
                self._floor.trace(live, attempt, outcome.error.reason)
            live.first_failure = live.first_failure or Failure(outcome.index, outcome.error, outcome.node)
        if receipt is not None:
            receipt.waits += 1
        elif attempt is not None:
            receipt = live.unacknowledged[attempt.node, attempt.id] = Receipt(attempt.node, attempt.id)
        if live.open is not None:
            self.keep_open(live, outcome, body, (receipt.node, receipt.name) if receipt is not None else None)
        elif not self._keep_inline(live, outcome, body) and live.results.add(
            outcome, body, self.durable(live, receipt)
        ):
            self.drain(live)
        self.after(live)

    def after(self, live: LiveTask) -> None:
        """Some calls have their outcome."""
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

    def durable(self, live: LiveTask, receipt: Receipt | None) -> Callable[[], None]:
        """What to do when something of a result is durable."""

        def done() -> None:
            if receipt is None:
                return
            receipt.waits -= 1
            key = receipt.node, receipt.name
            if receipt.waits == 0 and live.unacknowledged.pop(key, None) is not None:
                self._floor.sender.acknowledge(live.work.namespace, receipt.node, [receipt.name])

        return done

    def paced(self, live: LiveTask, node: str, seconds: float) -> None:
        """A call on this node took so long: it is sent that much work at a time."""
        if live.spreads:
            before = live.paces.get(node, seconds)
            live.paces[node] = pace = (before + seconds) / 2
            if live.in_slices:
                size = decide.slices(pace, live.largest, 0, several=True).size
                self._floor.room_of(live).scheduler.tune_node(live.work.uid, node, size)

    def drain(self, live: LiveTask) -> None:
        """Have what was added to a task's outcomes written."""
        name = f"results of task {live.work.name}"
        self._floor.context.supervisor.spawn(name, live.results.drain())

    def _let_go(self, live: LiveTask, attempt: Attempt, receipt: Receipt | None) -> None:
        """Nothing of a result is kept: the agent may forget it, unless it came with others."""
        if receipt is None:
            self._floor.sender.acknowledge(live.work.namespace, attempt.node, [attempt.id])

    def _after_one_of_many(self, live: LiveTask) -> None:
        room = self._floor.room_of(live)
        configured, several = room.view.buffer if room.view else 0, live.in_slices
        how = decide.slices(live.mean_seconds, live.largest, configured, several=several)
        room.scheduler.tune(live.work.uid, how.buffer, how.size, how.least)
        failure = live.first_failure
        if live.work.stop_on_error and failure is not None:
            end = decide.ending(failure.error, failure.index, len(live.failed), live.total)
            self._completion.stop(live, end)

    def _retry(self, live: LiveTask, span: Span) -> None:
        room, index = self._floor.room_of(live), span.first
        self._handout.requeue(room, live, span)
        wait = live.work.queue_seconds
        if live.members and wait is not None and not room.scheduler.has_rank(live.members[index].rank):
            self._floor.later(live, wait, lambda: self._member_missing(live, index, wait))

    def _retry_now(self, live: LiveTask, index: int) -> None:
        if index in live.delayed:
            live.delayed.discard(index)
            self._handout.requeue(self._floor.room_of(live), live, Span(index))

    def _member_missing(self, live: LiveTask, index: int, waited: int) -> None:
        """No node took the rank of a lost member of a broadcast in time."""
        if live.ending is not None or live.has_ended(index) or live.flights.get(index) is not None:
            return
        member = live.members[index]
        error = decide.system_error(
            TaskReason.NODE_LOST,
            f"node {member.node} (rank {member.rank}) was lost and no other one took its rank "
            f"within the queue timeout of {waited} s",
        )
        self._settle(live, Outcome(index, False, b"", error, member.node, member.rank), b"", None)

    def _overrun(self, live: LiveTask, attempt: Attempt, limit: int, patience: float) -> None:
        """The agent should have stopped this call long ago, unless it has gone on to the next one since."""
        if not live.flights.holds(attempt) or self._run_seconds(live, attempt) != limit:
            return  # a limit that was changed has a guard of its own
        waited = self._floor.context.clock.monotonic() - (attempt.heard or 0.0)
        if attempt.size > 1 and waited < patience:
            self._floor.later(live, patience - waited, lambda: self._overrun(live, attempt, limit, patience))
            return
        room = self._floor.room_of(live)
        rest, attempt = attempt, self._floor.part(room, live, attempt, attempt.index)
        text = "attempt %s overran its timeout on %s; giving it up"
        logger.warning(text, attempt.id, attempt.node, extra={"object": live.work.label})
        self._floor.sender.cancel(live, attempt)
        self._floor.disembark(room, live, attempt)
        if rest is not attempt:
            self.lost(live, rest, f"the worker on {attempt.node}", TaskReason.RUN_TIMEOUT)
        text = f"it ran longer than {limit} s, and {attempt.node} does not say that it stopped"
        error = decide.system_error(TaskReason.RUN_TIMEOUT, text)
        begun = attempt.started or attempt.sent
        self._settle(live, outcome_of(attempt, error, begun, self._floor.now() - begun), b"", attempt)


def outcome_of(attempt: Attempt, error: ErrorInfo | None, started: float, duration: float) -> Outcome:
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
