"""An SSH server that anybody may use, on loopback only: what the servers of the limits have in common."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    type Session = Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]]


class _Open(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        """Nobody is asked for a key: nothing can be had here."""
        del username
        return False


def serve(session: Session) -> None:
    """Print the port, and run `session` for each that begins, until the process is ended."""
    asyncio.run(_serve(session))


async def _serve(session: Session) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        _Open, "127.0.0.1", 0, server_host_keys=[key], process_factory=session, encoding=None
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()
