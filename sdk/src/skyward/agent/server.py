"""The agent itself: one operator at a time, attempts in, results out, nothing lost in between.

The newest connection that says HELLO with an epoch at least as high as any before is the operator; an older
connection is closed. PING is answered to anybody who may open the socket and takes nothing over. What the
operator sends is checked: a frame that makes no sense is refused and the agent lives on; a byte stream that
is no sequence of frames costs the connection.
"""

import asyncio
import contextlib
import logging
import os
import platform
import signal
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyward.agent import sockets
from skyward.agent.arrivals import Arrivals
from skyward.agent.attempts import Attempt
from skyward.agent.blobs import Blobs
from skyward.agent.checks import checked_call, refused, seconds
from skyward.agent.connection import Connection
from skyward.agent.facts import facts, visible_gpus
from skyward.agent.health import Health
from skyward.agent.link import Outbox
from skyward.agent.metadata import MetadataWatch
from skyward.agent.output import Output
from skyward.agent.process import WorkerPlan
from skyward.agent.slices import Slice
from skyward.agent.slots import Slots
from skyward.agent.spool import Spool
from skyward.wire.bundle import bundle_digest
from skyward.wire.digest import digest, is_digest
from skyward.wire.envelopes import (
    ILLNESS,
    INTERRUPTION,
    PROTOCOL,
    Executor,
    RefusalReason,
    attempt_id,
    parse_attempt,
)
from skyward.wire.errors import FrameError
from skyward.wire.frames import Frame, FrameKind

_FUNCTION_BYTES = 256 * 1024 * 1024
_STOP_GRACE = 5.0

