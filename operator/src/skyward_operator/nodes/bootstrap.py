"""Runs `bootstrap.sh` on a machine and follows it, line by line."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from skyward_operator.nodes.verdict import judge

if TYPE_CHECKING:
    import asyncssh

    from skyward_operator.nodes.image import Plan
    from skyward_operator.nodes.observation import Failure

logger = logging.getLogger(__name__)

COMMAND = (
    "exec bash -c 'umask 077; cd && rm -rf .skyward/inbox && mkdir -p .skyward/inbox"
    " && tar -xf - -C .skyward/inbox && exec bash .skyward/inbox/bootstrap.sh'"
)
KEPT_LINES = 200
LINE_BYTES = 4096
UPLOAD_SECONDS = 120.0
SHORT_SECONDS = 30.0


class Watcher(Protocol):
    """Who is told how a bootstrap goes."""

    def step(self, name: str) -> None:
        """A step begins."""
        ...

    def line(self, text: str) -> None:
        """A line of output."""
        ...


class BootstrapFailed(Exception):
    """The machine could not be made a node."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(slots=True)
class Transcript:
    """What a bootstrap has said so far."""

    watcher: Watcher
    step: str = "upload"
    kind: str = "transient"
    message: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    facts: dict[str, str] = field(default_factory=dict)

    def take(self, text: str) -> None:
        """One line, be it a marker or output."""
        self.watcher.line(text)
        marker, _, rest = text.partition(" ")
        match marker:
            case "::step":
                self.step = rest
                self.lines.clear()
                self.watcher.step(rest)
            case "::fail":
                self.step, self.kind, self.message = (*rest.split(" ", 2), "", "", "")[:3]
            case "::fact":
                name, _, value = rest.partition(" ")
                self.facts[name] = value
            case "::done":
                pass
            case _:
                self.lines.append(text)

    def failure(self, status: str) -> Failure:
        """Why it failed."""
        return judge(self.step, self.kind, self.message or f"it ended with {status}", list(self.lines))


async def bootstrap(connection: asyncssh.SSHClientConnection, plan: Plan, watcher: Watcher) -> dict[str, str]:
    """Make the machine a node. Returns the facts; raises BootstrapFailed, or a connection error.

    The caller bounds the time: a step may be silent for as long as a download takes.
    """
    transcript = Transcript(watcher)
    async with connection.create_process(COMMAND, encoding=None) as process:
        sending = asyncio.create_task(send(process, plan.archive))
        try:
            await follow(process, transcript)
            completed = await process.wait()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    if completed.exit_status is None:
        raise ConnectionError("the connection was lost during the bootstrap")
    if completed.exit_status != 0:
        signal = completed.exit_signal[0] if completed.exit_signal else None
        raise BootstrapFailed(
            transcript.failure(f"signal {signal}" if signal else f"status {completed.exit_status}")
        )
    return transcript.facts


async def send(process: asyncssh.SSHClientProcess[bytes], data: bytes) -> None:
    """Write the archive to the machine's `tar`; its exit status says whether all of it arrived."""
    async with asyncio.timeout(UPLOAD_SECONDS):
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.write_eof()


async def follow(process: asyncssh.SSHClientProcess[bytes], transcript: Transcript) -> None:
    """Read lines until the output ends; a line without end is cut."""
    rest = b""
    while data := await process.stdout.read(64 * 1024):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            transcript.take(line[:LINE_BYTES].decode(errors="replace").rstrip("\r"))
        rest = rest[-LINE_BYTES:]
    if rest:
        transcript.take(rest.decode(errors="replace"))


async def agent_socket(connection: asyncssh.SSHClientConnection) -> str | None:
    """Where the agent of an earlier bootstrap listens, or None if there was none."""
    answer = await run(connection, "cat .skyward/socket")
    return answer.strip() or None


async def start_agent(connection: asyncssh.SSHClientConnection) -> None:
    """Start the agent of an earlier bootstrap, unless it runs. Raises ConnectionError if that fails."""
    await run(connection, ".skyward/start-agent </dev/null", required=True)


async def run(connection: asyncssh.SSHClientConnection, command: str, *, required: bool = False) -> str:
    """The output of a short command in the home folder."""
    async with asyncio.timeout(SHORT_SECONDS):
        done = await connection.run(f"exec sh -c 'cd && {command}'", encoding="utf-8", errors="replace")
    if required and done.exit_status != 0:
        raise ConnectionError(f"{command} failed with {done.exit_status}: {str(done.stderr)[-500:]}")
    return str(done.stdout or "")
