"""Fifty pools, five hundred nodes on the simulated cloud: what they take to start, at rest, after a kill.

The API server, the operator, the cloud's API, SSH and the protocol are real. What is simulated: the machines
are SSH servers in the cloud's process that take ten seconds to boot, and their agents run nothing.

Counts and seconds of CPU carry the conclusion, each taken from the other side: writes as the API server
counts them, calls as the cloud's ledger has them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from benchmarks.apiserver import BASE, asked, send, session
from benchmarks.memory import pid_of
from benchmarks.processor import cpu, settle
from benchmarks.row import Bound, Row, Unit
from benchmarks.stage import control_plane, folder
from simcloud.ledger import read
from skyward.contract.names import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp

    from benchmarks.apiserver import Asked
    from benchmarks.stage import Stage
    from skyward.local.endpoint import Endpoint

POOLS: Final = 50
EACH: Final = 10
SECRET: Final = "cloud"
_REST_SECONDS: Final = 120
"""Two heartbeats of each node, and two sweeps."""
_PATIENCE_SECONDS: Final = 280
_MIB: Final = 1 << 20


def steady(stage: Stage) -> Iterator[Row]:
    """Pools that start, rest, lose their operator, and end."""
    stage.close()  # two control planes would share two cores
    pools, rest = stage.amount(POOLS, 5), stage.amount(_REST_SECONDS, 60)
    nodes = pools * EACH
    with herd_cloud() as cloud, control_plane() as endpoint:
        run = _Run(endpoint, cloud, pools)
        start = asyncio.run(run.start())
        yield Row(f"{nodes} nodes of {pools} pools, from nothing to ready", start.seconds, Unit.SECONDS)
        yield from _per_node("that starts", start, nodes, writes=9, calls=5)
        still = asyncio.run(run.rest(rest))
        minute = 60 / still.seconds
        _tell("at rest", still)
        yield Row(
            f"API writes at rest, {nodes} nodes",
            still.asked.writes() * minute,
            Unit.PER_MINUTE,
            goals=(Bound(1.05 * (nodes + pools)),),
        )
        yield Row(
            f"cloud calls at rest, {nodes} nodes",
            still.calls.total() * minute,
            Unit.PER_MINUTE,
            goals=(Bound(60),),
        )
        yield Row(
            f"operator at rest, {nodes} nodes",
            still.cpu / still.seconds * 100,
            Unit.SHARE,
            goals=(Bound(10),),
        )
        yield Row(f"operator's memory, {nodes} nodes", run.memory(), Unit.MEMORY, goals=(Bound(256),))
        again = asyncio.run(run.restart())
        yield Row(
            f"all {nodes} nodes linked again after a kill", again.seconds, Unit.SECONDS, goals=(Bound(30),)
        )
        yield from _per_node("taken over after a kill", again, nodes, writes=0.1, calls=0.1)
        ended = asyncio.run(run.end())
        yield from _per_node("that ends", ended, nodes, writes=9, calls=7)


def _per_node(what: str, spent: Spent, nodes: int, *, writes: float, calls: float) -> Iterator[Row]:
    total = spent.asked.writes()
    yield Row(f"API writes for each node {what}", total / nodes, Unit.COUNT, goals=(Bound(writes),))
    yield Row("… of its own status and metadata", spent.asked.writes("computenodes") / nodes, Unit.COUNT)
    yield Row(f"Secrets read for each node {what}", spent.asked.reads("secrets") / nodes, Unit.COUNT)
    calls_made = spent.calls.total() / nodes
    yield Row(f"cloud calls for each node {what}", calls_made, Unit.COUNT, goals=(Bound(calls),))
    yield Row(f"operator's CPU for each node {what}", spent.cpu * 1000 / nodes, Unit.CPU)
    _tell(what, spent)


def _tell(what: str, spent: Spent) -> None:
    """The largest counts, for whoever wants to know where they come from."""
    largest = Counter({" ".join(filter(None, key)): int(count) for key, count in spent.asked.counts.items()})
    counts = f"cloud {dict(spent.calls)}, API server {dict(largest.most_common(12))}"
    print(f"{what}: {counts}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Spent:
    """What something took."""

    seconds: float
    cpu: float
    """The operator's."""
    asked: Asked
    calls: Counter[str]


