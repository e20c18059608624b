"""Both ends of a stream over a line that is cut at random: every item arrives once, in order, both ways.

The worker's end and the caller's end are the real ones, in threads of their own. Between them is what the
operator does: it passes frames on, drops those that have no connection, and remembers what was taken.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from skyward.agent.streams import CallStream
from skyward.streaming import CallFlow
from skyward.wire.codec import dumps
from skyward.wire.frames import Frame, FrameKind
from skyward.wire.package import Outcome
from skyward.wire.streams import InputMark

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = 80
ATTEMPT = "uid.0.1"
PLACE = {"index": 0, "number": 1}


class Line:
    """The operator between the two ends: frames on their way to and from it, each way one after the other."""

    def __init__(self, chance: random.Random, rate: float) -> None:
        self.flow: CallFlow
        self.stream = CallStream(ATTEMPT, lambda frame: self._put("from worker", frame))
        self.cuts = 0
        self._chance = chance
        self._rate = rate
        self._taken = 0
        self._changed = threading.Condition()
        self._ways: dict[str, deque[Frame]] = {
            name: deque() for name in ("from worker", "to caller", "from caller", "to worker")
        }
        self._over = False

    def from_caller(self, frame: Frame) -> None:
        """CallFlow says something."""
        self._put("from caller", frame)

    def run(self) -> None:
        """Pass frames on, and cut one of the connections now and then, until it is over."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over or any(self._ways.values()))
                if self._over:
                    return
            if self._chance.random() < self._rate:
                self.cuts += 1
                self._chance.choice((self._cut_link, self._cut_session))()
            with self._changed:
                waiting = [name for name, frames in self._ways.items() if frames]
                if not waiting:
                    continue
                name = self._chance.choice(waiting)
                frame = self._ways[name].popleft()
            self._pass_on(name, frame)

    def end(self) -> None:
        """Nothing more is passed on."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _put(self, way: str, frame: Frame) -> None:
        with self._changed:
            self._ways[way].append(frame)
            self._changed.notify_all()

    def _pass_on(self, way: str, frame: Frame) -> None:
        match way:
            case "from worker":
                self._put("to caller", Frame(frame.kind, {**frame.header, **PLACE}, frame.body))
            case "to caller":
                self.flow.receive(frame)
            case "from caller":
                if frame.kind is FrameKind.CREDIT:
                    self._taken = max(self._taken, frame.header["taken"])
                self._put("to worker", Frame(frame.kind, {**frame.header, "attempt": ATTEMPT}, frame.body))
            case "to worker":
                self.stream.receive(frame)

    def _cut_link(self) -> None:
        """Between operator and agent; once it is there again the operator says how far the caller is."""
        self._lose("from worker", "to worker")
        self._put("to worker", Frame(FrameKind.CREDIT, {"taken": self._taken, "replay": True}))

    def _cut_session(self) -> None:
        """Between caller and operator; once it is there again the caller says how far it is."""
        self._lose("to caller", "from caller")
        self._put("from caller", self.flow.again())

    def _lose(self, *ways: str) -> None:
        """What was sent and has not arrived is lost, from some place on."""
        with self._changed:
            for way in ways:
                for _ in range(self._chance.randint(0, len(self._ways[way]))):
                    self._ways[way].pop()


def double(items: Iterator[bytes]) -> Iterator[bytes]:
    for item in items:
        yield item * 2


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.2], ids=["never", "sometimes", "often"])
def test_every_item_arrives_once_and_in_order(rate: float) -> None:
    cuts = 0
    for seed in range(CASES):
        chance = random.Random(f"{rate} {seed}")
        sizes = [chance.choice((0, 1, 10, 300_000)) for _ in range(chance.randint(0, 60))]
        items = [bytes([number]) * size for number, size in enumerate(sizes)]
        line = Line(chance, rate)
        line.flow = CallFlow("task", [iter(items)], stream=True)
        line.flow.begin(0, line.from_caller)

        def call(line: Line = line) -> None:
            (pulled,), _ = line.stream.with_inputs([InputMark(0)], {})
            value: Any = line.stream.deliver(double(pulled))  # type: ignore[arg-type]
            line.flow.ended(Outcome(0, True, dumps(value)))

        threads = [threading.Thread(target=each, daemon=True) for each in (line.run, call)]
        for thread in threads:
            thread.start()
        found = list(line.flow.items())
        line.end()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert found == [item * 2 for item in items], f"seed {seed}"
        cuts += line.cuts
    print(f"{CASES} cases, {cuts} cuts")
    assert bool(cuts) == bool(rate)
