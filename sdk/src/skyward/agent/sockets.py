"""Unix sockets at paths longer than the 108 bytes (104 on macOS) that a socket address can hold.

A socket is bound or connected relative to its folder. The process changes into that folder for the system
call and back, so call these before any thread or worker cares about the current directory.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_SHORT = 100


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, in a folder that only this user may enter. Replaces a stale one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _reachable(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path, timeout: float) -> socket.socket:
    """A connection to the socket at `path`, blocking, with `timeout` seconds for every step."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        with _reachable(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= _SHORT:
        yield str(path)
        return
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        yield path.name
    finally:
        os.fchdir(here)
        os.close(here)
