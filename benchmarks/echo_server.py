"""An SSH server that sends back what it gets: the other end of the floor.

It serves loopback only and prints its port.
"""

from __future__ import annotations

import asyncio

import asyncssh


class _Open(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        """Nobody is asked for a key: nothing but echo can be had here."""
        del username
        return False


async def _echo(process: asyncssh.SSHServerProcess[bytes]) -> None:
    while data := await process.stdin.read(65536):
        process.stdout.write(data)
    process.exit(0)


async def _serve() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        _Open, "127.0.0.1", 0, server_host_keys=[key], process_factory=_echo, encoding=None
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(_serve())
