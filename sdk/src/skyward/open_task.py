"""The client's half of an open task: the calls that have no outcome yet, and how they come by one.

This side is the source of truth. A call is kept here, with its bytes, until its outcome is; after a break the
next connection begins with what is still waited for, and the operator answers what it knows and runs the
rest. So an outcome is never lost, and a call is never run again because a connection broke.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol

from skyward.cluster.channel import Channel
from skyward.contract import ranges
from skyward.errors import ArgumentTooLarge, GatewayError, SkywardError
from skyward.functions import PendingFunction
from skyward.manifest import Call
from skyward.packing import pack_arguments, pack_function
from skyward.results import task_error
from skyward.session import Session
from skyward.tasks import TaskHandle
from skyward.wire.digest import digest
from skyward.wire.envelopes import PROTOCOL, ErrorInfo, RefusalReason
from skyward.wire.frames import CHUNK, MAX_BODY, Frame, FrameKind
from skyward.wire.options import CallOptions
from skyward.wire.package import Outcome

MOST_SENT = 4096
"""Calls that the operator holds for one task; those after them wait here."""
BYTES_SENT = 32 * 1024 * 1024
CALL_LIMIT = 32 * 1024 * 1024
"""What the pickled function of one call may take, and its arguments: they lie in the operator's memory."""
_FEW = 4
_ACK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class PackedCall:
    """A function and the arguments of one call of it, pickled."""

    function: bytes
    arguments: bytes
    digest: str
    arguments_digest: str | None = None
    """Of arguments that travel in pieces: their node checks it."""
    options: CallOptions | None = None
    """How it runs, where that differs from what the Task says."""

    @classmethod
    def of(
        cls, pending: PendingFunction[Any], function: bytes | None = None, position: int | None = None
    ) -> "PackedCall":
        """Pickle a call, or its arguments only where the `function` is pickled already.

        Raises NotPicklable or ArgumentTooLarge for what cannot be sent.
        """
        data = pack_function(pending) if function is None else function
        arguments = pack_arguments(pending, position)
        if max(len(arguments), len(data)) > CALL_LIMIT:
            raise ArgumentTooLarge(
                f"the function and arguments of {pending.name}() take {len(data) + len(arguments):,} bytes; "
                f"a call of an executor, or that yields or pulls, may take {CALL_LIMIT:,} bytes for each",
                remedy="send it with >> or pool.map() and a list, which take any size, or give the data to "
                "the function item by item: as an iterator, for a parameter that is annotated as one",
            )
        return cls(data, arguments, digest(data), digest(arguments) if len(arguments) > MAX_BODY else None)


class Flow(Protocol):
    """The streams of a call, at this end."""

    def begin(self, index: int, send: Callable[[Frame], None]) -> None:
        """The call has an index, and a way to say something about it."""

    def traits(self) -> dict[str, Any]:
        """What the CALL says of its streams."""

    def again(self) -> Frame:
        """What follows the CALL on a new connection."""

    def receive(self, frame: Frame) -> None:
        """An ITEM or NEED frame."""


type Ended = Callable[[Outcome | SkywardError], None]
"""Told once, with the outcome of a call or with why there is none."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call without an outcome."""

    packed: PackedCall
    ended: Ended
    flow: Flow | None = None
    sent: bool = False
    cancelled: bool = False
    header: dict[str, Any] | None = None
    body: bytearray = field(default_factory=bytearray)
    """The pieces of a large result, and what they belong to."""


