"""Everything that leaves the agent: control frames at once, logs within a budget, large results in turn.

What is sent within one turn of the event loop leaves in one write. Logs and large results are taken only
while little is waiting in the transport, so a control frame waits for `_LOW_WATER` bytes at most, and the
memory of the agent does not depend on how slow the link is. Without a connection, control frames are dropped
(WELCOME and the spool say everything again) and `output` keeps the newest logs of each attempt.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from skyward.agent.output import STALLED_SECONDS, Output
from skyward.wire.frames import Frame, encode, encode_parts

_LOW_WATER = 512 * 1024
_SOON = 0.002
_LOG_BURST = 256 * 1024
_LOG_BYTES_PER_SECOND = 16 * 1024 * 1024
"""A node's share of what one operator can write down for hundreds of them."""
_SHARED_BYTES_PER_SECOND = 1024 * 1024
"""The same while other calls end here, which wait for the same processes. On a machine with more work than
cores 5 MiB/s slowed them by 27 %, 1 MiB/s by 9 %. Who prints more waits meanwhile, and loses nothing."""
_SHARED_SECONDS = 1.0
_LOOK_SECONDS = 0.01
_SHARED_LOOK_SECONDS = 0.05
"""Then it goes in fewer, larger portions: each one wakes every process on the way."""


class Outbox:
    """The sending half of the link."""

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._control: list[bytes] = []
        self._streams: deque[tuple[str, Iterator[Frame]]] = deque()
        self._output = output
        self._budget = float(_LOG_BURST)
        self._budget_time = clock()
        self._shared_until = 0.0
        self._scheduled = False
        self._soon: asyncio.TimerHandle | None = None
        self._budget_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """Whether an operator is there to receive anything."""
        return self._transport is not None

    def attach(self, transport: asyncio.Transport) -> None:
        """Send to this connection from now on."""
        self.detach()
        transport.set_write_buffer_limits(high=_LOW_WATER, low=_LOW_WATER // 4)
        self._transport = transport
        self._output.listen(True)

    def detach(self) -> None:
        """Nobody is listening; what was queued for the old connection is dropped, logs stay."""
        self._transport = None
        self._output.listen(False)
        self._control.clear()
        self._streams.clear()

    def send(self, frame: Frame) -> None:
        """Send a control frame with the others of this turn."""
        if self._transport is not None:
            self.send_encoded(encode(frame))

    def send_encoded(self, data: bytes, *, soon: bool = False) -> None:
        """Send a control frame that has been encoded already, `soon` or in this turn."""
        if self._transport is None:
            return
        self._control.append(data)
        if not soon:
            self._schedule()
        elif self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SOON, self._is_soon)

    def send_soon(self, frame: Frame) -> None:
        """Send a control frame with the next one, or after a moment: it is not worth a write of its own."""
        if self._transport is not None:
            self.send_encoded(encode(frame), soon=True)

    def stream(self, name: str, frames: Iterator[Frame]) -> None:
        """Send these frames as the link has room, in turn with other streams; one of the same name ends."""
        if self._transport is not None:
            self.end_stream(name)
            self._streams.append((name, frames))
            self._schedule()

    def end_stream(self, name: str) -> None:
        """Nobody wants the rest of this stream."""
        self._streams = deque(each for each in self._streams if each[0] != name)

    def log(self, attempt: str, stream: str, data: bytes) -> None:
        """Send output of an attempt, or keep it until that is possible."""
        self._output.add(attempt, stream, data)
        self._schedule()
        if self._stall_timer is None and self._transport is not None:
            loop = asyncio.get_running_loop()
            self._stall_timer = loop.call_later(STALLED_SECONDS, self._look_for_stall)

    def finish_logs(self, attempts: Iterable[str]) -> None:
        """These attempts have ended: their output goes out before what is sent next."""
        self._earn()
        self._shared_until = self._budget_time + _SHARED_SECONDS
        if not self._output.empty:
            for attempt in attempts:
                self._output.finish(attempt)
                if self._transport is not None:
                    self._control += self._output.take_all(attempt)
        self._schedule()

    def flush_logs(self) -> None:
        """What was kept of attempts that have ended goes out before what is sent next."""
        for attempt in self._output.finished():
            self._control += self._output.take_all(attempt)
        self._schedule()

    def written_down(self, attempts: dict[str, int]) -> None:
        """The operator has the output of these attempts up to there."""
        for attempt, end in attempts.items():
            self._output.written_down(attempt, end)

    def resume(self) -> None:
        """The transport has room again."""
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._transport is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._soon is not None:  # it leaves now; later it would only cost a write of its own
            self._soon.cancel()
            self._soon = None
        transport = self._transport
        if transport is None:
            return
        waiting = transport.get_write_buffer_size()
        if waiting <= _LOW_WATER:
            self._pump_logs()
        parts, self._control = self._control, []
        if parts:
            transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        self._pump_streams(transport)

    def _pump_streams(self, transport: asyncio.Transport) -> None:
        """One frame of each stream in turn, uncopied, while little is waiting; the rest in the next turn."""
        for _ in range(len(self._streams)):
            if transport.get_write_buffer_size() > _LOW_WATER:
                return  # the transport paused us, and says when it has room
            name, frames = self._streams.popleft()
            frame = next(frames, None)
            if frame is not None:
                self._streams.append((name, frames))
                for part in encode_parts(frame):
                    transport.write(part)
        if self._streams:
            self._schedule()

    def _pump_logs(self) -> None:
        if not self._output.waiting or self._budget_timer is not None:
            return
        self._earn()
        if self._budget > 0:
            for size, frame in self._output.take(int(self._budget) + 1):
                self._budget -= size
                self._control.append(frame)
        if self._output.waiting:
            self._wait_for_budget()

    def _earn(self) -> None:
        """Add to the budget what the time since the last look is worth."""
        now = self._clock()
        shared = now < self._shared_until
        rate = _SHARED_BYTES_PER_SECOND if shared else _LOG_BYTES_PER_SECOND
        self._budget = min(self._budget + (now - self._budget_time) * rate, float(_LOG_BURST))
        self._budget_time = now

    def _is_soon(self) -> None:
        self._soon = None
        if self._control:
            self._schedule()

    def _wait_for_budget(self) -> None:
        pause = _SHARED_LOOK_SECONDS if self._budget_time < self._shared_until else _LOOK_SECONDS
        self._budget_timer = asyncio.get_running_loop().call_later(pause, self._budget_is_back)

    def _budget_is_back(self) -> None:
        self._budget_timer = None
        self._schedule()

    def _look_for_stall(self) -> None:
        self._stall_timer = None
        if self._transport is not None and self._output.holding:
            self._output.unstick()
            loop = asyncio.get_running_loop()
            self._stall_timer = loop.call_later(STALLED_SECONDS, self._look_for_stall)
