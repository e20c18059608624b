"""A TLS connection on which one thread reads while another one writes.

`ssl.SSLSocket` lets both into OpenSSL at once, on a state that is made for one thread (Python before 3.13.4
does not lock it). Here only the encryption is done under a lock, in memory, and nobody waits for the network
with that lock held.
"""

import socket
import ssl
from threading import Lock

_PIECE = 64 * 1024


class TlsSocket:
    """As much of a socket as `websocket` uses. Takes over `plain`, which has a time-out; raises OSError."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._state = Lock()
        """Of the encryption."""
        self._order = Lock()
        """Records leave in the order in which they were made."""
        self._closed = False
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._handshake()
        except BaseException:
            plain.close()
            raise

    def recv(self, size: int) -> bytes:
        """What has come, at most `size` bytes; nothing at the end."""
        while True:
            with self._state:
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    answers = self._outgoing.pending
                except ssl.SSLZeroReturnError:
                    return b""
            if answers:
                self._push()
            self._pull()

    def send(self, data: bytes | memoryview) -> int:
        """Send all of it."""
        with self._order:
            with self._state:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._tls.write(rest) :]
                records = self._outgoing.read()
            self._plain.sendall(records)
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        """How long one wait for the network may take."""
        self._plain.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """How long one wait for the network may take."""
        return self._plain.gettimeout()

    def fileno(self) -> int:
        """The descriptor."""
        return self._plain.fileno()

    def shutdown(self, how: int) -> None:
        """Break the connection; who waits for it wakes up."""
        self._plain.shutdown(how)

    def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        self._plain.close()

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._push()
                self._pull()
            else:
                self._push()
                return

    def _push(self) -> None:
        with self._order:
            with self._state:
                records = self._outgoing.read()
            self._plain.sendall(records)

    def _pull(self) -> None:
        records = self._plain.recv(_PIECE)
        with self._state:
            if records:
                self._incoming.write(records)
            else:
                self._incoming.write_eof()
