"""An SSH server that sends back what it gets: the other end of the floor.

It serves loopback only and prints its port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.open_server import serve

if TYPE_CHECKING:
    import asyncssh


async def _echo(process: asyncssh.SSHServerProcess[bytes]) -> None:
    while data := await process.stdin.read(65536):
        process.stdout.write(data)
    process.exit(0)


if __name__ == "__main__":
    serve(_echo)
