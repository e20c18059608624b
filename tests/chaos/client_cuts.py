"""Rounds of random cuts between a user's program and the API server, and between it and the gateway.

Nothing is killed here: whatever is cut, each call runs exactly once, its value comes, and what it prints is
shown exactly once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tests.chaos.cut_proxy import Cut, CutProxy
from tests.cluster.installation import SERVICE, Installation, expose, free_port, own_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import ControlPlane

PROGRAM: Final = Path(__file__).with_name("client_program.py")
OPERATOR: Final = Path(__file__).with_name("quick_operator.py")
MOST_BYTES: Final = 8 * 1024 * 1024
ROUND_SECONDS: Final = 120.0


@dataclass(slots=True)
class Summary:
    """What was done, in numbers."""

    way: str
    rounds: int = 0
    calls: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    """At random bytes."""
    ended: int = 0
    """Connections that were ended at the beginning of a round, so that the next ones take its cuts."""
    seconds: float = 0.0
    slowest: float = 0.0

    def __str__(self) -> str:
        cuts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.cuts.items()))
        return (
            f"{self.way}: {self.cuts.total()} cuts at random bytes ({cuts}) and {self.ended} connections "
            f"ended at once in {self.rounds} rounds and {self.seconds:.0f} s "
            f"(the slowest took {self.slowest:.1f} s); each of {self.calls} calls ran once, its value came, "
            "and what it printed was shown once"
        )


@dataclass(slots=True)
class Client:
    """The program, and the proxies on its ways."""

    proxies: dict[str, CutProxy]
    ledger: Path
    process: asyncio.subprocess.Process
    shown: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    async def until(self, word: str) -> str:
        """The next line that begins with this word; others are kept."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            if line.startswith(word):
                return line.removeprefix(word)
            self.shown.append(line)
        raise AssertionError(f"the program has ended: {''.join(self.shown[-40:])}")

    async def round(self, seed: int, summary: Summary) -> None:
        """One round, and its verdict. Raises AssertionError with the seed."""
        dice = random.Random(seed)
        for proxy in self.proxies.values():
            proxy.cuts.extend(Cut.random(dice, MOST_BYTES) for _ in range(dice.randint(1, 5)))
            summary.ended += proxy.cut_now("close")  # the next connections take the cuts of the round
        before = sum((proxy.made for proxy in self.proxies.values()), Counter[str]())
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seed}\n".encode())
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                verdict = json.loads(await self.until("VERDICT "))
        except TimeoutError:
            raise AssertionError(f"round {seed} does not end: {''.join(self.shown[-40:])}") from None
        finally:
            for proxy in self.proxies.values():
                proxy.cuts.clear()
                proxy.release()
        assert verdict["wrong"] is None, f"round {seed}: {verdict['wrong']}"
        names = [name for name in self.ledger.read_text().split() if name.startswith(f"{seed}-")]
        assert len(names) == verdict["calls"], f"round {seed}: {verdict['calls']} calls, {len(names)} runs"
        assert len(set(names)) == len(names), f"round {seed}: ran twice: {Counter(names).most_common(5)}"
        self.names += names
        summary.rounds += 1
        summary.calls += len(names)
        summary.cuts += sum((proxy.made for proxy in self.proxies.values()), Counter[str]()) - before
        summary.seconds += verdict["seconds"]
        summary.slowest = max(summary.slowest, verdict["seconds"])

    async def end(self) -> None:
        """Let the program end, and look at all that it has shown."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        rest = (await self.process.stdout.read()).decode()
        assert await self.process.wait() == 0, rest
        printed = Counter(re.findall(r"printed by (\S+)\.\s", "".join(self.shown) + rest))
        del printed["first"]
        wrong = (printed - Counter(self.names)) + (Counter(self.names) - printed)
        assert not wrong, f"lines that were not shown once: {wrong.most_common(10)}"


@asynccontextmanager
async def client(
    plane: ControlPlane, namespace: str, folder: Path, *, through_api_server: bool
) -> AsyncIterator[Client]:
    """A program under way. Its gateway is behind a proxy of its own, or behind the API server's."""
    async with AsyncExitStack() as stack:
        host = own_address() if through_api_server else "127.0.0.1"
        port = free_port(host)
        server = urlsplit(plane.server)
        assert server.port is not None
        api = await stack.enter_async_context(CutProxy(("127.0.0.1", server.port)))
        proxies = {"API server": api}
        flags: tuple[str, ...] = ("--gateway-listen", f"{host}:{port}")
        if through_api_server:
            flags += ("--gateway-service", SERVICE)
            with plane.api() as connection:
                expose(connection, host, port)
        else:
            gateway = await stack.enter_async_context(CutProxy((host, port)))
            proxies["gateway"] = gateway
            flags += ("--advertise-gateway-url", f"http://127.0.0.1:{gateway.port}")
        operator = Installation(plane, namespace, folder, flags, (str(OPERATOR),))
        await asyncio.to_thread(operator.start)
        stack.callback(operator.stop)
        kubeconfig = await asyncio.to_thread(operator.user, f"https://127.0.0.1:{api.port}")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), str(folder / "ledger")),
            env=_environment(folder, kubeconfig),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 24,
        )
        try:
            made = Client(proxies, folder / "ledger", process)
            async with asyncio.timeout(ROUND_SECONDS):
                await made.until("READY")
            yield made
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def _environment(folder: Path, kubeconfig: Path) -> dict[str, Any]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("SKYWARD_", "PYTEST"))}
    return mine | {"KUBECONFIG": str(kubeconfig), "SKYWARD_HOME": str(folder / "home")}


async def run(
    plane: ControlPlane, namespace: str, folder: Path, seeds: range, *, through_api_server: bool
) -> Summary:
    """All rounds of these seeds."""
    way = "through the API server" if through_api_server else "API server and gateway apart"
    summary = Summary(way)
    async with client(plane, namespace, folder, through_api_server=through_api_server) as program:
        for seed in seeds:
            await program.round(seed, summary)
            if not summary.rounds % 20:
                print(summary, flush=True)
        await program.end()
    return summary
