"""Large arguments, results and broadcasts beside a bare SSH channel with the same cipher.

For each: MB/s, by how much the processes on its way grow, and what a no-op call on the same node takes while
it moves. The caller is this process.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncssh
import numpy as np
import psutil

import skyward as sky
from benchmarks.figures import quantile, timed
from benchmarks.memory import growth
from benchmarks.row import Bound, Row, Unit, Within
from benchmarks.starts import echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.stage import Stage

SMALL: Final = 128 * 1000 * 1000
LARGE: Final = 2 * 1000 * 1000 * 1000
NODES: Final = 4
ROUNDS: Final = 5
IDLE_CALLS: Final = 100
SHARED: Final = 50 * 1000 * 1000
SHARING_CALLS: Final = 100
GOAL: Final = 0.6
SLOWER_SECONDS: Final = 0.05
"""By how much a no-op call may take longer."""
_CIPHER: Final = "aes128-gcm@openssh.com"
_MIB: Final = 1 << 20
_KINDS: Final = {
    "worker": "skyward.agent.worker",
    "agent": "-m skyward.agent",
    "API server": "kube-apiserver",
    "machine": "providers.local",
    "operator": "-m skyward_operator",
}
"""A process is the first of these whose words stand in its command line."""
_OF_PAYLOAD: Final = ("caller", "worker")
"""Who holds the bytes: 1.2 times as many at most. All others grow by 64 MiB at most."""


@sky.function
def size_of(data: Any) -> int:
    """An argument went there: a byte of each of its pages is looked at."""
    return int(data.nbytes if data[::4096].sum() >= 0 else -1)


@sky.function
def noise(size: int) -> Any:
    """A result comes back, with the seconds that it took to make it."""
    begin = time.perf_counter()
    made = _noise(size)
    return made, time.perf_counter() - begin


@sky.function
def first_of(data: Any, number: int) -> int:
    """An argument that many calls share."""
    return int(data[number])


def small(stage: Stage) -> Iterator[Row]:
    """128 MB, and an argument that many calls share."""
    yield from _rows(stage, SMALL, "128 MB", stage.amount(ROUNDS, 1))
    yield from shared(stage)


def large(stage: Stage) -> Iterator[Row]:
    """2 GB; a tenth of it in a quick run."""
    yield from _rows(stage, stage.amount(LARGE, LARGE // 10), "2 GB", 1)


def shared(stage: Stage) -> Iterator[Row]:
    """100 calls with the same 50 MB: sent once to each of two nodes."""
    assert stage.endpoint
    data = _noise(stage.amount(SHARED, SHARED // 10))
    with _pool(2) as pool:
        before = _received()
        calls = [first_of(data, number) for number in range(SHARING_CALLS)]
        assert sky.gather(*calls) >> pool == tuple(int(data[number]) for number in range(SHARING_CALLS))
        after = _received()
    grown = sum(after[path] - before.get(path, 0) for path in after)
    name = "once to each node"
    yield Row(
        f"{SHARING_CALLS} calls that share 50 MB, stored on nodes",
        grown / _MIB,
        Unit.MEMORY,
        2 * data.nbytes / _MIB,
        name,
        goals=(Within(1.05),),
    )


def _rows(stage: Stage, size: int, title: str, rounds: int) -> Iterator[Row]:
    assert stage.endpoint
    up, down = ssh_rate("take", size), ssh_rate("give", size)
    with _pool(1) as pool:
        data = _noise(size)
        yield from _path(f"{title} argument", size, up, pool, rounds, _sending(pool, data))
        del data
        yield from _path(f"{title} result", size, down, pool, rounds, _getting(pool, size))
    with _pool(NODES) as pool:
        data = _noise(size)
        # the link of the operator carries it once for each node
        yield from _path(f"{title} broadcast to {NODES}", size, up, pool, rounds, _sending(pool, data), NODES)


def _path(
    path: str, size: int, limit: float, pool: sky.Pool, rounds: int, move: Callable[[], float], times: int = 1
) -> Iterator[Row]:
    echo(0) >> pool
    idle: list[float] = []
    for _ in range(IDLE_CALLS):
        with timed(idle):
            echo(1) >> pool
    taken: list[float] = []
    watched = _processes()
    cpu = {name: _cpu(pid) for name, pid in watched.items()}
    with growth(watched) as grown:
        for _ in range(rounds):
            begin = time.perf_counter()
            aside = move()
            taken.append(time.perf_counter() - begin - aside)
    _say_cpu(path, rounds * size, {name: _cpu(pid) - cpu[name] for name, pid in watched.items()})
    rate = times * size / 1e6 / statistics.median(taken)
    peer = path if path in ("128 MB argument", "128 MB result") else ""
    yield Row(path, rate, Unit.BYTES, limit, "SSH channel", peer, (Within(GOAL),))
    for kind in ("caller", "operator", "agent", "worker", "API server"):
        most = max((grown.of(name) for name in watched if name.startswith(kind)), default=0.0)
        bound = 1.2 * size / _MIB if kind in _OF_PAYLOAD else 64.0
        yield Row(f"{path}: growth of {kind}", max(0.0, most), Unit.MEMORY, goals=(Bound(bound),))
    calls: list[float] = []
    with _calling(pool, calls):
        move()
    slowest = quantile(calls, 99) if len(calls) > 1 else calls[0]
    alone = quantile(idle, 99)
    goal = Bound(alone + SLOWER_SECONDS)
    yield Row(
        f"no-op during {path}, p99 of {len(calls)}", slowest, Unit.SECONDS, alone, "idle", goals=(goal,)
    )


def _sending(pool: sky.Pool, data: Any) -> Callable[[], float]:
    def move() -> float:
        data[:1000] = np.random.default_rng().integers(0, 255, 1000, dtype=np.uint8)  # no node has it yet
        assert set(size_of(data) @ pool) == {data.nbytes}
        return 0.0

    return move


def _getting(pool: sky.Pool, size: int) -> Callable[[], float]:
    def move() -> float:
        data, seconds = noise(size) >> pool
        assert data[::4096].sum() > 0
        return float(seconds)

    return move


@contextmanager
def _calling(pool: sky.Pool, taken: list[float]) -> Iterator[None]:
    """No-op calls, one after the other, for as long as the block lasts."""
    done = threading.Event()

    def call() -> None:
        while not done.is_set() or not taken:
            with timed(taken):
                echo(1) >> pool

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _pool(nodes: int) -> sky.Pool:
    """Two slots on each node: a no-op never waits for a slot."""
    silent = sky.Options(console="silent", worker=sky.Worker(concurrency=2))
    return sky.Compute(provider=sky.Local(), nodes=nodes, image=sky.Image(pip=["numpy"]), options=silent)


def _noise(size: int) -> Any:
    """Bytes that do not shrink, made fast: the same megabyte of noise, again and again."""
    whole = np.empty(size, np.uint8)
    one = np.frombuffer(os.urandom(1 << 20), np.uint8)
    for begin in range(0, size, one.size):
        whole[begin : begin + one.size] = one[: size - begin]
    return whole


def _processes() -> dict[str, int]:
    """This process and those of its control plane, by what they are and a number."""
    found, home = {"caller": os.getpid()}, os.environ["SKYWARD_HOME"]
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = " ".join(process.info["cmdline"] or ())
        if home in line or home in (process.info["cwd"] or ""):
            kind = next((kind for kind, words in _KINDS.items() if words in line), None)
            if kind is not None:
                found[f"{kind} {len(found)}"] = process.pid
    return found


def _received() -> dict[str, int]:
    """The large bytes that the nodes have, by file."""
    found = {}
    for pid in (pid for name, pid in _processes().items() if name.startswith("agent")):
        line = psutil.Process(pid).cmdline()
        folder = os.path.join(line[line.index("--home") + 1], "blobs")
        for entry in os.scandir(folder):
            found[entry.path] = entry.stat().st_size
    return found


def _cpu(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _say_cpu(path: str, size: int, spent: dict[str, float]) -> None:
    """Where the time goes: seconds of CPU for each GB, by process."""
    words = ", ".join(f"{name} {seconds / (size / 1e9):.2f}" for name, seconds in spent.items())
    print(f"         {path}: CPU s/GB: {words}", file=sys.stderr, flush=True)


def ssh_rate(what: str, size: int) -> float:
    """MB/s of one channel to an SSH server in another process: `take` or `give`."""
    return asyncio.run(_ssh_rate(what, size))


async def _ssh_rate(what: str, size: int) -> float:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bulk_server", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        async with (
            asyncssh.connect("127.0.0.1", port, known_hosts=None, encryption_algs=[_CIPHER]) as connection,
            connection.create_process(f"{what} {size}", encoding=None) as channel,
        ):
            begin, piece, left = time.perf_counter(), bytes(32 * 1024), size
            while what == "take" and left > 0:
                channel.stdin.write(piece)
                await channel.stdin.drain()
                left -= len(piece)
            if what == "take":
                await channel.stdout.readexactly(1)
            while what == "give" and left > 0:
                left -= len(await channel.stdout.read(1 << 18))
            return size / 1e6 / (time.perf_counter() - begin)
    finally:
        server.terminate()
        await server.wait()
