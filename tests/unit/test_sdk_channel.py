"""The connection of an open task, at the end of the session that it belongs to."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import websocket

from skyward.cluster.channel import Channel, _Breaks

if TYPE_CHECKING:
    import pytest

if TYPE_CHECKING:
    import pytest


def test_channel_that_is_closed_while_it_connects_ends_without_a_word() -> None:
    connecting, closed = threading.Event(), threading.Event()

    def place(_: str) -> Any:
        connecting.set()
        assert closed.wait(30)
        raise RuntimeError("Cannot send a request, as the client has been closed.")

    channel = Channel(SimpleNamespace(place=place), "/session", SimpleNamespace())  # type: ignore[arg-type]
    said: list[Any] = []
    before, threading.excepthook = threading.excepthook, said.append
    try:
        channel.start()
        assert connecting.wait(30)
        (reader,) = (each for each in threading.enumerate() if each.name == "skyward-session")
        channel.close()
        closed.set()
        reader.join(30)
    finally:
        threading.excepthook = before
    assert not reader.is_alive()
    assert said == []


def test_a_gateway_that_does_not_understand_this_client_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It speaks another protocol: the words come at once, not a minute later that nobody was connected."""
    close = (websocket.ABNF.OPCODE_CLOSE, (1008).to_bytes(2) + b"protocol 6; this operator speaks 7")
    refused, connections = threading.Event(), []

    def connect(_: Channel) -> Any:
        connections.append(1)
        return SimpleNamespace(recv_data=lambda: close, sock=None, shutdown=lambda: None)

    monkeypatch.setattr(Channel, "_connect", connect)
    words: list[str] = []

    def take(said: str) -> None:
        words.append(said)
        refused.set()

    peer = SimpleNamespace(refused=take)
    channel = Channel(SimpleNamespace(), "/session", peer)  # type: ignore[arg-type]
    channel.start()
    assert refused.wait(30)
    channel.close()
    assert words == ["protocol 6; this operator speaks 7"]
    assert len(connections) == 1


def test_connections_that_are_made_and_bring_nothing_are_given_up_where_somebody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, waits, said = 0.0, False, list[str]()
    monkeypatch.setattr("skyward.cluster.channel.time.monotonic", lambda: now)

    def broken(words: str) -> bool:
        said.append(words)
        return waits

    peer: Any = SimpleNamespace(broken=broken)
    breaks = _Breaks()

    def connection(seconds: float, *, heard: bool = False) -> bool:
        nonlocal now
        breaks.begin()
        now += seconds
        if heard:
            breaks.heard()
        return breaks.ended("cut", peer)

    for _ in range(100):
        assert not connection(1, heard=True)
        assert not connection(5)
    assert not connection(3600)
    assert said == []
    for _ in range(10):
        assert not connection(10)
    waits = True
    assert connection(1)
    assert said[-1] == "11 connections in a row broke before anything came through; the last: cut"
