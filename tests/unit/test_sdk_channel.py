"""The connection of an open task, at the end of the session that it belongs to."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from skyward.cluster.channel import Channel


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