@dataclass(frozen=True, slots=True)
class HerdCloud:
    """A cloud whose machines are a herd's."""

    folder: Path
    endpoint: str
    key: str
    process: subprocess.Popen[str]

    def linked(self, word: str = "count") -> int:
        """How many agents an operator has taken over since the word was `anew`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def calls(self) -> Counter[str]:
        """Requests that it was sent until now, by operation."""
        events = read(self.folder / "ledger.jsonl")
        return Counter(event["operation"] for event in events if event["kind"] == "request")


class _Run:
    """The client's side."""

    def __init__(self, endpoint: Endpoint, cloud: HerdCloud, pools: int) -> None:
        self._endpoint = endpoint
        self._cloud = cloud
        self._pools = [f"pool-{number}" for number in range(pools)]

    async def start(self) -> Spent:
        """Make the pools, all at once, until each of their nodes is ready."""
        async with session(self._endpoint) as http:
            await self._write_secret(http)
            before = await self._now(http)
            await asyncio.gather(*(self._make(http, name) for name in self._pools))
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while await self._nodes(http, "ready") < len(self._pools) * EACH:
                    await asyncio.sleep(0.5)
            return await self._since(http, before)

    async def rest(self, seconds: float) -> Spent:
        """Leave them alone."""
        async with session(self._endpoint) as http:
            await settle(psutil.Process(pid_of("operator")))
            await self._told_all(http)
            before = await self._now(http)
            await asyncio.sleep(seconds)
            return await self._since(http, before)

    async def restart(self) -> Spent:
        """Kill the operator, until the next one has every agent again."""
        async with session(self._endpoint) as http:
            self._cloud.linked("anew")
            before, victim = await self._now(http), pid_of("operator")
            os.kill(victim, signal.SIGKILL)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._cloud.linked() < len(self._pools) * EACH:
                    await asyncio.sleep(0.1)
            seconds = time.monotonic() - before.seconds
            while (successor := pid_of("operator")) == victim:
                await asyncio.sleep(0.1)
            spent = cpu(psutil.Process(successor))
            await settle(psutil.Process(successor))
            after = await self._since(http, before)
            return Spent(seconds, spent, after.asked, after.calls)

    async def end(self) -> Spent:
        """Delete the pools, until none is left and the cloud has no machine."""
        async with session(self._endpoint) as http:
            before = await self._now(http)
            await send(http.delete(f"{BASE}/computepools"))
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while (await send(http.get(f"{BASE}/computepools")))["items"]:
                    await asyncio.sleep(0.5)
            return await self._since(http, before)

    def memory(self) -> float:
        """MiB of the operator."""
        return psutil.Process(pid_of("operator")).memory_info().rss / _MIB

    async def _told_all(self, http: aiohttp.ClientSession) -> None:
        """Wait until no events are written any more: they come one by one, after the rest."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            before = -1.0
            while (written := (await asked(http)).writes("events")) != before:
                before = written
                await asyncio.sleep(3)

    async def _write_secret(self, http: aiohttp.ClientSession) -> None:
        data = {"endpoint": self._cloud.endpoint, "key": self._cloud.key}
        body = {"metadata": {"name": SECRET}, "stringData": data}
        await send(http.post("/api/v1/namespaces/default/secrets", json=body))

    async def _make(self, http: aiohttp.ClientSession, name: str) -> None:
        candidate = {"name": "main", "provider": "sim", "credentialsRef": {"name": SECRET}}
        spec = {"candidates": [candidate], "nodes": {"desired": EACH}}
        body = {"apiVersion": API_VERSION, "kind": "ComputePool", "metadata": {"name": name}, "spec": spec}
        await send(http.post(f"{BASE}/computepools", json=body))

    async def _nodes(self, http: aiohttp.ClientSession, which: str) -> int:
        pools = (await send(http.get(f"{BASE}/computepools")))["items"]
        return sum(int((pool.get("status", {}).get("nodes") or {}).get(which) or 0) for pool in pools)

    async def _now(self, http: aiohttp.ClientSession) -> Spent:
        operator = cpu(psutil.Process(pid_of("operator")))
        return Spent(time.monotonic(), operator, await asked(http), self._cloud.calls())

    async def _since(self, http: aiohttp.ClientSession, before: Spent) -> Spent:
        now = await self._now(http)
        return Spent(
            now.seconds - before.seconds,
            now.cpu - before.cpu,
            now.asked.since(before.asked),
            now.calls - before.calls,
        )


@contextmanager
def herd_cloud() -> Iterator[HerdCloud]:
    """A cloud in a process of its own, which nothing outlives: its machines are in it."""
    with ExitStack() as stack:
        place = stack.enter_context(folder())
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.herd.cloud", str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        where = json.loads(process.stdout.readline())
        yield HerdCloud(place, where["endpoint"], where["key"], process)
