"""How long things take to begin: imports, the control plane, a pool."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

import asyncssh

import skyward as sky
from benchmarks import agent_bench, floor
from benchmarks.figures import slower, timed
from benchmarks.stage import control_plane, folder
from skyward.local import binaries
from skyward.local.home import Home
from skyward.local.servers import Servers
from skyward.wire.frames import FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.row import Row
    from benchmarks.stage import Stage

ROUNDS = 3
IMPORTS = 15
TYPER_APP = "import typer; app = typer.Typer(); app.command()(lambda: None); app()"


def imports(stage: Stage) -> Iterator[Row]:
    """A Python that imports skyward, and the command line, each beside what it cannot do without."""
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "typer": [sys.executable, "-c", TYPER_APP],
        "skyward": [sys.executable, "-c", "import skyward"],
        "command": [sys.executable, "-m", "skyward.cli.main", "version"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(stage.amount(IMPORTS, 3)):
        for name, command in commands.items():
            with timed(taken[name]):
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = {name: statistics.median(samples) for name, samples in taken.items()}
    yield slower("import skyward", seconds["skyward"], seconds["python"], "Python with no import")
    yield slower("skyward version", seconds["command"], seconds["typer"], "a typer app that does nothing")


def control_planes(stage: Stage) -> Iterator[Row]:
    """From nothing to a ready operator, beside etcd and kube-apiserver alone; each in fresh folders."""
    found = binaries.ensure_binaries()
    whole: list[float] = []
    servers_alone: list[float] = []
    for _ in range(stage.amount(ROUNDS, 1)):
        with folder() as place:
            home = Home(place)
            home.prepare()
            with timed(servers_alone):
                servers = Servers(home, found.etcd, found.kube_apiserver)
                servers.start()
            servers.stop()
        with control_plane(whole):
            pass
    yield slower(
        "control plane, empty to ready",
        statistics.median(whole),
        statistics.median(servers_alone),
        "etcd and kube-apiserver alone",
    )


def pools(stage: Stage) -> Iterator[Row]:
    """From `Compute(...)` to the first result: with an environment to build, and with one that is there."""
    first: list[float] = []
    later: list[float] = []
    bare: list[float] = []
    assert stage.endpoint
    for number in range(1 + stage.amount(ROUNDS, 1)):
        with timed(later if number else first), one_node() as pool:
            assert echo(number) >> pool == number
        with timed(bare):
            _bare_machine()
    limit, name = statistics.median(bare), "SSH server, connection, agent alone"
    yield slower("first pool to its first result and end", first[0], limit, name)
    yield slower("later pool to its first result and end", statistics.median(later), limit, name)


def one_node() -> sky.Pool:
    """A pool of one machine with one slot."""
    return sky.Compute(provider=sky.Local(), nodes=1, options=sky.Options(console="silent"))


@sky.function
def echo(value: int) -> int:
    """The argument."""
    return value


def _bare_machine() -> None:
    """Start what a machine consists of, with nothing in between."""

    async def connect() -> None:
        async with floor.echo_server() as port, asyncssh.connect("127.0.0.1", port, known_hosts=None):
            pass

    asyncio.run(connect())
    with agent_bench.agent(slots=1) as link:
        link.raw(link.call(agent_bench.noop, agent_bench.NO_ARGUMENTS))
        link.wait(FrameKind.RESULT)
