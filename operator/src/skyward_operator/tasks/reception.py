"""What the client of an open task says, and what becomes of it: calls, cancels, acknowledgements, absences.

An outcome is told to the client at once. It is durable when the client has acknowledged it, or when it was
written to the task's file, which happens to what the client leaves for a moment; the agent keeps it until
then. So a call costs no write of the disk unless its client is slow or away.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from skyward.contract import ranges
from skyward.contract.reasons import TaskPhase, TaskReason
from skyward.wire.digest import is_digest
from skyward.wire.envelopes import ErrorInfo, FailureReason, RefusalReason
from skyward.wire.frames import Frame, FrameKind
from skyward.wire.options import CallOptions
from skyward.wire.outcomes import Outcome
from skyward_operator.nodes.received import Received
from skyward_operator.tasks.decide import End
from skyward_operator.tasks.open import AWAY_SECONDS, MOST_CALLS, Caller, OpenCall, OpenCalls, Untaken
from skyward_operator.tasks.ranges import Span
from skyward_operator.tasks.streaming import Streaming
from skyward_operator.tasks.work import own_terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.tasks.completion import Completion
    from skyward_operator.tasks.endings import Endings
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.handout import Handout
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.work import Terms

_STORE_SECONDS: Final = 0.5
REPLACED: Final = 4001
MALFORMED: Final = 1008


class Reception:
    """Serves the clients of open tasks."""

    def __init__(self, floor: Floor, completion: Completion, handout: Handout, endings: Endings) -> None:
        self._floor = floor
        self._completion = completion
        self._handout = handout
        self._endings = endings
        self.streaming = Streaming(floor)
        endings.keep_open = self.ended

    # The client comes and goes

    def await_caller(self, live: LiveTask) -> None:
        """Nobody is connected: wait for a client, but not for ever."""
        state = _open(live)
        state.absences += 1
        absence = state.absences
        self._floor.later(live, AWAY_SECONDS, lambda: self._away_too_long(live, absence))

    def attach(self, live: LiveTask, caller: Caller, hello: Mapping[str, Any]) -> None:
        """A client is here. What it has had the outcome of is settled, whatever this process has seen."""
        state = _open(live)
        count = _number(hello, "next")
        waited = _indexes(hello.get("open"), count)
        if sum(map(len, waited)) > MOST_CALLS:
            raise ValueError(f"more than {MOST_CALLS} calls are said to be under way")
        failed = _indexes(hello.get("failed"), count)
        if state.caller is not None:
            state.caller.end(REPLACED, "another connection of the same task has taken its place")
        state.caller = caller
        state.begin_again()
        state.absences += 1
        live.total = max(live.total, count)
        begin = 0
        for span in [*waited, range(count, count)]:
            if begin < span.start:
                _add_settled(live, begin, span.start - 1, failed)
            begin = span.stop
        state.counted = {call: each for call, each in state.counted.items() if not live.has_ended(call)}
        for attempt in live.flights:
            if live.has_ended(attempt.index):
                self._floor.disembark(self._floor.room_of(live), live, attempt)
        known = [index for index in state.untaken if index < count and not ranges.contains(waited, index)]
        self._acknowledge(live, known)
        caller.send(Frame(FrameKind.WELCOME, {"task": live.work.name}))

    def detach(self, live: LiveTask, caller: Caller) -> None:
        """A client is gone."""
        state = _open(live)
        if state.caller is caller:
            state.caller = None
            if not live.completing:
                self.await_caller(live)

    # What it says

    def receive(self, live: LiveTask, frame: Frame) -> None:
        """A frame of the client. Raises KeyError, TypeError or ValueError for one that makes no sense."""
        header, state = frame.header, _open(live)
        match frame.kind:
            case FrameKind.FUNCTION:
                state.keep_function(str(header["digest"]), state.body_of(frame))
            case FrameKind.BLOB:
                state.keep_piece(bytes(frame.body))
            case FrameKind.CALL:
                self._call(live, _index(header), _open_call(header, state.body_of(frame)))
            case FrameKind.CREDIT | FrameKind.INPUT:
                self._stream(live, _index(header), frame)
            case FrameKind.CANCEL:
                self._cancel(live, _index(header))
            case FrameKind.ACK:
                self._acknowledge(live, header["indexes"])
            case FrameKind.CLOSE:
                state.closed = True
                live.total = max(live.total, _number(header, "next"))
                self._completion.complete_if_done(live)
            case _:
                raise ValueError(f"a client does not send {frame.kind.name}")

    def heard(self, live: LiveTask) -> None:
        """All frames of a message were received: hand out what they brought."""
        self._handout.hand_out(self._floor.room_of(live))

    # What becomes of calls

    def ended(
        self, live: LiveTask, outcome: Outcome, body: bytes | Received, source: tuple[str, str] | None
    ) -> None:
        """A call has its outcome: tell the client. One that came as a file is told from there."""
        state = _open(live)
        self._floor.journal.settled(live, outcome.index, outcome.number)
        state.drop(outcome.index)
        if isinstance(body, Received):
            untaken = Untaken(outcome, source, self._floor.now(), stored=True)
            state.untaken[outcome.index] = untaken
            if live.results.add(outcome, body, self._stored(live, untaken)):
                self._drain(live)
            self._tell_stored(live, outcome.index)
            return
        whole = replace(outcome, body=body)
        state.untaken[outcome.index] = Untaken(whole, source, self._floor.now())
        if state.caller is not None:
            state.caller.outcome(whole)
        if not state.storing:
            state.storing = True
            self._floor.later(live, _STORE_SECONDS, lambda: self._store(live))

    def _call(self, live: LiveTask, index: int, call: OpenCall) -> None:
        state = _open(live)
        if live.ending is not None:
            return  # the client hears of the end by the task itself
        if (untaken := state.untaken.get(index)) is not None and state.caller is not None:
            self._tell_again(live, untaken)
        elif live.has_ended(index):
            self._tell_stored(live, index)
        elif index not in state.calls:
            try:
                state.add(index, call)
            except KeyError:
                self._refuse(state, index, RefusalReason.FUNCTION_MISSING, "its function was not sent")
                return
            live.total = max(live.total, index + 1)
            if live.submitted and live.flights.get(index) is None and index not in live.delayed:
                self._handout.requeue(self._floor.room_of(live), live, Span(index))

    def _stream(self, live: LiveTask, index: int, frame: Frame) -> None:
        if frame.header.get("close") and live.flights.get(index) is None:
            self._cancel(live, index)  # nobody would read what it yields
        else:
            self.streaming.from_client(live, index, frame)

    def _cancel(self, live: LiveTask, index: int) -> None:
        state = _open(live)
        call = state.calls.get(index)
        if call is None or live.has_ended(index):
            return
        call.cancelled = True
        attempt = live.flights.get(index)
        if attempt is not None:
            self._floor.sender.cancel(live, attempt)
            return
        live.delayed.discard(index)
        self._endings.settle(live, _failed(index, FailureReason.CANCELLED, "cancelled before it ran"))

    def _acknowledge(self, live: LiveTask, indexes: Sequence[int]) -> None:
        state = _open(live)
        by_node: dict[str, list[str]] = {}
        for index in indexes:
            untaken = state.untaken.pop(index, None)
            if untaken is not None and untaken.source in live.unacknowledged:
                del live.unacknowledged[untaken.source]
                by_node.setdefault(untaken.source[0], []).append(untaken.source[1])
        for node, attempts in by_node.items():
            self._floor.sender.acknowledge(live.work.namespace, node, attempts)
        self._completion.complete_if_done(live)

    def _store(self, live: LiveTask) -> None:
        """Write down what the client has left for a moment, and look again while there is anything."""
        state, now, starting = _open(live), self._floor.now(), False
        for untaken in state.untaken.values():
            if not untaken.stored and now - untaken.since >= _STORE_SECONDS:
                untaken.stored = True
                bare = replace(untaken.outcome, body=b"")
                done = self._stored(live, untaken)
                starting |= live.results.add(bare, untaken.outcome.body, done)
        if starting:
            self._drain(live)
        state.storing = any(not untaken.stored for untaken in state.untaken.values())
        if state.storing:
            self._floor.later(live, _STORE_SECONDS, lambda: self._store(live))

    def _drain(self, live: LiveTask) -> None:
        name = f"results of task {live.work.name}"
        self._floor.context.supervisor.spawn(name, live.results.drain())

    def _stored(self, live: LiveTask, untaken: Untaken) -> Any:
        def done() -> None:
            untaken.outcome = replace(untaken.outcome, body=b"")
            source = untaken.source
            if source is not None and live.unacknowledged.pop(source, None) is not None:
                self._floor.sender.acknowledge(live.work.namespace, source[0], [source[1]])

        return done

    def _tell_again(self, live: LiveTask, untaken: Untaken) -> None:
        state = _open(live)
        if untaken.stored:
            self._tell_stored(live, untaken.outcome.index)
        elif state.caller is not None:
            state.caller.outcome(untaken.outcome)

    def _tell_stored(self, live: LiveTask, index: int) -> None:
        """Tell the client of an outcome that is in the file."""

        async def tell() -> None:
            await live.results.flushed()
            found = await live.results.find(index)
            state = _open(live)
            if found is None:
                words = "it has ended, and its outcome was told to another client"
                found = _failed(index, TaskReason.INDETERMINATE, words)
            state.untaken.setdefault(index, Untaken(replace(found, body=b""), None, 0.0, stored=True))
            if state.caller is not None:
                state.caller.outcome(found)

        self._floor.context.supervisor.spawn(f"result {index} of task {live.work.name}", tell())

    def _refuse(self, state: OpenCalls, index: int, reason: RefusalReason, words: str) -> None:
        if state.caller is not None:
            header = {"index": index, "reason": str(reason), "message": words}
            state.caller.send(Frame(FrameKind.REFUSED, header))

    def _away_too_long(self, live: LiveTask, absence: int) -> None:
        state = _open(live)
        if state.caller is None and state.absences == absence:
            text = f"its client was not connected for {AWAY_SECONDS:.0f} s"
            self._completion.stop(live, End(TaskPhase.CANCELLED, TaskReason.CALLER_GONE, text))


def _open(live: LiveTask) -> OpenCalls:
    if live.open is None:
        raise ValueError(f"task {live.work.name} is not open")
    return live.open


def _open_call(header: Mapping[str, Any], arguments: bytes) -> OpenCall:
    inputs = header.get("inputs", 0)
    if not isinstance(inputs, int) or inputs < 0:
        raise ValueError(f"{inputs!r} is no number of inputs")
    return OpenCall(
        str(header["function"]),
        arguments,
        _digest(header),
        stream=bool(header.get("stream")),
        inputs=inputs,
        begun=bool(header.get("begun")),
        terms=_terms(header),
    )


def _terms(header: Mapping[str, Any]) -> Terms | None:
    options = header.get("options")
    if options is None:
        return None
    if not isinstance(options, list) or not all(isinstance(each, int) and each >= 0 for each in options):
        raise ValueError(f"{options!r} are no options of a call")
    return own_terms(CallOptions(*options))


def _digest(header: Mapping[str, Any]) -> str | None:
    digest = header.get("args")
    if digest is not None and not is_digest(digest):
        raise ValueError(f"{digest!r} is no digest of arguments")
    return digest


def _index(header: Mapping[str, Any]) -> int:
    return _number(header, "index")


def _number(header: Mapping[str, Any], name: str) -> int:
    number = header[name]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**53:
        raise ValueError(f"{name}: {number!r} is no number of a call")
    return number


def _indexes(text: object, count: int) -> tuple[range, ...]:
    found = ranges.spans(text if isinstance(text, str) else None)
    if found and found[-1].stop > count:
        raise ValueError(f"call {found[-1].stop - 1} of {count}")
    return found


def _add_settled(live: LiveTask, first: int, last: int, failed: Sequence[range]) -> None:
    """Calls that the client has the outcomes of: failed ones, and between them those that returned."""
    begin = first
    # There may be many of both: each call of this looks only at the failed ones that are its own.
    for place in range(bisect_left(failed, first, key=lambda span: span.stop - 1), len(failed)):
        span = failed[place]
        if span.start > last:
            break
        if begin < span.start:
            _add_new(live, begin, span.start - 1, ok=True)
        _add_new(live, max(first, span.start), min(last, span.stop - 1), ok=False)
        begin = span.stop
    if begin <= last:
        _add_new(live, begin, last, ok=True)


def _add_new(live: LiveTask, first: int, last: int, *, ok: bool) -> None:
    (live.succeeded if ok else live.failed).add_range(first, last)


def _failed(index: int, reason: str, words: str) -> Outcome:
    error = ErrorInfo(type=str(reason), message=words, kind="System", reason=str(reason))
    return Outcome(index, False, b"", error)
