"""What a node takes on top of the time that its cloud takes, step by step: `python -m benchmarks provision`.

The simulated cloud with real machines: SSH servers that run the real bootstrap and the real agent. Their
image is there already, as with any second pool. Each step ends where the next one begins; all processes of a
computer share its clock, and each time is taken by whoever knows first: the cloud's ledger, the machine's own
file, the log of the node, a watch on the API server, the client.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import aiohttp

import skyward as sky
from benchmarks.apiserver import BASE, session
from benchmarks.row import Bound, Row, Unit
from benchmarks.stage import control_plane, folder
from simcloud.ledger import read
from skyward.local.home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.stage import Stage
    from skyward.local.endpoint import Endpoint

ROUNDS: Final = 3
BOOT_SECONDS: Final = 20
SSH_SECONDS: Final = 5
GOAL_SECONDS: Final = 15
_CLOUD: Final = "the cloud: until its machine accepts SSH"
_VARIABLES: Final = ("SKYWARD_SIM_ENDPOINT", "SKYWARD_SIM_KEY")


@sky.function
def now() -> float:
    """When it runs."""
    return time.time()


def provision(stage: Stage) -> Iterator[Row]:
    """Clouds that boot a machine at once, in a while, and in a while with SSH later than they say."""
    stage.close()
    boot, late = stage.amount(BOOT_SECONDS, 3), stage.amount(SSH_SECONDS, 2)
    scenes: dict[str, dict[str, Any]] = {
        "boots at once": {},
        f"boots in {boot} s": {"boot_seconds": boot},
        f"boots in {boot} s, SSH {late} s later": {
            "boot_seconds": boot,
            "faults": [{"at": "vm", "effect": "ssh-refused", "seconds": late}],
        },
    }
    for title, scenario in scenes.items():
        with _cloud(scenario) as cloud, control_plane() as endpoint, _Watch(endpoint) as watch:
            _pool(cloud, watch)  # makes the image
            rounds = [_pool(cloud, watch) for _ in range(stage.amount(ROUNDS, 1))]
        _print(title, rounds)
        overhead = statistics.median(each.whole - each.steps[_CLOUD] for each in rounds)
        goals = (Bound(GOAL_SECONDS),)
        yield Row(f"pool to first result over a cloud that {title}", overhead, Unit.SECONDS, goals=goals)
        yield Row(
            "… writes of its node's status", statistics.median(each.writes for each in rounds), Unit.COUNT
        )
        yield Row("… calls of its cloud", statistics.median(each.calls for each in rounds), Unit.COUNT)


@dataclass(frozen=True, slots=True)
class Provisioned:
    """One pool of one node, from the client's wish to its first result."""

    steps: dict[str, float]
    """Seconds of each, in order."""
    writes: int
    calls: int

    @property
    def whole(self) -> float:
        """Seconds of all."""
        return sum(self.steps.values())


@dataclass(frozen=True, slots=True)
class Cloud:
    """A simulated cloud in a process of its own."""

    folder: Path

    def events(self, since: float) -> list[dict[str, Any]]:
        """What its ledger says from a time on."""
        return [event for event in read(self.folder / "ledger.jsonl") if event["time"] >= since]

    def listens(self, machine: str) -> float:
        """When a machine said that it accepts SSH."""
        return (self.folder / "vms" / machine / "vm.json").stat().st_mtime


def _pool(cloud: Cloud, watch: _Watch) -> Provisioned:
    watch.forget()
    begin = time.time()
    options = sky.Options(console="silent")
    with sky.Compute(provider=sky.Sim(region="sim-east"), nodes=1, options=options) as pool:
        ran = now() >> pool
        returned = time.time()
        events = cloud.events(begin)
        (machine,) = (event for event in events if event["kind"] == "created")
        node = watch.node
        marks = {
            "client, API server: the pool is there": watch.first("computepools", lambda _: True),
            "operator: its node is there": watch.first("computenodes", lambda _: True),
            "operator: offers, and the intent is durable": watch.first("computenodes", _intended),
            "operator: key, security group, order; the cloud took it": machine["time"],
            _CLOUD: cloud.listens(machine["instance"]["id"]),
            "operator: saw it run, wrote its address": watch.first("computenodes", _addressed),
            **_log_marks(Home.locate().operator / "logs" / "default" / "nodes" / f"{node}.log"),
            "operator: the node is ready": watch.first("computenodes", _is_ready),
            "operator: the pool is usable": watch.first("computepools", _is_usable),
            "client, operator: the first call runs": ran,
            "back at the client": returned,
        }
        calls = sum(event["kind"] == "request" for event in events)
        return Provisioned(_steps(begin, marks), watch.count("computenodes"), calls)


def _steps(begin: float, marks: dict[str, float]) -> dict[str, float]:
    """Seconds of each step; one that was over before the one above it took nothing."""
    steps, before = {}, begin
    for name, mark in marks.items():
        steps[name] = max(0.0, mark - before)
        before = max(before, mark)
    return steps


