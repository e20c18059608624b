"""A real agent in a process of its own, and an operator's end of its socket, for tests."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyward.agent import sockets
from skyward.wire import printed
from skyward.wire.codec import dumps, dumps_function, loads
from skyward.wire.digest import digest
from skyward.wire.envelopes import PROTOCOL, ErrorInfo, parse_attempt
from skyward.wire.frames import CHUNK, Decoder, Frame, FrameKind, encode
from skyward.wire.outcomes import Outcome as WireOutcome
from skyward.wire.outcomes import iter_outcomes

PATIENCE = 30.0


@dataclass
class Outcome:
    """A result, put together from its frames."""

    header: dict[str, Any]
    body: bytes

    @property
    def value(self) -> Any:
        return loads(self.body)

    @property
    def error(self) -> dict[str, str]:
        error: dict[str, str] = self.header["error"]
        return error


class Operator:
    """Speaks to an agent as an operator does, one step at a time."""

    def __init__(
        self, path: Path, epoch: int = 1, name: str = "test", *, hello: bool = True, **said: Any
    ) -> None:
        self.socket = sockets.connect(path, PATIENCE)
        self.frames: list[Frame] = []
        self.welcome: dict[str, Any] = {}
        self.logs: dict[str, bytearray] = {}
        self.lost: dict[str, int] = {}
        self.writes_down = True
        self._decoder = Decoder()
        self._functions: set[str] = set()
        if hello:
            self.send(FrameKind.HELLO, {"protocol": PROTOCOL, "operator": name, "epoch": epoch, **said})
            self.welcome = self.expect(FrameKind.WELCOME).header

    def send(self, kind: FrameKind, header: dict[str, Any], body: bytes = b"") -> None:
        self.socket.sendall(encode(Frame(kind, header, body)))

    def call(
        self, attempt: str, function: Callable[..., Any] | None = None, *args: Any, **header: Any
    ) -> None:
        full: dict[str, Any] = {"attempt": attempt, "task": "default/t", "index": 0, "number": 1, **header}
        body = b""
        if function is not None:
            data = dumps_function(function)
            full["function"] = digest(data)
            if full["function"] not in self._functions:
                self._functions.add(full["function"])
                self.send(FrameKind.FUNCTION, {"digest": full["function"]}, data)
            body = dumps((args, {})) if "args" not in header else b""
        self.send(FrameKind.CALL, full, body)

    def slice(
        self, name: str, function: Callable[..., Any] | bytes, items: Sequence[Any], **header: Any
    ) -> dict[str, Any]:
        """Send a slice whose items have one argument each; its header is given back, for another time."""
        data = function if isinstance(function, bytes) else dumps_function(function)
        bodies = [dumps(((item,), {})) for item in items]
        _, index, number = parse_attempt(name)
        full: dict[str, Any] = {
            "attempt": name,
            "task": "default/t",
            "index": index,
            "number": number,
            "function": digest(data),
            "sizes": list(map(len, bodies)),
            "context": {"id": "node-a", "rank": 3},
            **header,
        }
        self.send(FrameKind.FUNCTION, {"digest": full["function"]}, data)
        self.send(FrameKind.CALL, full, b"".join(bodies))
        return full

    def ends(self, name: str, count: int) -> "Ends":
        """How each of these items ended here, once all of them did."""
        uid, first, number = parse_attempt(name)
        ends = Ends()

        def tells(frame: Frame) -> bool:
            if frame.kind not in (FrameKind.RESULT, FrameKind.REFUSED):
                return False
            found, index, of = parse_attempt(frame.header["attempt"])
            return (found, of) == (uid, number) and first <= index < first + count

        while len(ends.outcomes) + len(ends.returned) < count:
            ends.add(self.until(tells), self)
        return ends

    def run(
        self, attempt: str, function: Callable[..., Any] | None = None, *args: Any, **header: Any
    ) -> Outcome:
        self.call(attempt, function, *args, **header)
        return self.result(attempt)

    def blob(self, data: bytes) -> str:
        name = digest(data)
        for offset in range(0, len(data), CHUNK):
            last = offset + CHUNK >= len(data)
            header = {"digest": name, "offset": offset, "size": len(data), "last": last}
            self.send(FrameKind.BLOB, header, data[offset : offset + CHUNK])
        return name

    def ack(self, *attempts: str) -> None:
        self.send(FrameKind.ACK, {"attempts": list(attempts)})

    def expect(self, kind: FrameKind, **fields: Any) -> Frame:
        """The next frame of this kind with these header fields; others wait."""

        def wanted(frame: Frame) -> bool:
            return frame.kind is kind and all(frame.header.get(key) == fields[key] for key in fields)

        return self.until(wanted)

    def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        deadline = time.monotonic() + PATIENCE
        while True:
            for position, frame in enumerate(self.frames):
                if wanted(frame):
                    return self.frames.pop(position)
            assert time.monotonic() < deadline, f"not among {self.frames}"
            self._read()

    def result(self, attempt: str) -> Outcome:
        frame = self.expect(FrameKind.RESULT, attempt=attempt)
        body = self.large(frame) if frame.header["chunked"] else bytes(frame.body)
        return Outcome(frame.header, body)

    def large(self, frame: Frame) -> bytes:
        """The body of a result that stays at the agent until it is fetched."""
        body, attempt = bytearray(), frame.header["attempt"]
        self.fetch(attempt)
        while True:
            chunk = self.expect(FrameKind.RESULT_CHUNK, attempt=attempt)
            assert chunk.header["offset"] == len(body)
            body += chunk.body
            if chunk.header["last"]:
                assert digest(body) == frame.header["digest"]
                return bytes(body)

    def fetch(self, attempt: str, offset: int = 0, number: int = 1) -> None:
        """Ask for the body of a large result."""
        self.send(FrameKind.FETCH, {"attempt": attempt, "offset": offset, "fetch": number})

    def output(self, attempt: str, text: str) -> str:
        """Read until the output of an attempt contains `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in (got := self.logs.get(attempt, bytearray()).decode()):
            assert time.monotonic() < deadline, got
            self._read()
        return got

    def ping(self) -> dict[str, Any]:
        self.send(FrameKind.PING, {"t": 1})
        return self.expect(FrameKind.PONG).header

    def closed(self) -> bool:
        """Wait until the agent has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while self._receive():
                pass
        return True

    def close(self) -> None:
        self.socket.close()

    def _read(self) -> None:
        assert self._receive(), "the agent closed the connection"

    def _receive(self) -> bool:
        data = self.socket.recv(1024 * 1024)
        for frame in self._decoder.feed(data):
            if frame.kind is FrameKind.LOG:
                name = frame.header["attempt"]
                body = printed.unpack(frame.header, bytes(frame.body))
                self.logs.setdefault(name, bytearray()).extend(body)
                self.lost[name] = self.lost.get(name, 0) + frame.header.get("lost", 0)
                if self.writes_down:
                    end = frame.header["at"] + len(body)
                    self.send(FrameKind.LOGGED, {"attempts": {name: end}})
            else:
                self.frames.append(frame)
        return bool(data)


@dataclass
class Ends:
    """What an operator hears of the items of a slice, each once."""

    outcomes: dict[int, WireOutcome] = field(default_factory=dict)
    returned: list[int] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)

    def add(self, frame: Frame, operator: Operator) -> None:
        header = frame.header
        _, index, _ = parse_attempt(header["attempt"])
        if frame.kind is FrameKind.REFUSED:
            assert header["reason"] == "Returned", header
            for each in range(index, index + header["count"]):
                self._once(each)
                self.returned.append(each)
        elif "count" in header:
            self.batches.append(header)
            assert sum(header["lengths"]) == len(frame.body)
            records = list(iter_outcomes(frame.body))
            assert [each.index for each in records] == list(range(index, index + header["count"]))
            assert [place for place, each in enumerate(records) if not each.ok] == header["failed"]
            for record in records:
                self._once(record.index)
                self.outcomes[record.index] = record
        else:
            self._once(index)
            body = operator.large(frame) if header["chunked"] else frame.body
            error = ErrorInfo.from_json(header["error"]) if "error" in header else None
            times = {"started": header["started"], "duration": header["duration"]}
            self.outcomes[index] = WireOutcome(
                index, header["ok"], body, error, attempt=header["attempt"], **times
            )

    def values(self) -> dict[int, Any]:
        """Those that returned something."""
        return {index: loads(each.body) for index, each in sorted(self.outcomes.items()) if each.ok}

    def reasons(self) -> dict[int, str]:
        """Why the others did not."""
        return {index: each.error.reason for index, each in self.outcomes.items() if each.error is not None}

    def _once(self, index: int) -> None:
        assert index not in self.outcomes, f"item {index} has two ends"
        assert index not in self.returned, f"item {index} has two ends"


@dataclass
class AgentProcess:
    """An agent that can be killed and started again on the same home."""

    home: Path
    slots: int = 1
    executor: str = "process"
    options: tuple[str, ...] = ()
    socket: Path = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.socket = self.home / "run" / "agent.sock"

    def start(self) -> "AgentProcess":
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            line = pipe.readline()
        assert line, self.log
        assert json.loads(line)["state"] == "listening"
        return self

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "skyward.agent", "--home", str(self.home), "--socket", str(self.socket)),
            *("--slots", str(self.slots), "--executor", self.executor, *self.options),
        ]

    @property
    def log(self) -> str:
        return (self.home / "agent.log").read_text()

    def kill(self) -> None:
        self.process.kill()
        self._wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self._wait()

    def _wait(self) -> None:
        self.process.wait(timeout=PATIENCE)

    def connect(self, epoch: int = 1, name: str = "test", *, hello: bool = True, **said: Any) -> Operator:
        return Operator(self.socket, epoch, name, hello=hello, **said)


@contextlib.contextmanager
def running_agent(
    home: Path, slots: int = 1, executor: str = "process", *options: str
) -> Iterator[AgentProcess]:
    """An agent for the time of the body."""
    agent = AgentProcess(home, slots, executor, options).start()
    try:
        yield agent
    finally:
        if agent.process.poll() is None:
            agent.stop()


def process_exists(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition: Callable[[], bool], pause: float = 0.01) -> None:
    """Wait for a condition that no descriptor announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, condition
        select.select([], [], [], pause)


__all__ = ["AgentProcess", "Ends", "Operator", "Outcome", "process_exists", "running_agent", "wait_until"]
