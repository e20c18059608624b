"""An SSH server that takes bytes and throws them away, or sends bytes: the limit of what moves large things.

It serves loopback only and prints its port. `take N` reads N bytes and answers one; `give N` sends N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.open_server import serve

if TYPE_CHECKING:
    import asyncssh

_PIECE = bytes(32 * 1024)


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


if __name__ == "__main__":
    serve(_move)
