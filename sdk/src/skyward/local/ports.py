"""Free loopback ports.

A port that is free now may be taken a moment later: whoever uses one must notice when the bind fails, and ask
again. Ports of an earlier start are preferred, so that kubeconfig files that people copied stay right.
"""

import socket
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"


def free_ports(count: int, preferred: Sequence[int] = ()) -> list[int]:
    """Answer `count` different free ports; those in `preferred` where they are free, each at its place."""
    held: list[socket.socket] = []
    try:
        for index in range(count):
            wanted = preferred[index] if index < len(preferred) else 0
            held.append(_bind(wanted) or _bind_any())
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


def _bind(port: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # as Go's listeners do: a connection of the last run in TIME_WAIT does not make the port taken
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, port))
        sock.listen(1)  # on Linux two binds with SO_REUSEADDR succeed; only a listener excludes another
    except OSError:
        sock.close()
        return None
    return sock


def _bind_any() -> socket.socket:
    sock = _bind(0)
    if sock is None:
        raise OSError(f"no free port on {LOOPBACK}")
    return sock
