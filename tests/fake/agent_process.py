"""A real agent in a process of its own, and an operator's end of its socket, for tests."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyward.agent import sockets
from skyward.wire.codec import dumps, dumps_function, loads
from skyward.wire.digest import digest
from skyward.wire.envelopes import PROTOCOL
from skyward.wire.frames import CHUNK, Decoder, Frame, FrameKind, encode

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
        if not frame.header["chunked"]:
            return Outcome(frame.header, bytes(frame.body))
        body = bytearray()
        self.fetch(attempt)
        while True:
            chunk = self.expect(FrameKind.RESULT_CHUNK, attempt=attempt)
            assert chunk.header["offset"] == len(body)
            body += chunk.body
            if chunk.header["last"]:
                assert digest(body) == frame.header["digest"]
                return Outcome(frame.header, bytes(body))

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
                self.logs.setdefault(name, bytearray()).extend(frame.body)
                self.lost[name] = self.lost.get(name, 0) + frame.header.get("lost", 0)
                if self.writes_down:
                    end = frame.header["at"] + len(frame.body)
                    self.send(FrameKind.LOGGED, {"attempts": {name: end}})
            else:
                self.frames.append(frame)
        return bool(data)


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


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that no descriptor announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, condition
        select.select([], [], [], 0.01)


__all__ = ["AgentProcess", "Operator", "Outcome", "process_exists", "running_agent", "wait_until"]