def _log_marks(log: Path) -> dict[str, float]:
    """When the steps of the bootstrap began, as the ends of what was before them."""
    marks, running = {}, "SSH: connected"
    for line in log.read_text().splitlines():
        stamp, _, text = line.partition(" ")
        when = datetime.fromisoformat(stamp).timestamp()
        if text.startswith("connected"):
            marks[running], running = when, "the dead-man's switch; bootstrap: upload, unpack"
        elif text.startswith("::step "):
            marks[running], running = when, f"bootstrap: {text.removeprefix('::step ')}"
        elif text.startswith("::done agent"):
            marks[running], running = when, "link: channel, welcome"
        elif text.startswith("linked"):
            marks[running] = when
    return marks


def _status(obj: dict[str, Any]) -> dict[str, Any]:
    status: dict[str, Any] = obj.get("status") or {}
    return status


def _intended(node: dict[str, Any]) -> bool:
    return "launch" in _status(node)


def _addressed(node: dict[str, Any]) -> bool:
    return "address" in _status(node)


def _is_ready(node: dict[str, Any]) -> bool:
    return _status(node).get("phase") == "Ready"


def _is_usable(pool: dict[str, Any]) -> bool:
    return bool((_status(pool).get("nodes") or {}).get("ready"))


class _Watch:
    """What an API server tells of pools and nodes, each with the time at which it was heard."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._heard: dict[str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
        self._open = threading.Semaphore(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        for _ in range(2):
            self._open.acquire(timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._listening.cancel)
        self._thread.join(10)

    @property
    def node(self) -> str:
        """The name of the only node that was heard of."""
        return str(self._heard["computenodes"][0][1]["metadata"]["name"])

    def forget(self) -> None:
        """Begin anew."""
        self._heard.clear()

    def count(self, plural: str) -> int:
        """How often an object of a kind was written, its creation not counted."""
        return len({obj["metadata"]["resourceVersion"] for _, obj in self._heard[plural]}) - 1

    def first(self, plural: str, claim: Any) -> float:
        """When something was first true of an object; waits for the news of it."""
        for _ in range(100):
            for when, obj in list(self._heard[plural]):
                if claim(obj):
                    return when
            time.sleep(0.05)
        raise AssertionError(f"not seen of {plural}: {claim.__name__}")

    def _run(self) -> None:
        self._listening = self._loop.create_task(self._listen())
        try:
            self._loop.run_until_complete(self._listening)
        except asyncio.CancelledError:
            self._loop.close()

    async def _listen(self) -> None:
        async with session(self._endpoint) as http, asyncio.TaskGroup() as group:
            for plural in ("computepools", "computenodes"):
                group.create_task(self._take(http, plural))

    async def _take(self, http: aiohttp.ClientSession, plural: str) -> None:
        query, forever = {"watch": "true"}, aiohttp.ClientTimeout()
        async with http.get(f"{BASE}/{plural}", params=query, timeout=forever) as watch:
            self._open.release()
            async for line in watch.content:
                self._heard[plural].append((time.time(), json.loads(line)["object"]))


@contextmanager
def _cloud(scenario: dict[str, Any]) -> Iterator[Cloud]:
    """A cloud, with an account at it in the environment; its machines end with it."""
    with folder() as place:
        script = place / "scenario.json"
        script.write_text(json.dumps(scenario))
        python = [sys.executable, "-m", "simcloud"]
        command = [*python, "up", "--data", str(place), "--scenario", str(script)]
        before = {name: os.environ.get(name) for name in _VARIABLES}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                endpoint = json.loads(process.stdout.readline())["endpoint"]
                key = json.loads((place / "accounts.json").read_text())[0]["key"]
                os.environ |= dict(zip(_VARIABLES, (endpoint, key), strict=True))
                yield Cloud(place)
            finally:
                process.terminate()
                process.wait()
                subprocess.run(
                    [*python, "clear", "--data", str(place)], stdout=subprocess.DEVNULL, check=True
                )
                for name, value in before.items():
                    os.environ.pop(name)
                    if value is not None:
                        os.environ[name] = value


def _print(title: str, rounds: list[Provisioned]) -> None:
    """The table of one cloud, for a terminal and for docs/performance.md."""
    load = os.getloadavg()[0]
    print(f"\nA cloud that {title}: {len(rounds)} pools of one node, load {load:.1f}\n", file=sys.stderr)
    print("| step | seconds, median | of what is ours |\n|---|---|---|", file=sys.stderr)
    ours = statistics.median(each.whole - each.steps[_CLOUD] for each in rounds)
    for name in rounds[0].steps:
        seconds = statistics.median(each.steps.get(name, 0.0) for each in rounds)
        share = "" if name == _CLOUD else f"{seconds / ours:.0%}"
        print(f"| {name} | {seconds:.2f} | {share} |", file=sys.stderr)
    whole = statistics.median(each.whole for each in rounds)
    print(f"| **whole, and ours** | {whole:.2f} | **{ours:.2f} s** |\n", file=sys.stderr, flush=True)
