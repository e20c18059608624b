"""Output of attempts, kept until the operator has written it down.

Each attempt's output is numbered by bytes. What was sent is kept until LOGGED says that it is on the
operator's disk, and is sent again over the next connection: the numbers let the operator recognise what it
has. Two bounds hold the memory. At the first one the attempt is held: nobody reads its pipe, so the function
waits in its own print, and nobody else waits. At the second, reached only where holding is of no use (no
operator is there, it takes nothing down, or the attempt is being ended), the oldest whole lines go, and the
frame after the gap says how much is missing.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from skyward.wire import printed
from skyward.wire.frames import Frame, FrameKind, encode

HOLD_BYTES = 1024 * 1024
"""Of one attempt: as much as a link of 100 ms and 10 MB/s needs on its way."""
KEPT_BYTES = 2 * 1024 * 1024
KEPT_IN_ALL = 32 * 1024 * 1024
PIECE = 64 * 1024
_ENDS = 1024
STALLED_SECONDS = 5.0
"""An operator that writes nothing down for this long is waited for no longer."""


@dataclass(slots=True)
class _Piece:
    """Bytes of one stream that were printed one after the other; `lost` is what is missing before them."""

    stream: str
    when: float
    at: int
    data: bytearray
    lost: int = 0
    lost_lines: int = 0


@dataclass(slots=True)
class _Log:
    """Output of one attempt that is not known to be written down."""

    sent: deque[_Piece] = field(default_factory=deque)
    waiting: deque[_Piece] = field(default_factory=deque)
    cut: dict[str, bytes] = field(default_factory=dict)
    """By stream: the beginning of a character whose rest has not been read yet."""
    end: int = 0
    size: int = 0
    held: bool = False
    finished: bool = False


class Output:
    """The output of all attempts of the node. `hold` is told whose output shall wait, and whose no longer."""

    def __init__(self, hold: Callable[[str, bool], None] = lambda attempt, held: None) -> None:
        self._hold = hold
        self._logs: dict[str, _Log] = {}
        self._ends: OrderedDict[str, int] = OrderedDict()
        """How much the latest attempts printed: threads that a call left behind may print on."""
        self._waiting: dict[str, None] = {}
        """Attempts that have something to send, in the order of their turns."""
        self._size = 0
        self._listening = False
        self._progress = 0.0

    @property
    def waiting(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._waiting)

    @property
    def empty(self) -> bool:
        """Whether nothing is kept of any attempt."""
        return not self._logs

    @property
    def holding(self) -> bool:
        """Whether somebody's output waits."""
        return any(log.held for log in self._logs.values())

    def finished(self) -> list[str]:
        """Attempts that have ended and have something to send."""
        return [attempt for attempt in self._waiting if self._logs[attempt].finished]

    def listen(self, listening: bool) -> None:
        """Somebody is there from now on, who is to get all that was not written down; or nobody is."""
        self._listening = listening
        self._progress = time.monotonic()
        for attempt, log in self._logs.items():
            if listening and log.sent:
                log.waiting.extendleft(reversed(log.sent))
                log.sent.clear()
                self._waiting[attempt] = None
            if not listening and log.held:
                self._release(attempt, log)

    def add(self, attempt: str, stream: str, data: bytes) -> None:
        """Take in what an attempt printed, cut anywhere."""
        log = self._logs.get(attempt)
        if log is None:
            end = self._ends.pop(attempt, None)
            log = self._logs[attempt] = _Log(end=end or 0, finished=end is not None)
        data = log.cut.pop(stream, b"") + data
        whole = _whole(data)
        if whole < len(data):
            log.cut[stream] = data[whole:]
            data = data[:whole]
        if data:
            self._append(attempt, log, stream, data)

    def finish(self, attempt: str) -> None:
        """Nothing more comes of this attempt; what was written down of it already is forgotten."""
        log = self._logs.get(attempt)
        if log is None:
            return
        for stream, data in log.cut.items():
            self._append(attempt, log, stream, data)
        log.cut.clear()
        log.finished = True
        self._release(attempt, log)
        if not log.sent and not log.waiting:
            self._forget(attempt)

    def take(self, budget: int) -> Iterator[tuple[int, bytes]]:
        """Frames to be sent, about as many bytes of output as `budget`, and how many are in each: a piece of
        each attempt in turn."""
        while budget > 0 and self._waiting:
            attempt = next(iter(self._waiting))
            del self._waiting[attempt]
            log = self._logs[attempt]
            size = len(log.waiting[0].data)
            budget -= size
            yield size, self._frame(attempt, log)
            if log.waiting:
                self._waiting[attempt] = None

    def take_all(self, attempt: str) -> Iterator[bytes]:
        """The frames of one attempt that have not been sent."""
        if attempt in self._waiting:
            del self._waiting[attempt]
            log = self._logs[attempt]
            while log.waiting:
                yield self._frame(attempt, log)

    def written_down(self, attempt: str, end: int) -> None:
        """The operator has everything of this attempt before byte `end`, or wants none of it."""
        self._progress = time.monotonic()
        log = self._logs.get(attempt)
        if log is None:
            return
        for pieces in (log.sent, log.waiting):
            while pieces and pieces[0].at + len(pieces[0].data) <= end:
                self._shrink(log, len(pieces.popleft().data))
        if not log.waiting:
            self._waiting.pop(attempt, None)
        if log.finished and not log.sent and not log.waiting:
            self._forget(attempt)
        elif log.held and log.size <= HOLD_BYTES // 2:
            self._release(attempt, log)

    def _append(self, attempt: str, log: _Log, stream: str, data: bytes) -> None:
        last = log.waiting[-1] if log.waiting else None
        if last is not None and last.stream == stream and len(last.data) + len(data) <= PIECE:
            last.data += data
        else:
            log.waiting.append(_Piece(stream, time.time(), log.end, bytearray(data)))
        if not self._size:
            self._progress = time.monotonic()
        log.end += len(data)
        log.size += len(data)
        self._size += len(data)
        self._waiting[attempt] = None
        self._bound(attempt, log)

    def _bound(self, attempt: str, log: _Log) -> None:
        if log.size > HOLD_BYTES or self._size > KEPT_IN_ALL // 2:
            if not self._listening or time.monotonic() - self._progress > STALLED_SECONDS:
                self._release(attempt, log)
            elif not log.held and not log.finished:
                log.held = True
                self._hold(attempt, True)
        while log.size > KEPT_BYTES:
            self._drop_oldest(attempt, log)
        while self._size > KEPT_IN_ALL:
            self._drop_oldest(*next((name, each) for name, each in self._logs.items() if each.size))

    def _release(self, attempt: str, log: _Log) -> None:
        if log.held:
            log.held = False
            self._hold(attempt, False)

    def unstick(self) -> None:
        """Hold nobody for an operator that writes nothing down; its output is bounded by dropping then."""
        if time.monotonic() - self._progress > STALLED_SECONDS:
            for attempt, log in self._logs.items():
                self._release(attempt, log)

    def _drop_oldest(self, attempt: str, log: _Log) -> None:
        """Forget the oldest piece, and what the next one has of its last line; that says what is missing."""
        oldest = (log.sent or log.waiting).popleft()
        lost, lines = oldest.lost + len(oldest.data), oldest.lost_lines + oldest.data.count(b"\n")
        self._shrink(log, len(oldest.data))
        if not log.sent and not log.waiting:
            log.waiting.append(_Piece(oldest.stream, oldest.when, log.end, bytearray()))
            self._waiting[attempt] = None
        following = (log.sent or log.waiting)[0]
        if following.stream == oldest.stream and not oldest.data.endswith(b"\n"):
            rest = following.data.find(b"\n") + 1
            del following.data[:rest]
            following.at += rest
            self._shrink(log, rest)
            lost, lines = lost + rest, lines + (rest > 0)
        following.lost += lost
        following.lost_lines += lines
        if not log.waiting:
            self._waiting.pop(attempt, None)

    def _frame(self, attempt: str, log: _Log) -> bytes:
        piece = log.waiting.popleft()
        log.sent.append(piece)
        header = {"attempt": attempt, "stream": piece.stream, "time": round(piece.when, 6), "at": piece.at}
        if piece.lost:
            header.update(lost=piece.lost, lost_lines=piece.lost_lines)
        said, body = printed.pack(bytes(piece.data))
        return encode(Frame(FrameKind.LOG, header | said, body))

    def _shrink(self, log: _Log, size: int) -> None:
        log.size -= size
        self._size -= size

    def _forget(self, attempt: str) -> None:
        self._ends[attempt] = self._logs.pop(attempt).end
        if len(self._ends) > _ENDS:
            self._ends.popitem(last=False)
        self._waiting.pop(attempt, None)


def _whole(data: bytes) -> int:
    """How many of these bytes come before a UTF-8 character that is cut off at their end."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needs > back else len(data)
        if byte < 0x80:
            break
    return len(data)
