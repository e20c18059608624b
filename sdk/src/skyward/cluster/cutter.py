"""Ending a stream that another thread reads: closing the client does not wake that read, its socket does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx


class Cutter:
    """Ends the stream that is being read now, and every later one at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_used = False

    def cut(self) -> None:
        """End it; the reader sees the end of the stream or a broken connection."""
        with self._lock:
            self._is_used = True
            if self._socket is not None:
                _shut(self._socket)

    @contextmanager
    def around(self, response: httpx.Response) -> Iterator[None]:
        """While the body reads `response`, `cut` ends it."""
        with self._lock:
            self._socket = response.extensions["network_stream"].get_extra_info("socket")
            if self._is_used and self._socket is not None:
                _shut(self._socket)
        try:
            yield
        finally:
            with self._lock:
                self._socket = None


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
