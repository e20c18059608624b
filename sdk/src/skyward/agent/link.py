"""Everything that leaves the agent: control frames at once, logs within a budget, large results in turn.

What is sent within one turn of the event loop leaves in one write. Logs and large results are taken only
while little is waiting in the transport, so a control frame waits for `_LOW_WATER` bytes at most, and the
memory of the agent does not depend on how slow the link is. Without a connection, control frames are dropped
(WELCOME and the spool say everything again) and the newest logs of each attempt are kept.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from skyward.wire.frames import Frame, FrameKind, encode, encode_parts

_LOW_WATER = 512 * 1024
_SOON = 0.002
_LOGS_PER_ATTEMPT = 256 * 1024
_LOGS_IN_ALL = 16 * 1024 * 1024
_LOG_BYTES_PER_SECOND = 8 * 1024 * 1024
"""A node's share of what one operator can write down for hundreds of them."""


@dataclass(slots=True)
class _Logs:
    """Output of one attempt that has not been sent: the newest bytes, and how many older ones were lost."""

    pieces: deque[tuple[str, float, bytes]] = field(default_factory=deque)
    size: int = 0
    dropped: int = 0


class Outbox:
    """The sending half of the link."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._control: list[bytes] = []
        self._streams: deque[tuple[str, Iterator[Frame]]] = deque()
        self._logs: OrderedDict[str, _Logs] = OrderedDict()
        self._log_bytes = 0
        self._budget = float(_LOG_BYTES_PER_SECOND)
        self._budget_time = time.monotonic()
        self._scheduled = False
        self._soon: asyncio.TimerHandle | None = None
        self._budget_timer: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """Whether an operator is there to receive anything."""
        return self._transport is not None

    def attach(self, transport: asyncio.Transport) -> None:
        """Send to this connection from now on."""
        self.detach()
        transport.set_write_buffer_limits(high=_LOW_WATER, low=_LOW_WATER // 4)
        self._transport = transport

    def detach(self) -> None:
        """Nobody is listening; what was queued for the old connection is dropped, logs stay."""
        self._transport = None
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
        """Send output of an attempt, or keep its newest bytes until that is possible."""
        logs = self._logs.get(attempt)
        if logs is None:
            logs = self._logs[attempt] = _Logs()
        logs.pieces.append((stream, time.time(), data))
        logs.size += len(data)
        self._log_bytes += len(data)
        while logs.size > _LOGS_PER_ATTEMPT:
            self._drop_oldest(logs)
        while self._log_bytes > _LOGS_IN_ALL:
            self._drop_oldest(next(logs for logs in self._logs.values() if logs.pieces))
        self._schedule()

    def finish_logs(self, attempt: str) -> None:
        """The attempt has ended: its output goes out before what is sent next."""
        logs = self._logs.pop(attempt, None)
        if logs is None:
            return
        if self._transport is None:
            self._logs[attempt] = logs
            return
        self._control += self._take(attempt, logs)
        self._schedule()

    def flush_logs(self) -> None:
        """Everything that was kept while nobody listened goes out before what is sent next."""
        for attempt in list(self._logs):
            self.finish_logs(attempt)

    def forget_logs(self, attempt: str) -> None:
        """The result was acknowledged; nobody waits for output any more."""
        logs = self._logs.pop(attempt, None)
        if logs is not None:
            self._log_bytes -= logs.size

    def resume(self) -> None:
        """The transport has room again."""
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._transport is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
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
        now = time.monotonic()
        earned = (now - self._budget_time) * _LOG_BYTES_PER_SECOND
        self._budget = min(self._budget + earned, float(_LOG_BYTES_PER_SECOND))
        self._budget_time = now
        for attempt in list(self._logs):
            if self._budget <= 0:
                self._wait_for_budget()
                return
            logs = self._logs.pop(attempt)
            self._budget -= logs.size
            self._control += self._take(attempt, logs)

    def _is_soon(self) -> None:
        self._soon = None
        if self._control:
            self._schedule()

    def _wait_for_budget(self) -> None:
        if self._budget_timer is None:
            self._budget_timer = asyncio.get_running_loop().call_later(0.05, self._budget_is_back)

    def _budget_is_back(self) -> None:
        self._budget_timer = None
        self._schedule()

    def _take(self, attempt: str, logs: _Logs) -> list[bytes]:
        self._log_bytes -= logs.size
        frames: list[bytes] = []
        if logs.dropped:
            stream, when, _ = logs.pieces[0] if logs.pieces else ("stdout", time.time(), b"")
            marker = f"\n… {logs.dropped} bytes dropped\n".encode()
            frames.append(_log_frame(attempt, stream, when, marker))
        frames += (_log_frame(attempt, *piece) for piece in logs.pieces)
        return frames

    def _drop_oldest(self, logs: _Logs) -> None:
        _, _, data = logs.pieces.popleft()
        logs.size -= len(data)
        logs.dropped += len(data)
        self._log_bytes -= len(data)


def _log_frame(attempt: str, stream: str, when: float, data: bytes) -> bytes:
    return encode(Frame(FrameKind.LOG, {"attempt": attempt, "stream": stream, "time": when}, data))
