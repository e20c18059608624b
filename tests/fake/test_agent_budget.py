"""How much of the link a node's output may take."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from tests.fake.cluster_fakes import until

from skyward.agent.link import Outbox
from skyward.agent.output import HOLD_BYTES, Output

BURST = 256 * 1024
PIECE = 64 * 1024


class Wire(asyncio.Transport):
    """A connection that takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take it."""
        self.taken += len(data)

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It has no buffer."""


class Scene:
    """An outbox with much output of one call, on a clock that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wire = Wire()
        self.output = Output()
        self.outbox = Outbox(self.output, lambda: self.now)
        self.outbox.attach(self.wire)
        noise = random.Random(1)
        for _ in range(HOLD_BYTES // PIECE - 1):
            self.outbox.log("chatty", "stdout", noise.randbytes(PIECE))

    async def sent_in(self, seconds: float) -> int:
        """How much is sent once so much time has passed."""
        before = self.wire.taken
        self.now += seconds
        await until(lambda: self.wire.taken > before)
        return self.wire.taken - before


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    await until(lambda: made.wire.taken >= BURST)
    yield made
    made.outbox.detach()


async def test_output_of_a_node_alone_takes_much_of_the_link(scene: Scene) -> None:
    assert scene.wire.taken < BURST + 2 * PIECE
    assert await scene.sent_in(0.1) >= 4 * PIECE


async def test_output_takes_less_while_other_calls_end_and_much_again_afterwards(scene: Scene) -> None:
    scene.outbox.finish_logs(["another call"])
    assert await scene.sent_in(0.1) < 3 * PIECE
    scene.now += 1.0
    scene.outbox.finish_logs(["one more"])
    await scene.sent_in(0.0)
    assert await scene.sent_in(0.1) < 3 * PIECE
