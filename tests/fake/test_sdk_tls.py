"""The TLS connection of sessions, against OpenSSL's other half in a thread."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from skyward.cluster.tls import TlsSocket
from skyward.local.pki import ensure_pki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 8_000_000


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server, and of a client who knows its authority."""
    pki = ensure_pki(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.server_certificate, pki.server_key)
    return server, ssl.create_default_context(cafile=str(pki.authority))


@pytest.fixture
def serve(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Callable[..., socket.socket]]:
    """A factory: a connection to a server that does this with its side."""
    threads: list[threading.Thread] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def make(act: Callable[[ssl.SSLSocket], object]) -> socket.socket:
        def run() -> None:
            plain, _ = listener.accept()
            plain.settimeout(30)
            try:
                with contexts[0].wrap_socket(plain, server_side=True) as side:
                    act(side)
            except OSError:
                plain.close()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return socket.create_connection(listener.getsockname(), 30)

    yield make
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    listener.close()


def read(side: TlsSocket | ssl.SSLSocket, size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        piece = side.recv(1 << 16)
        assert piece, f"it ended after {len(pieces)} bytes"
        pieces += piece
    return bytes(pieces)


def test_both_directions_at_once_bring_what_was_sent(
    serve: Callable[..., socket.socket], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    up, down = os.urandom(SIZE), os.urandom(SIZE)
    got: list[bytes] = []
    has_all = threading.Event()

    def act(side: ssl.SSLSocket) -> None:
        # One thread, one direction after the other in pieces: what the client writes waits in between.
        for start in range(0, SIZE, 100_000):
            side.sendall(down[start : start + 100_000])
            got.append(read_exactly(side, 100_000))
        has_all.set()

    def read_exactly(side: ssl.SSLSocket, size: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            pieces += side.recv(size - len(pieces))
        return bytes(pieces)

    client = TlsSocket(serve(act), contexts[1], "127.0.0.1")
    writer = threading.Thread(
        target=lambda: [client.send(up[n : n + 70_000]) for n in range(0, SIZE, 70_000)]
    )
    writer.start()
    assert read(client, SIZE) == down
    writer.join(30)
    assert has_all.wait(30)  # it reads the last piece after it has sent its own
    assert b"".join(got) == up
    client.close()


def test_a_server_of_another_authority_is_refused(serve: Callable[..., socket.socket]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsSocket(serve(lambda side: side.recv(1)), ssl.create_default_context(), "127.0.0.1")


def test_a_silent_server_is_left_after_the_time_out(
    serve: Callable[..., socket.socket], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    done = threading.Event()
    client = TlsSocket(serve(lambda _: done.wait(30)), contexts[1], "127.0.0.1")
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    done.set()
    client.close()


def test_a_read_ends_when_another_thread_breaks_the_connection(
    serve: Callable[..., socket.socket], contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    client = TlsSocket(serve(lambda side: side.recv(1)), contexts[1], "127.0.0.1")
    ended = threading.Event()

    def wait() -> None:
        with suppress(OSError):
            client.recv(1)
        ended.set()

    reader = threading.Thread(target=wait)
    reader.start()
    client.shutdown(socket.SHUT_RDWR)
    assert ended.wait(30)
    reader.join()
    client.close()
