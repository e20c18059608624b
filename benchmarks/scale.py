"""Two hundred nodes and thousands of queued Tasks: what the operator takes for them.

The API server, the operator, SSH and the protocol are real; the agents run nothing, so that what is left is
the operator's own share. A Task is followed through its whole life: made, queued, handed out, ended, deleted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import psutil

from benchmarks.apiserver import BASE, send, session
from benchmarks.herd.provider import FILE_VARIABLE
from benchmarks.memory import pid_of
from benchmarks.processor import PATIENCE_SECONDS, cpu, settle
from benchmarks.row import Bound, Row, Unit, Within
from benchmarks.stage import control_plane, folder
from skyward.contract.names import API_VERSION, LABEL_POOL
from skyward.functions import function
from skyward.local.home import Home
from skyward.local.status import ComponentState, read_status
from skyward.manifest import Call, Owner, task_object
from skyward.packing import pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from benchmarks.stage import Stage
    from skyward.local.endpoint import Endpoint

NODES: Final = 200
FEW, MANY = 500, 5_000
POOL: Final = "herd"
_TOGETHER: Final = 16
_PLUGIN: Final = Path(__file__).parent / "herd" / "plugin"
_ROOT: Final = Path(__file__).parents[1]
_REST_SECONDS: Final = 10  # two rounds of pings
_MIB: Final = 1 << 20


@function
def nothing() -> None:
    """Never runs."""


def scale(stage: Stage) -> Iterator[Row]:
    """Nodes, then few Tasks, then many, then a restart in the middle of many."""
    stage.close()  # two control planes would share two cores
    nodes, many = stage.amount(NODES, 40), stage.amount(MANY, 1_000)
    with _herd() as herd, control_plane() as endpoint:
        run = _Run(endpoint, herd)
        begin = time.perf_counter()
        asyncio.run(run.make_pool(nodes))
        yield Row(f"{nodes} nodes, from nothing to ready", time.perf_counter() - begin, Unit.SECONDS)
        yield Row(f"operator at rest with {nodes} nodes", asyncio.run(run.rest()), Unit.SHARE)
        few = asyncio.run(run.lives(FEW))
        rest = asyncio.run(run.lives(many))
        yield Row(
            f"operator with {many:,} queued Tasks, {nodes} nodes",
            rest.memory,
            Unit.MEMORY,
            goals=(Bound(256),),
        )
        for lives, count in ((few, FEW), (rest, many)):
            name = f"operator, whole life of a Task, of {count:,}"
            yield Row(name, lives.cpu_ms, Unit.CPU, goals=(Bound(3),))
        yield Row(
            f"cost per Task, {many:,} beside {FEW}",
            rest.cpu_ms,
            Unit.CPU,
            few.cpu_ms,
            f"of {FEW}",
            goals=(Within(1.1),),
        )
        yield Row(f"Tasks ended per second, of {many:,}", rest.rate, Unit.RATE)
        ready, answered = asyncio.run(run.restart(many, nodes))
        yield Row(f"operator ready again, {many:,} Tasks", ready, Unit.SECONDS, goals=(Bound(5),))
        yield Row(f"all {nodes} nodes heard of again, and calls go out", answered, Unit.SECONDS)


@dataclass(frozen=True, slots=True)
class Lives:
    """What many Tasks took of the operator."""

    cpu_ms: float
    """For each, over its whole life, beside what the nodes take anyway."""
    memory: float
    """MiB while all of them were queued."""
    rate: float
    """Ends in a second, once they might end."""


class _Herdsman:
    """Tells the herd to hold or release its calls."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, word: str) -> None:
        """Say it and wait until it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


class _Run:
    """The client's side of the run."""

    def __init__(self, endpoint: Endpoint, herd: _Herdsman) -> None:
        self._endpoint = endpoint
        self._herd = herd
        self._package = pack([nothing()])
        self._number = 0
        self._rest = 0.0

    async def make_pool(self, nodes: int) -> None:
        """A pool of so many nodes, until all of them are ready."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "ComputePool",
            "metadata": {"name": POOL},
            "spec": {
                "candidates": [{"name": "main", "provider": "herd"}],
                "nodes": {"desired": nodes},
                "lifetime": {"ttlSeconds": 0},
            },
        }
        async with session(self._endpoint) as http:
            await send(http.post(f"{BASE}/computepools", json=body))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await self._ready(http) < nodes:
                    await asyncio.sleep(0.2)

    async def rest(self) -> float:
        """The share of a processor that the operator takes with its nodes alone, in per cent."""
        operator = psutil.Process(pid_of("operator"))
        await settle(operator)
        begin, before = time.perf_counter(), cpu(operator)
        await asyncio.sleep(_REST_SECONDS)
        self._rest = (cpu(operator) - before) / (time.perf_counter() - begin)
        return self._rest * 100

    async def lives(self, count: int) -> Lives:
        """Whole lives of Tasks: all are queued before the first may end; then they end and are deleted."""
        operator = psutil.Process(pid_of("operator"))
        async with session(self._endpoint) as http, _ends(http) as ends:
            self._herd.tell("hold")
            whole, before = time.perf_counter(), cpu(operator)
            await self._create(http, count)
            await settle(operator)
            memory = operator.memory_info().rss / _MIB
            begin = time.perf_counter()
            self._herd.tell("release")
            await ends.reach(count)
            rate = count / (time.perf_counter() - begin)
            await self._delete(http)
            await settle(operator)
            spent = cpu(operator) - before - self._rest * (time.perf_counter() - whole)
            return Lives(spent * 1000 / count, memory, rate)

    async def restart(self, count: int, nodes: int) -> tuple[float, float]:
        """Kill the operator while Tasks are queued. Seconds until the next one is ready, and until it has
        heard of every node and a call that was queued has run."""
        async with session(self._endpoint) as http, _ends(http) as ends:
            self._herd.tell("hold")
            await self._create(http, count)
            victim = pid_of("operator")
            await settle(psutil.Process(victim))
            begin = time.perf_counter()
            os.kill(victim, signal.SIGKILL)
            self._herd.tell("release")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not _serves(victim):
                    await asyncio.sleep(0.02)
            ready = time.perf_counter() - begin
            await ends.reach(nodes + 1)
            answered = time.perf_counter() - begin
            await ends.reach(count)
            await self._delete(http)
            return ready, answered

    async def _create(self, http: aiohttp.ClientSession, count: int) -> None:
        owner, call = Owner("scale", ""), Call()
        python = f"{sys.version_info.major}.{sys.version_info.minor}"

        async def some(first: int) -> None:
            for number in range(first, self._number + count, _TOGETHER):
                body = task_object(f"t-{number}", "default", POOL, python, 1, self._package, call, owner)
                del body["spec"]["ticketHash"], body["spec"]["ttlSecondsAfterFinished"]
                await send(http.post(f"{BASE}/tasks", json=body))

        await asyncio.gather(*(some(self._number + first) for first in range(_TOGETHER)))
        self._number += count

    async def _delete(self, http: aiohttp.ClientSession) -> None:
        await send(http.delete(f"{BASE}/tasks"))

    async def _ready(self, http: aiohttp.ClientSession) -> int:
        async with http.get(f"{BASE}/computepools/{POOL}") as answer:
            pool = await answer.json()
        return int(((pool.get("status") or {}).get("nodes") or {}).get("ready") or 0)


class _Ends:
    """Counts the Tasks that end, as the SDK hears of them: by one watch."""

    def __init__(self) -> None:
        self._ended: set[str] = set()
        self._more = asyncio.Event()

    async def reach(self, count: int) -> None:
        """Wait until so many have ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self._ended) < count:
                await self._more.wait()
                self._more.clear()

    async def listen(self, http: aiohttp.ClientSession) -> None:
        """Take events in until cancelled. A watch that is too slow is ended by the API server; the next one
        begins with all there is."""
        query = {"watch": "true", "labelSelector": f"{LABEL_POOL}={POOL}"}
        while True:
            async with http.get(f"{BASE}/tasks", params=query, timeout=aiohttp.ClientTimeout()) as watch:
                async for line in watch.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    self._take(event["object"])

    def _take(self, task: dict[str, Any]) -> None:
        status = task.get("status") or {}
        if status.get("phase") == "Failed":
            raise AssertionError(f"a Task failed, which is a fault of this program: {status.get('message')}")
        if status.get("phase") == "Succeeded":
            self._ended.add(task["metadata"]["name"])
            self._more.set()


@asynccontextmanager
async def _ends(http: aiohttp.ClientSession) -> AsyncIterator[_Ends]:
    """The Tasks that end in the block."""
    ends = _Ends()
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(ends.listen(http))
        yield ends
        listening.cancel()


@contextmanager
def _herd() -> Iterator[_Herdsman]:
    """The herd's server, and an environment in which an operator finds its provider."""
    with ExitStack() as stack:
        file = stack.enter_context(folder()) / "herd.json"
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.herd.server", str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = dict(os.environ)
        paths = [str(_PLUGIN), str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ |= {FILE_VARIABLE: str(file), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        try:
            yield _Herdsman(process)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _serves(before: int) -> bool:
    """Whether another operator than that process is ready."""
    status = read_status(Home.locate())
    known = status.component("operator") if status is not None else None
    if known is None or known.identity is None or known.identity.pid == before:
        return False
    return known.state is ComponentState.RUNNING