log = logging.getLogger("skyward.agent")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an agent is started with."""

    home: Path
    socket: Path
    slots: int
    executor: Executor = "process"
    reuse: bool = True


class Agent:
    """All parts of the agent of one node."""

    def __init__(self, settings: Settings) -> None:
        home = settings.home
        self.settings = settings
        self.boot_id = uuid.uuid4().hex
        self.connections: set[Connection] = set()
        self.outbox = Outbox(Output(self._hold))
        self._facts = facts()
        self._operator: Connection | None = None
        self._epoch = _read_epoch(home)
        self._spool = Spool(home / "spool")
        self._blobs = Blobs(home / "blobs")
        self._arrivals = Arrivals(self._blobs, self.outbox.send, self._act_later, self._read)
        self._functions: OrderedDict[str, bytes] = OrderedDict()
        self._stopping = False
        self._stopped = asyncio.Event()
        work = home / "work"
        work.mkdir(parents=True, exist_ok=True)
        threads = settings.slots if settings.executor == "thread" else 1
        workers = 1 if settings.executor == "thread" else settings.slots
        plan = WorkerPlan(work, self._spool.folder, threads, workers, visible_gpus(self._facts, os.environ))
        self._slots = Slots(plan, self, reuse=settings.reuse)
        self._metadata = MetadataWatch(self._machine_is_taken)
        self._health = Health(work, lambda ill: self.notice(ILLNESS, ill))

    async def run(self, listening: Callable[[], None]) -> None:
        """Serve until STOP or SIGTERM; `listening` is called once the socket accepts connections."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop, False, _STOP_GRACE)
        loop.add_signal_handler(signal.SIGINT, self._stop, False, _STOP_GRACE)
        listener = sockets.listen(self.settings.socket)
        server = await loop.create_unix_server(lambda: Connection(self), sock=listener)
        log.info("listening on %s, %d slots, %s", self.settings.socket, self._slots.size, self.boot_id)
        listening()
        workers = asyncio.create_task(self._slots.run())
        workers.add_done_callback(lambda _: self._stopped.set())
        try:
            await self._stopped.wait()
        finally:
            server.close()
            self._metadata.stop()
            self._health.stop()
            self.settings.socket.unlink(missing_ok=True)
            self._slots.kill()
            await _end(workers)
            for connection in list(self.connections):
                connection.transport.close()
            self._spool.close()
            log.info("stopped")

    def receive(self, connection: Connection, frame: Frame) -> None:
        """Act on one frame."""
        try:
            if frame.kind is FrameKind.PING:
                connection.reply(FrameKind.PONG, self._pong(frame.header))
            elif frame.kind is FrameKind.HELLO:
                self._hello(connection, frame.header)
            elif connection is not self._operator:
                raise FrameError(f"{frame.kind.name} before HELLO")
            else:
                self._act(frame)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, FrameError):
                raise
            log.warning("a %s frame of %s makes no sense: %r", frame.kind.name, connection.name, error)
            attempt = str(frame.header.get("attempt", ""))
            message = f"a {frame.kind.name} frame makes no sense: {error!r}"
            connection.reply(FrameKind.REFUSED, refused(attempt, RefusalReason.MALFORMED, message))

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """A connection is over. If it was the operator's, results and logs wait for the next."""
        if connection is self._operator:
            log.info("%s is gone%s", connection.name, f": {error}" if error else "")
            self._operator = None
            self.outbox.detach()
            self._arrivals.forget()

    def started(self, attempt: Attempt) -> None:
        """slots.Listener"""
        assert attempt.worker is not None  # noqa: S101
        header = {
            "attempt": attempt.id,
            "pid": attempt.worker.pid,
            "time": attempt.started,
            "worker": attempt.worker.index,
        }
        self.outbox.send_soon(Frame(FrameKind.STARTED, header))

    def output(self, attempt: str, stream: str, data: bytes) -> None:
        """slots.Listener"""
        self.outbox.log(attempt, stream, data)

    def streamed(self, frame: Frame) -> None:
        """slots.Listener"""
        self.outbox.send(frame)

    def finished(self, attempt: Attempt, header: dict[str, Any], body: bytes, file: str | None) -> None:
        """slots.Listener"""
        record = self._spool.add(header, body, self._spool.folder / file if file else None)
        self.outbox.finish_logs(_names(header))
        if file is None:
            # With more calls here nobody waits for this one result: those of a moment share a packet.
            self.outbox.send_encoded(record, soon=self._slots.queued > 0)
        else:
            name = header["attempt"]
            self.outbox.stream(f"result {name}", self._spool.frames(name))
        if attempt.args_path is not None or attempt.blobs:
            self._blobs.evict(self._slots.needed_blobs())

    def returned(self, name: str, count: int) -> None:
        """slots.Listener. Where this is lost, WELCOME says by its silence that they are not here."""
        message = f"{count} from {name} on did not run and come back"
        header = {**refused(name, RefusalReason.RETURNED, message), "count": count}
        self.outbox.send(Frame(FrameKind.REFUSED, header))

    def worker_gone(self, pid: int) -> None:
        """slots.Listener"""
        self._spool.remove_strays(pid)

    def notice(self, reason: str, message: str) -> None:
        """slots.Listener"""
        self.outbox.send(Frame(FrameKind.NOTICE, {"reason": reason, "message": message}))

    def _machine_is_taken(self, left: float) -> None:
        """metadata: calls are told at once, and an operator that is not here now learns it from WELCOME."""
        self._slots.announce("preempted", left)
        message = f"the provider takes the machine back in {left:.0f} s"
        self.outbox.send(Frame(FrameKind.NOTICE, {"reason": INTERRUPTION, "message": message, "left": left}))

    def _hold(self, attempt: str, held: bool) -> None:
        self._slots.hold(attempt, held)

    def _read(self, goes_on: bool) -> None:
        """arrivals: the disk is behind, or has caught up."""
        if self._operator is not None:
            transport = self._operator.transport
            (transport.resume_reading if goes_on else transport.pause_reading)()

    def _act_later(self, frame: Frame) -> None:
        """arrivals: what this frame waited for is there, or never comes."""
        if self._operator is not None:
            self.receive(self._operator, frame)

    def _act(self, frame: Frame) -> None:
        header = frame.header
        match frame.kind:
            case FrameKind.CALL | FrameKind.CANCEL | FrameKind.LIMIT if self._arrivals.hold(frame):
                pass  # for what comes before it
            case FrameKind.CALL:
                self._call(header, bytes(frame.body))
            case FrameKind.FUNCTION:
                self._keep_function(header["digest"], bytes(frame.body))
            case FrameKind.BLOB:
                self._arrivals.put(header, frame.body)
            case FrameKind.CANCEL:
                attempt = self._slots.find(header["attempt"])
                if attempt is not None and header.get("rest"):
                    self._slots.give_back(attempt)
                elif attempt is not None:
                    self._slots.end(attempt, "cancelled", seconds(header.get("grace")))
            case FrameKind.LIMIT:
                if (attempt := self._slots.find(header["attempt"])) is not None:
                    self._slots.limit(attempt, seconds(header["timeout"]))
            case FrameKind.CREDIT | FrameKind.INPUT:
                self._slots.pass_on(frame)
            case FrameKind.ACK:
                self._spool.acknowledge(header["attempts"])
                for name in header["attempts"]:
                    self.outbox.end_stream(f"fetch {name}")
            case FrameKind.FETCH:
                name, offset = str(header["attempt"]), max(0, int(header["offset"]))
                pieces = self._spool.pieces(name, offset, int(header["fetch"]))
                self.outbox.stream(f"fetch {name}", pieces)
            case FrameKind.LOGGED:
                self.outbox.written_down({str(name): int(end) for name, end in header["attempts"].items()})
            case FrameKind.LEAVING:
                self._slots.announce(str(header["reason"]), seconds(header["left"]) or 0.0)
            case FrameKind.WATCH:
                self._health.watch(header, bytes(frame.body))
            case FrameKind.STOP:
                self._stop(bool(header.get("drain")), seconds(header.get("grace")))
            case _:
                raise ValueError("not a frame that an operator sends")

    def _hello(self, connection: Connection, header: dict[str, Any]) -> None:
        operator, epoch = str(header["operator"]), int(header["epoch"])
        if header["protocol"] != PROTOCOL:
            message = f"this agent speaks protocol {PROTOCOL}, not {header['protocol']}"
            self._turn_away(connection, RefusalReason.PROTOCOL, message)
        elif epoch < self._epoch:
            message = f"operator {operator} has epoch {epoch}; this agent has already obeyed {self._epoch}"
            self._turn_away(connection, RefusalReason.STALE_EPOCH, message)
        else:
            largest = header.get("largest_result")
            self._slots.largest_result = None if largest is None else int(largest)
            self._take_over(connection, operator, epoch)
            if (metadata := header.get("metadata")) is not None:
                self._metadata.ask(metadata)

    def _turn_away(self, connection: Connection, reason: RefusalReason, message: str) -> None:
        log.warning("HELLO refused: %s", message)
        connection.reply(FrameKind.REFUSED, refused("", reason, message))
        connection.transport.close()

    def _take_over(self, connection: Connection, operator: str, epoch: int) -> None:
        previous = self._operator
        if previous is not None and previous is not connection:
            log.warning("%s is replaced by operator %s", previous.name, operator)
            self._arrivals.forget()
            previous.transport.close()
        connection.name = f"operator {operator} (epoch {epoch})"
        log.info("%s is connected", connection.name)
        if epoch != self._epoch:
            self._epoch = epoch
            (self.settings.home / "epoch").write_text(f"{epoch}\n")
        self._operator = connection
        self.outbox.attach(connection.transport)
        self.outbox.send(Frame(FrameKind.WELCOME, self._welcome()))
        self.outbox.flush_logs()
        for attempt in self._spool.held():
            self.outbox.stream(f"result {attempt}", self._spool.frames(attempt))

    def _welcome(self) -> dict[str, Any]:
        running = [_held(name, "running", count) for name, count in self._slots.held()]
        done = [_held(name, "done", self._spool.count(name)) for name in self._spool.held()]
        left = self._metadata.left
        return {
            **({} if left is None else {"left": left}),
            "watch": self._health.digest,
            "ill": self._health.ill,
            "protocol": PROTOCOL,
            "agent": bundle_digest()[:12],
            "boot_id": self.boot_id,
            "bundle": bundle_digest(),
            "python": platform.python_version(),
            "slots": self._slots.size,
            "executor": self.settings.executor,
            "facts": self._facts,
            "held": running + done,
            "functions": list(self._functions),
            "blobs": self._blobs.held(),
        }

    def _pong(self, header: dict[str, Any]) -> dict[str, Any]:
        return {
            "t": header.get("t", 0),
            "load": os.getloadavg()[0],
            "running": self._slots.running,
            "queued": self._slots.queued,
            "agent": bundle_digest()[:12],
            "boot_id": self.boot_id,
            "bundle": bundle_digest(),
            "slots": self._slots.size,
            "executor": self.settings.executor,
            "pid": os.getpid(),
        }

    def _call(self, header: dict[str, Any], body: bytes) -> None:
        name = checked_call(header, body)
        if refusal := self._refusal(name, header):
            self.outbox.send(Frame(FrameKind.REFUSED, refusal))
            return
        attempt = Slice.of(name, header, body) if "sizes" in header else Attempt(name, header, body)
        function, args = header.get("function"), header.get("args")
        if function:
            attempt.function = self._functions.get(function)
            attempt.function_path = self._blobs.path(function)
        if args:
            attempt.args_path = self._blobs.path(args)
        for blob in header.get("blobs") or ():
            if (path := self._blobs.path(blob)) is not None:
                attempt.blobs[blob] = path
        self._slots.submit(attempt)

    def _refusal(self, name: str, header: dict[str, Any]) -> dict[str, Any] | None:
        if state := self._state(name, len(header.get("sizes", "1"))):
            message = f"attempt {name} is {state} already"
            return {**refused(name, RefusalReason.DUPLICATE, message), "state": state}
        if self._stopping:
            return refused(name, RefusalReason.STOPPING, "the agent is being stopped")
        function, args = header.get("function"), header.get("args")
        if function and function not in self._functions and self._blobs.path(function) is None:
            return {
                **refused(name, RefusalReason.FUNCTION_MISSING, f"function {function} was not sent"),
                "digest": function,
            }
        for blob in [*([args] if args else []), *(header.get("blobs") or ())]:
            if self._blobs.path(blob) is None:
                unstored = self._blobs.is_stored_nowhere(blob)
                reason = RefusalReason.BLOB_NOT_STORED if unstored else RefusalReason.BLOB_MISSING
                return {**refused(name, reason, self._blobs.why_missing(blob)), "digest": blob}
        return None

    def _state(self, attempt: str, count: int) -> str | None:
        if state := self._spool.state(attempt, count):
            return state
        return "running" if self._slots.find(attempt, count) is not None else None

    def _keep_function(self, name: str, data: bytes) -> None:
        if not is_digest(name) or digest(data) != name:
            raise ValueError("the bytes of a function do not have the digest they came under")
        self._functions[name] = data
        self._functions.move_to_end(name)
        total = sum(map(len, self._functions.values()))
        while total > _FUNCTION_BYTES and len(self._functions) > 1:
            total -= len(self._functions.popitem(last=False)[1])

    def _stop(self, drain: bool, grace: float | None) -> None:
        log.info("stopping%s", " when the calls have ended" if drain else "")
        self._stopping = True
        if not drain:
            for attempt in list(self._slots.attempts.values()):
                self._slots.end(attempt, "agent stopped", _STOP_GRACE if grace is None else grace)
        self._waiter = asyncio.create_task(self._stop_when_idle())

    async def _stop_when_idle(self) -> None:
        await self._slots.idle()
        await asyncio.sleep(0)  # the last results leave with this turn of the loop
        self._stopped.set()


def _held(name: str, state: str, count: int | None) -> dict[str, Any]:
    held = {"attempt": name, "state": state}
    return held if count is None else {**held, "count": count}


def _names(header: dict[str, Any]) -> Iterator[str]:
    """The attempts whose end a RESULT tells."""
    name = header["attempt"]
    if "count" not in header:
        yield name
        return
    uid, index, number = parse_attempt(name)
    for place in range(header["count"]):
        yield attempt_id(uid, index + place, number)


def _read_epoch(home: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((home / "epoch").read_text())
    return 0


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
