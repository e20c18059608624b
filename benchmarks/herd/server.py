"""The herd's machines: one SSH server on loopback, where each user name is a machine with its agent.

`python -m benchmarks.herd.server FILE` writes its port and host key into FILE once it listens, obeys the
lines `hold` and `release` on its standard input, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from benchmarks.herd.agent import Agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from skyward.wire.frames import Decoder

SOCKET = "/run/herd/agent"


class Herd:
    """All agents, by machine."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self._connections: dict[asyncssh.SSHServerConnection, str] = {}
        """The open ones, each with the machine's name."""
        self.held = False

    def bootstrapped(self, machine: str, bundle: str) -> None:
        """A machine got its agent, or another version of it."""
        agent = self.agents.get(machine) or self.agents.setdefault(machine, self.agent(machine, bundle))
        agent.bundle = bundle
        if self.held:
            agent.hold()

    def agent(self, machine: str, bundle: str) -> Agent:
        """A new one."""
        return Agent(bundle)

    def connected(self, connection: asyncssh.SSHServerConnection, machine: str) -> None:
        """Somebody is at a machine."""
        self._connections[connection] = machine

    def disconnected(self, connection: asyncssh.SSHServerConnection) -> None:
        """Nobody is any more."""
        self._connections.pop(connection, None)

    def cut(self, machine: str | None = None) -> None:
        """Break every connection, or those to a machine, without a word to whoever is at the other end."""
        for connection, name in list(self._connections.items()):
            if machine in (None, name):
                connection.abort()

    def obey(self, word: str) -> None:
        """`hold` or `release` all agents."""
        self.held = word == "hold"
        for agent in self.agents.values():
            if self.held:
                agent.hold()
            else:
                agent.release()


class _Machine(asyncssh.SSHServer):
    """One connection to a machine. Everybody may in: nothing can be had here."""

    def __init__(self, herd: Herd, name: str | None) -> None:
        self._herd = herd
        self._name = name or ""
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Somebody is there."""
        self._connection = conn
        self._herd.connected(conn, self._name)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is any more."""
        if self._connection is not None:
            self._herd.disconnected(self._connection)

    def begin_auth(self, username: str) -> bool:
        """The user is the machine, unless the server is."""
        self._name = self._name or username
        return False

    def unix_connection_requested(self, dest_path: str) -> Any:
        """A channel to the agent's socket."""
        agent = self._herd.agents.get(self._name)
        return _Channel(agent) if agent is not None and dest_path == SOCKET else False


class _Channel(asyncssh.SSHUNIXSession[bytes]):
    """A link, from the agent's end."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._decoder: Decoder | None = None
        self._channel: asyncssh.SSHUNIXChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHUNIXChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan
        self._decoder = self._agent.connected(self._write, chan.close)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Frames for the agent."""
        if self._decoder is not None:
            for frame in self._decoder.feed(data):
                self._agent.take(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone."""
        self._channel = None
        self._agent.disconnected(self._write)

    def _write(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.write(data)


async def beaten(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """The dead-man's switch of a machine on paper: armed, and content with every beat."""
    size = int(await process.stdin.readline())
    await process.stdin.readline()
    await process.stdin.readline()
    await process.stdin.readexactly(size)
    process.stdout.write(b"::armed processes\n")
    while await process.stdin.readline():
        process.stdout.write(b"ok\n")


async def listen(
    herd: Herd, key: asyncssh.SSHKey, sock: socket.socket, name: str | None = None
) -> asyncssh.SSHAcceptor:
    """Serve a machine of this name, or one for each user name."""

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        command, machine = process.command or "", name or str(process.get_extra_info("username"))
        if "bootstrap.sh" in command:
            archive = await process.stdin.read()
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                entry = tar.extractfile("bundle")
                assert entry is not None
                herd.bootstrapped(machine, entry.read().decode())
            process.stdout.write(f"::step agent\n::fact socket {SOCKET}\n::done agent 0\n".encode())
        elif command.endswith(" deadman"):
            await beaten(process)
        elif command.endswith("deadman"):
            await keep_alive(process)
        elif "cat .skyward/socket" in command and machine in herd.agents:
            process.stdout.write(SOCKET.encode())
        process.exit(0)

    return await asyncssh.listen(
        sock=sock,
        server_factory=lambda: _Machine(herd, name),
        server_host_keys=[key],
        process_factory=run,
        encoding=None,
        keepalive_interval=0,
    )


async def keep_alive(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """A dead-man's switch that never does anything: it takes what arms it, and answers each beat."""
    size, *_ = [await process.stdin.readline() for _ in ("size", "ttl", "command")]
    await process.stdin.readexactly(int(size))
    process.stdout.write(b"::armed herd\n")
    while await process.stdin.readline():
        process.stdout.write(b"ok\n")


async def words() -> AsyncIterator[str]:
    """The lines on standard input, until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while word := (await reader.readline()).decode().strip():
        yield word


async def serve(file: Path) -> None:
    """Serve until standard input ends."""
    herd, key = Herd(), asyncssh.generate_private_key("ssh-ed25519")
    server = await listen(herd, key, socket.create_server(("127.0.0.1", 0)))
    line = key.export_public_key("openssh").decode().strip()
    file.write_text(json.dumps({"port": server.get_port(), "hostKey": line}))
    print("ready", flush=True)
    async for word in words():
        herd.obey(word)
        print("done", flush=True)
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(sys.argv[1])))