class OpenTask:
    """One Task of the session that takes calls for as long as it is open. Implements `channel.Peer`."""

    def __init__(self, session: Session, handle: TaskHandle, terms: Call) -> None:
        where = f"/v1/namespaces/{session.namespace}/tasks/{handle.name}/session"
        self.handle = handle
        self.terms = terms
        """How its calls run, unless one says otherwise."""
        self.held = 0
        """Bytes of the calls that have no outcome."""
        self.channel = Channel(session.gateway, where, self)
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        """Notified when calls end."""
        self._calls: dict[int, _Call] = {}
        self._unsent: deque[int] = deque()
        self._next = 0
        self._sent = 0
        self._sent_calls = 0
        self._sent_bytes = 0
        self._failed: list[int] = []
        self._known: set[str] = set()
        self._acks: list[int] = []
        self._ack_timer: threading.Timer | None = None
        self._closing = self._close_sent = False
        self._over: SkywardError | None = None
        handle.opened(self)
        handle.when_finished(self._task_ended)
        self.channel.start()

    @property
    def failure(self) -> SkywardError | None:
        """Why no further call can be made, if the task has ended."""
        return self._over

    @property
    def waiting(self) -> int:
        """Calls without an outcome."""
        return len(self._calls)

    def call(self, packed: PackedCall, ended: Ended, flow: Flow | None = None) -> int:
        """Have a call run; returns its index. Raises why not, once the task has ended."""
        with self._lock:
            if self._over is not None:
                raise self._over
            index, self._next = self._next, self._next + 1
            if flow is not None:
                flow.begin(index, lambda frame: self.channel.send([frame], at_once=True))
            self._calls[index] = _Call(packed, ended, flow)
            self.held += len(packed.arguments)
            self._unsent.append(index)
            frames = list(self._ready())
            at_once = len(self._calls) <= _FEW
        if frames:
            self.channel.send(frames, at_once=at_once)
        return index

    def cancel(self, index: int) -> None:
        """Stop a call, or have it never begin; it ends in any case."""
        with self._lock:
            call = self._calls.get(index)
            if call is None or call.cancelled:
                return
            call.cancelled = True
            sent = call.sent
        if sent:
            self.channel.send([Frame(FrameKind.CANCEL, {"index": index})], at_once=False)

    def close(self) -> None:
        """No further call follows: the Task ends when the last one has."""
        with self._lock:
            self._closing = True
            frames = [*self._acknowledgements(), *self._ready()]
        self.channel.send(frames, at_once=True)

    # channel.Peer

    def greeting(self) -> Iterator[Frame]:
        """Who this is, what it still waits for, and everything that is under way, once more."""
        with self._lock:
            self._known.clear()
            self._acks.clear()
            self._close_sent = False
            under_way = [(index, call) for index, call in sorted(self._calls.items()) if call.sent]
            hello = {
                "protocol": PROTOCOL,
                "next": self._sent,
                "open": ranges.encode(index for index, _ in under_way),
                "failed": ranges.encode(self._failed),
            }
            frames = [Frame(FrameKind.HELLO, hello)]
            for index, call in under_way:
                call.header = None
                call.body.clear()
                frames += self._frames(index, call)
                if call.flow is not None:
                    frames.append(call.flow.again())
            frames += self._ready()
        return iter(frames)

    def receive(self, frame: Frame) -> None:
        """What the operator says."""
        match frame.kind:
            case FrameKind.RESULT:
                self._result(frame.header, bytes(frame.body))
            case FrameKind.RESULT_CHUNK:
                self._piece(frame.header, bytes(frame.body))
            case FrameKind.ITEM | FrameKind.NEED:
                call = self._calls.get(frame.header["index"])
                if call is not None and call.flow is not None:
                    call.flow.receive(frame)
            case FrameKind.REFUSED:
                self._refused(frame.header)

    def received(self) -> None:
        """Outcomes have made room for further calls."""
        with self._lock:
            frames = list(self._ready())
            if self._acks and (frames or self._closing):
                frames = [*self._acknowledgements(), *frames]
            elif self._acks and self._ack_timer is None:
                self._ack_timer = threading.Timer(_ACK_SECONDS, self._acknowledge_soon)
                self._ack_timer.daemon = True
                self._ack_timer.start()
        if frames:
            self.channel.send(frames, at_once=True)

    def refused(self, words: str) -> None:
        """The gateway has no session for this task."""
        self._end(
            GatewayError(
                f"the operator's gateway has no session for task {self.handle.name}: {words}",
                task=self.handle.name,
                remedy="install the same version of skyward here and for the operator, and start again",
            )
        )

    def broken(self, words: str) -> bool:
        """Nothing comes through, over one connection after the other: whoever waits for calls hears that."""
        if not self._calls:
            return False
        self._end(
            GatewayError(
                f"the calls of task {self.handle.name} do not get through, or their results do not: {words}",
                task=self.handle.name,
                remedy="see what ends connections on the way to the operator, such as a proxy or an ingress",
            )
        )
        return True

    # calls out

    def _ready(self) -> Iterator[Frame]:
        """The calls that may be sent now, and the end behind the last one."""
        while self._unsent and self._sent_calls < MOST_SENT and self._sent_bytes < BYTES_SENT:
            index = self._unsent.popleft()
            call = self._calls[index]
            call.sent = True
            self._sent = index + 1
            self._sent_calls += 1
            self._sent_bytes += len(call.packed.arguments)
            yield from self._frames(index, call)
        if self._closing and not self._unsent and not self._close_sent:
            self._close_sent = True
            yield Frame(FrameKind.CLOSE, {"next": self._next})

    def _frames(self, index: int, call: _Call) -> Iterator[Frame]:
        if call.packed.digest not in self._known:
            self._known.add(call.packed.digest)
            yield from _in_pieces(FrameKind.FUNCTION, {"digest": call.packed.digest}, call.packed.function)
        traits = call.flow.traits() if call.flow is not None else {}
        header = {"index": index, "function": call.packed.digest, **traits}
        if call.packed.arguments_digest is not None:
            header["args"] = call.packed.arguments_digest
        if call.packed.options is not None:
            header["options"] = list(astuple(call.packed.options))
        yield from _in_pieces(FrameKind.CALL, header, call.packed.arguments)
        if call.cancelled:
            yield Frame(FrameKind.CANCEL, {"index": index})

    def _acknowledgements(self) -> Iterator[Frame]:
        acks, self._acks = self._acks, []
        if acks:
            yield Frame(FrameKind.ACK, {"indexes": acks})

    def _acknowledge_soon(self) -> None:
        with self._lock:
            self._ack_timer = None
            frames = list(self._acknowledgements())
        self.channel.send(frames, at_once=True)

    # outcomes in

    def _result(self, header: dict[str, Any], body: bytes) -> None:
        if not header["chunked"]:
            self._outcome(header, body)
            return
        with self._lock:
            if (call := self._calls.get(header["index"])) is not None:
                call.header = header
                call.body.clear()

    def _piece(self, header: dict[str, Any], body: bytes) -> None:
        call = self._calls.get(header["index"])
        if call is None or call.header is None or header["offset"] != len(call.body):
            return
        call.body += body
        if len(call.body) == call.header["size"]:
            self._outcome(call.header, bytes(call.body))

    def _outcome(self, header: dict[str, Any], body: bytes) -> None:
        index = header["index"]
        with self._lock:
            self._acks.append(index)
            call = self._calls.pop(index, None)
            if call is None:
                return
            self._sent_calls -= 1
            self._sent_bytes -= len(call.packed.arguments)
            self.held -= len(call.packed.arguments)
            if not header["ok"]:
                self._failed.append(index)
            self.changed.notify_all()
        error = header.get("error")
        call.ended(
            Outcome(
                index,
                header["ok"],
                body,
                None if error is None else ErrorInfo.from_json(error),
                header["node"],
                header["rank"],
                header["attempt"],
            )
        )

    def _refused(self, header: dict[str, Any]) -> None:
        if header["reason"] != RefusalReason.FUNCTION_MISSING:
            return
        with self._lock:
            call = self._calls.get(header["index"])
            if call is None:
                return
            self._known.discard(call.packed.digest)
            frames = list(self._frames(header["index"], call))
        self.channel.send(frames, at_once=True)

    # the end

    def _task_ended(self) -> None:
        try:
            task = self.handle.final()
        except SkywardError as error:
            self._end(error)
        else:
            self._end(task_error(task))

    def _end(self, error: SkywardError) -> None:
        with self._lock:
            if self._over is not None:
                return
            self._over = error
            left, self._calls = list(self._calls.values()), {}
            self._unsent.clear()
            self.changed.notify_all()
        self.channel.close()
        for call in left:
            call.ended(error)


def _in_pieces(kind: FrameKind, header: dict[str, Any], body: bytes) -> Iterator[Frame]:
    """A frame, and before it the pieces of a body that is too large for it."""
    if len(body) <= MAX_BODY:
        yield Frame(kind, header, body)
        return
    view = memoryview(body)
    for start in range(0, len(body), CHUNK):
        yield Frame(FrameKind.BLOB, {}, view[start : start + CHUNK])
    yield Frame(kind, {**header, "pieces": len(body)})
