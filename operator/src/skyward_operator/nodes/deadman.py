"""The operator's end of the dead-man's switch: arms it over SSH, and beats for as long as the connection
lasts.

A machine that hears no beat for its pool's `lifetime.ttlSeconds` powers itself off; `deadman.sh` is what runs
there. Beats go over a channel of their own to a process of its own, so they come from a living operator and
from nobody else: an agent that lives on keeps no machine alive.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Protocol

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.observation import Failure
from skyward_operator.nodes.ssh import CONNECTION_ERRORS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncssh

    from skyward_operator.engine.clock import Clock

logger = logging.getLogger(__name__)

COMMAND = (
    "exec bash -c 'cd || exit 1; for word in size ttl command; do IFS= read -r $word || exit 1; done;"
    ' script=$(head -c "$size"); set -- listen "$ttl" "$command"; eval "$script"\' deadman'
)
"""Takes the sizes of what follows line by line, then the script itself: nothing of it is an argument."""
LONGEST_PERIOD = 10.0
"""Seconds between two beats, where the time to live is long."""
ANSWER_SECONDS = 30.0
AGAIN_SECONDS = 5.0
LINE_BYTES = 4096
OFF = 0


@dataclass(frozen=True, slots=True)
class Switch:
    """What a pool and a provider say about the switch of a machine."""

    ttl: Callable[[], int]
    """Seconds of silence after which the machine ends, as the pool has them now; 0: never."""
    power_off: str | None
    """What ends the machine from inside. Empty: nothing does. None: not known now, what is armed stays."""

    @property
    def is_wanted(self) -> bool:
        """Whether the machine has to have one."""
        return self.power_off != "" and self.ttl() != OFF


class SwitchFailed(Exception):
    """The machine cannot be armed; `failure` says why, and whether it is worth another try."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Watcher(Protocol):
    """Who is told how the switch is."""

    def armed(self, keeper: str, ttl: int) -> None:
        """It runs, kept by `keeper`, and this is its time to live from now on."""
        ...

    def line(self, text: str) -> None:
        """Something went wrong, and is tried again."""
        ...


class DeadMan:
    """The switch of one machine, over one connection."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, switch: Switch, watcher: Watcher, clock: Clock
    ) -> None:
        self._connection = connection
        self._switch = switch
        self._watcher = watcher
        self._clock = clock
        self._process: asyncssh.SSHClientProcess[bytes] | None = None
        self._keeper = ""
        self._told: int | None = None

    async def arm(self) -> None:
        """Have the switch run. Raises SwitchFailed, or a connection error."""
        ttl = self._switch.ttl()
        async with asyncio.timeout(ANSWER_SECONDS):
            process = self._process = await self._connection.create_process(COMMAND, encoding=None)
            process.stdin.write(opening(ttl, self._switch.power_off or ""))
            answer = await read_line(process)
        word, _, rest = answer.partition(" ")
        if word == "::armed":
            self._keeper = rest
            self._tell(ttl)
            return
        kind, _, message = rest.partition(" ")
        self._let_go()
        if word != "::failed":
            kind, message = "transient", answer or "the machine said nothing"
        text = f"the dead-man's switch cannot be armed: {message}"
        raise SwitchFailed(Failure(NodeReason.SWITCH_FAILED, text, permanent=kind == "rejected"))

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat meanwhile."""
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    async def _keep(self) -> None:
        """Beat until cancelled, and arm anew what does not answer; what goes wrong is told once."""
        told = ""
        try:
            while True:
                pause = period(self._switch.ttl())
                try:
                    if self._process is not None:
                        await self._beat(self._process)
                    elif self._switch.is_wanted:
                        await self.arm()
                    told = ""
                except (SwitchFailed, *CONNECTION_ERRORS) as error:
                    self._let_go()
                    pause = AGAIN_SECONDS
                    said = str(error) or "the dead-man's switch does not answer"
                    if said != told:
                        self._watcher.line(said)
                    told = said
                await self._clock.sleep(pause)
        finally:
            self._let_go()

    async def _beat(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        ttl = self._switch.ttl()
        async with asyncio.timeout(ANSWER_SECONDS):
            process.stdin.write(f"{ttl}\n".encode())
            answer = await read_line(process)
        if answer != "ok":
            raise ConnectionError(
                f"the dead-man's switch takes no beats: {answer or 'its process has ended'}"
            )
        self._tell(ttl)

    def _tell(self, ttl: int) -> None:
        if ttl != self._told:
            self._told = ttl
            self._watcher.armed(self._keeper, ttl)

    def _let_go(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.channel.abort()


async def read_line(process: asyncssh.SSHClientProcess[bytes]) -> str:
    """The next line that the machine says; empty once it has ended."""
    line: bytes = await process.stdout.readline()
    return line[:LINE_BYTES].decode(errors="replace").strip()


def opening(ttl: int, power_off: str) -> bytes:
    """What arms a machine over standard input: the script's size, the two values, the script."""
    text = script().encode()
    return f"{len(text)}\n{ttl}\n{power_off}\n".encode() + text


def period(ttl: int) -> float:
    """Seconds until the next beat: ten times in a time to live."""
    return LONGEST_PERIOD if ttl == OFF else min(LONGEST_PERIOD, max(1.0, ttl / 10))


@cache
def script() -> str:
    """The switch itself."""
    return files(__package__).joinpath("deadman.sh").read_text(encoding="ascii")
