"""Streams over a link that is cut at random bytes: each item goes in once and comes out once, in order.

The agent, SSH and the operator's half of a node are real, and so is the caller's end of the stream; only the
session between caller and operator is a call in this process.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos import cut_campaign, cut_scene
from tests.chaos.cut_proxy import Cut

from skyward.contract.names import TASK
from skyward.errors import TaskCancelled
from skyward.streaming import CallFlow
from skyward.wire import codec
from skyward.wire.digest import digest
from skyward.wire.frames import Frame, FrameKind
from skyward.wire.streams import InputMark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skyward.wire.outcomes import Outcome

MORE = int(os.environ.get("SEEDS") or 0)
ROUNDS = 12
MOST_BYTES = 2 * 1024 * 1024


def double(items: Iterator[bytes]) -> Iterator[bytes]:
    for item in items:
        yield item * 2


class Session:
    """The client of one open task with one call. Implements `tasks.open.Caller`."""

    def __init__(self, place: cut_scene.Scene, uid: str, items: Iterator[bytes]) -> None:
        assert place.operator is not None
        backend = place.operator.tasks.gateway_backend
        self.flow = CallFlow("task", [items], stream=True)
        self._loop = asyncio.get_running_loop()
        self._reception, self._live = backend.reception, backend.live(uid)

    def begin(self) -> None:
        """Connect and send the call."""
        function = codec.dumps_function(double)
        self.flow.begin(0, self._say_soon)
        assert self._live is not None
        self._reception.attach(self._live, self, {"next": 0})
        self._say(Frame(FrameKind.FUNCTION, {"digest": digest(function)}, function))
        header = {"index": 0, "function": digest(function), **self.flow.traits()}
        self._say(Frame(FrameKind.CALL, header, codec.dumps(((InputMark(0),), {}))))

    def send(self, frame: Frame) -> None:
        """The operator says something."""
        if frame.kind in (FrameKind.ITEM, FrameKind.NEED):
            self.flow.receive(frame)

    def outcome(self, outcome: Outcome) -> None:
        """The call has ended, and with it the task."""
        self.flow.ended(outcome)
        self._say(Frame(FrameKind.ACK, {"indexes": [0]}))
        self._say(Frame(FrameKind.CLOSE, {"next": 1}))

    def end(self, code: int, words: str) -> None:
        """The task is over."""

    def _say_soon(self, frame: Frame) -> None:
        """From the threads of the reader and of the iterator."""
        self._loop.call_soon_threadsafe(self._say, frame)

    def _say(self, frame: Frame) -> None:
        assert self._live is not None
        self._reception.receive(self._live, frame)
        self._reception.heard(self._live)


async def play(place: cut_scene.Scene, seed: int) -> int:
    """One round; how many cuts were made in it."""
    chance = random.Random(seed)
    sizes = [chance.choice((0, 10, 1000, 400_000)) for _ in range(chance.randint(1, 80))]
    items = [bytes([number]) * size for number, size in enumerate(sizes)]
    name, before = f"stream-{seed}", place.proxy.made.total()
    place.proxy.cuts.extend(Cut.random(chance, MOST_BYTES) for _ in range(chance.randint(1, 5)))
    assert place.api is not None
    body = {"poolRef": {"name": "pool"}, "calls": {"python": cut_scene.PYTHON, "open": True}}
    task: dict[str, Any] = {"metadata": {"namespace": "default", "name": name}, "spec": body}
    made = await place.api.create(TASK, task)
    session = Session(place, str(made["metadata"]["uid"]), iter(items))
    session.begin()
    place.proxy.cut_now("close")  # the next connection takes the first of the round's cuts
    try:
        found = await asyncio.wait_for(asyncio.to_thread(list, session.flow.items()), cut_scene.PATIENCE)
    finally:
        session.flow.ended(TaskCancelled("the round is over"))  # who waits on in vain is a thread
    assert found == [item * 2 for item in items], f"seed {seed}"
    place.proxy.cuts.clear()
    status = await place.ends(name)
    assert (status["phase"], status["attempts"]["total"]) == ("Succeeded", 1), status
    place.proxy.release()
    await place.api.delete(TASK, "default", name)
    return place.proxy.made.total() - before


@pytest.mark.timeout(180 + 10 * MORE)
async def test_items_arrive_once_however_often_the_link_is_cut(tmp_path: Path) -> None:
    cuts = 0
    with cut_campaign.impatient():
        async with cut_scene.scene(tmp_path) as place:
            for seed in range(ROUNDS + MORE):
                cuts += await play(place, seed)
    print(f"{ROUNDS + MORE} streams, {cuts} cuts")
    assert cuts >= ROUNDS
