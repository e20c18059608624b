"""Hardware for the simulated cloud: each machine is an SSH server in the cloud's own process, with an agent
that runs nothing. Hundreds of them take as much memory as ten real ones.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import asyncssh

from benchmarks.herd.server import listen
from simcloud.vms import NoVms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.herd.server import Herd
    from simcloud.state import Instance

SWITCH_SECONDS = 30.0


class HerdVms(NoVms):
    """Machines of a herd, with no time and no console of their own; none ends by itself. `power_on` and
    `power_off` are called in threads, the rest in the event loop."""

    user = "herd"

    def __init__(self, herd: Herd) -> None:
        self._herd = herd
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}
        """By port, those that were given out: bound, so that nobody else gets one, and deaf."""
        self._keys: dict[str, tuple[asyncssh.SSHKey, int]] = {}
        self._servers: dict[str, asyncssh.SSHAcceptor] = {}

    def address(self) -> tuple[str, int]:
        """A port of its own."""
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        self._sockets[port] = sock
        return host, port

    def prepare(
        self,
        instance: Instance,
        private_host_key: bytes,
        ssh_public_key: str,
        metadata: str,
        commands: Sequence[Sequence[str]],
    ) -> None:
        """Remember its key; nobody listens yet."""
        self._keys[instance.id] = asyncssh.import_private_key(private_host_key), instance.port

    def power_on(self, instance_id: str) -> None:
        """Begin to listen; `listens` tells when it does. Waiting would take the thread that asyncssh needs
        for that: there are few."""
        asyncio.run_coroutine_threadsafe(self._listen(instance_id), self._loop)

    def listens(self, instance_id: str) -> bool:
        """Whether it listens."""
        return instance_id in self._servers

    def power_off(self, instance_id: str) -> bool:
        """Hang up on everybody and forget its agent."""
        asyncio.run_coroutine_threadsafe(self._close(instance_id), self._loop).result(SWITCH_SECONDS)
        return True

    async def _listen(self, instance_id: str) -> None:
        key, port = self._keys[instance_id]
        sock = self._sockets.pop(port)
        sock.setblocking(False)
        self._servers[instance_id] = await listen(self._herd, key, sock, instance_id)

    async def _close(self, instance_id: str) -> None:
        self._herd.agents.pop(instance_id, None)
        _, port = self._keys.pop(instance_id, (None, 0))
        if (sock := self._sockets.pop(port, None)) is not None:
            sock.close()
        if (server := self._servers.pop(instance_id, None)) is not None:
            server.close()
        self._herd.cut(instance_id)
