"""Large arguments, results and broadcasts beside a bare SSH channel: `python -m benchmarks.bytes [--large]`.

128 MB, and with `--large` 2 GB as well. For each: MB/s, those of one SSH channel with the same cipher and of
the disk in the same run, what it costs each kind of process, and what a no-op call takes meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import numpy as np

import skyward as sky
from benchmarks.figures import quantile, timed
from benchmarks.processes import cost
from benchmarks.starts import control_plane, echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL, LARGE = 128 * 1000 * 1000, 2 * 1000 * 1000 * 1000
NODES = 4
ROUNDS = 3
IDLE_CALLS = 60
CIPHER = "aes128-gcm@openssh.com"


@dataclass(slots=True)
class Figure:
    """One row. Rates are MB/s, times ms, growth MB, CPU seconds per GB that the caller sent or got."""

    what: str
    size: int
    rate: float
    ssh: float
    disk: float
    grown: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    idle_p99: float = 0.0
    moving_p99: float = 0.0
    moving_calls: int = 0

    @property
    def ratio(self) -> float:
        """Of what the SSH channel does."""
        return self.rate / self.ssh


@sky.function
def size_of(data: Any) -> int:
    """An argument goes there; all of it is looked at."""
    return int(data.nbytes if data[::4096].sum() >= 0 else -1)


@sky.function
def noise(size: int, seed: int) -> Any:
    """A result comes back."""
    return _noise(size, seed)


@dataclass(frozen=True, slots=True)
class Limits:
    """MB/s of a bare SSH channel, up and down, and of a file that is written and synced."""

    up: float
    down: float
    disk: float


def measure(sizes: list[int]) -> list[Figure]:
    """All rows, on a control plane of their own."""
    figures = []
    with control_plane():
        for size in sizes:
            limits = Limits(ssh_rate("take", size), ssh_rate("give", size), disk_rate(min(size, 4 * SMALL)))
            with _pool(1) as pool:
                figures.append(_row("argument", size, limits, pool, _argument(pool, _noise(size, 0))))
                figures.append(_row("result", size, limits, pool, _result(pool, size)))
            with _pool(NODES) as pool:
                row = _row(f"broadcast to {NODES}", size, limits, pool, _broadcast(pool, _noise(size, 99)))
                row.rate *= NODES
                figures.append(row)
    return figures


def ssh_rate(what: str, size: int) -> float:
    """MB/s of one channel to an SSH server in another process."""
    return asyncio.run(_ssh_rate(what, size))


def disk_rate(size: int) -> float:
    """MB/s of a file that is written and synced."""
    piece = os.urandom(1 << 20)
    with tempfile.TemporaryFile() as file:
        begin = time.perf_counter()
        for _ in range(size // len(piece)):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        return size / 1e6 / (time.perf_counter() - begin)


def _row(what: str, size: int, limits: Limits, pool: sky.Pool, move: Callable[[], None]) -> Figure:
    idle: list[float] = []
    for _ in range(IDLE_CALLS):
        with timed(idle):
            assert echo(1) >> pool == 1
    taken: list[float] = []
    rounds = ROUNDS if size == SMALL else 1
    with cost(os.environ["SKYWARD_HOME"]) as costs:
        for _ in range(rounds):
            with timed(taken):
                move()
    moving: list[float] = []
    with _calling(pool, moving):
        move()
    return Figure(
        what,
        size,
        size / 1e6 / statistics.median(taken),
        limits.down if what == "result" else limits.up,
        limits.disk,
        costs.grown,
        {kind: round(seconds / (rounds * size / 1e9), 2) for kind, seconds in costs.cpu.items()},
        quantile(idle, 99) * 1e3,
        (quantile(moving, 99) if len(moving) > 1 else 0.0) * 1e3,
        len(moving),
    )


def _argument(pool: sky.Pool, data: Any) -> Callable[[], None]:
    def move() -> None:
        data[:1000] = np.random.default_rng().integers(
            0, 255, 1000, dtype=np.uint8
        )  # the node has it not yet
        assert size_of(data) >> pool == data.nbytes

    return move


def _result(pool: sky.Pool, size: int) -> Callable[[], None]:
    def move() -> None:
        assert (noise(size, 1) >> pool).nbytes == size

    return move


def _broadcast(pool: sky.Pool, data: Any) -> Callable[[], None]:
    def move() -> None:
        _make_new(data)
        assert size_of(data) @ pool == [data.nbytes] * NODES

    return move


@contextmanager
def _calling(pool: sky.Pool, taken: list[float]) -> Iterator[None]:
    """No-op calls, one after the other, for as long as the block lasts."""
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            with timed(taken):
                assert echo(1) >> pool == 1

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


def _make_new(data: Any) -> None:
    """Bytes that no node has yet."""
    data[:1000] = np.random.default_rng().integers(0, 255, 1000, dtype=np.uint8)


def _noise(size: int, seed: int) -> Any:
    """Bytes that do not shrink, made fast: a megabyte of noise, again and again with another number in it."""
    one = np.frombuffer(os.urandom(1 << 20), np.uint8)
    whole = np.resize(one, size)
    whole[:: 1 << 20] ^= np.uint8(seed)
    return whole


async def _ssh_rate(what: str, size: int) -> float:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bulk_server", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        async with (
            asyncssh.connect("127.0.0.1", port, known_hosts=None, encryption_algs=[CIPHER]) as connection,
            connection.create_process(f"{what} {size}", encoding=None) as channel,
        ):
            begin, piece = time.perf_counter(), bytes(32 * 1024)
            if what == "take":
                for _ in range(size // len(piece) + 1):
                    channel.stdin.write(piece)
                    await channel.stdin.drain()
                await channel.stdout.readexactly(1)
            else:
                left = size
                while left > 0:
                    left -= len(await channel.stdout.read(1 << 18))
            return size / 1e6 / (time.perf_counter() - begin)
    finally:
        server.terminate()
        await server.wait()


def main() -> None:
    """Print the rows; `--json FILE` writes them as well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true", help="2 GB as well")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["SKYWARD_CONTROL_PLANE"] = "local"
    figures = measure([SMALL, LARGE] if given.large else [SMALL])
    for row in figures:
        rates = f"{row.rate:,.0f} MB/s, SSH {row.ssh:,.0f} ({row.ratio:.2f}), disk {row.disk:,.0f}"
        calls = f"no-op p99 {row.idle_p99:.0f}, {row.moving_p99:.0f} ms of {row.moving_calls} meanwhile"
        print(f"{row.size / 1e6:,.0f} MB {row.what}: {rates}; {calls}", flush=True)
        print(f"    MB grown {row.grown}\n    CPU s/GB {row.cpu}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) | {"ratio": row.ratio} for row in figures], indent=2))


if __name__ == "__main__":
    main()
