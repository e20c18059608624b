"""An SSH server that takes bytes and throws them away, or sends bytes: the limit of what moves large things.

It serves loopback only and prints its port. `take N` reads N bytes and answers one; `give N` sends N.
"""

from __future__ import annotations

import asyncio

import asyncssh

_PIECE = bytes(32 * 1024)


class _Open(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        """Nobody is asked for a key: nothing can be had here."""
        del username
        return False


async def _move(process: asyncssh.SSHServerProcess[bytes]) -> None:
    what, size = (process.command or "").split()
    left = int(size)
    if what == "take":
        while left > 0:
            left -= len(await process.stdin.read(1 << 18))
        process.stdout.write(b"!")
    while what == "give" and left > 0:
        process.stdout.write(_PIECE)
        await process.stdout.drain()
        left -= len(_PIECE)
    process.exit(0)


async def _serve() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        _Open, "127.0.0.1", 0, server_host_keys=[key], process_factory=_move, encoding=None
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(_serve())
