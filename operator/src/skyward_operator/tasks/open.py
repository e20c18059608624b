"""The calls of an open task, as far as they are here: what its client sent, and what it has not taken yet.

The client knows best: it keeps each call until it has the outcome, and sends again what it still waits for
when it comes back. So a call lives here from its arrival to its outcome, and an outcome until the client
acknowledges it. Both are bounded by what a client may have under way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from skyward_operator.tasks.payload import CallPayload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from skyward.wire.frames import Frame
    from skyward.wire.outcomes import Outcome
    from skyward_operator.tasks.work import Terms

AWAY_SECONDS: Final = 60.0
"""How long the client of an open task may be away before the task is cancelled."""

MOST_CALLS: Final = 16_384
MOST_BYTES: Final = 128 * 1024 * 1024
"""What one task may hold here at most; a client of ours sends a quarter of it ahead."""


_MOST_UNUSED: Final = 64


class Caller(Protocol):
    """The connected client of an open task. Calls never block and never fail."""

    def send(self, frame: Frame) -> None:
        """Send a frame with the others of this turn."""
        ...

    def outcome(self, outcome: Outcome) -> None:
        """Tell how a call ended; its body may be large."""
        ...

    def end(self, code: int, words: str) -> None:
        """Nothing more is to be said."""
        ...


@dataclass(slots=True, eq=False)
class OpenCall:
    """One call without an outcome."""

    function: str
    arguments: bytes
    digest: str | None = None
    """Of arguments that go to the node as a blob, which checks it: hashing them here would hold up all."""
    terms: Terms | None = None
    """How long it may run and how often it is tried again, where that differs from its task's other calls."""
    cancelled: bool = False
    stream: bool = False
    """What it yields goes to its client while it runs."""
    inputs: int = 0
    """Iterators of its client that it may pull from."""
    begun: bool = False
    """Items of it have gone one way or the other: another attempt would not begin where this one began."""
    taken: int = 0
    """Frames of items that its client has taken."""

    @property
    def streams(self) -> bool:
        """Whether items go to or from it."""
        return self.stream or self.inputs > 0

    def traits(self) -> dict[str, Any]:
        """What the agent has to know of it."""
        return {"stream": self.stream, "inputs": self.inputs} if self.streams else {}


@dataclass(slots=True, eq=False)
class Untaken:
    """An outcome that the client has not acknowledged. `source`: node and attempt that keep it as well.
    `stored`: the file has it, and the body is not here any more."""

    outcome: Outcome
    source: tuple[str, str] | None
    since: float
    stored: bool = False


@dataclass(slots=True, eq=False)
class OpenCalls:
    """What is known of an open task's calls, besides what is known of every task's."""

    calls: dict[int, OpenCall] = field(default_factory=dict)
    untaken: dict[int, Untaken] = field(default_factory=dict)
    caller: Caller | None = None
    closed: bool = False
    """The client sends no further calls."""
    absences: int = 0
    """Counts how often the client came and went, so that an old timer is known as such."""
    storing: bool = False
    """A look at what should be stored is due."""
    held: int = 0
    """Bytes of functions and arguments that are here."""
    counted: dict[int, int] = field(default_factory=dict)
    """By call, the attempt that an earlier operator had counted and had the outcome of: its agent may keep it
    still, and its client may have it already."""
    _pieces: list[bytes] = field(default_factory=list)
    """Of a body that is too large for the frame which follows."""
    _functions: dict[str, bytes] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)

    def begin_again(self) -> None:
        """A client is there: nothing of what another connection brought half belongs to it."""
        self.held -= sum(map(len, self._pieces))
        self._pieces.clear()

    def keep_piece(self, data: bytes) -> None:
        """A piece of a large body. Raises ValueError for more than is allowed."""
        self._make_room(len(data))
        self._pieces.append(data)
        self.held += len(data)

    def body_of(self, frame: Frame) -> bytes:
        """The body of a frame, or the pieces before it. Raises ValueError where they do not belong to it."""
        size = frame.header.get("pieces")
        whole = bytes(frame.body) if size is None else b"".join(self._pieces)
        if size is not None:
            self.begin_again()
            if len(whole) != size:
                raise ValueError(f"{len(whole)} bytes in pieces, where {size!r} were announced")
        return whole

    def keep_function(self, digest: str, data: bytes) -> None:
        """A function that calls will name. Raises ValueError for more than is allowed."""
        if digest in self._functions:
            return
        self._make_room(len(data))
        self._functions[digest] = data
        self.held += len(data)

    def add(self, index: int, call: OpenCall) -> None:
        """A call. Raises KeyError when its function is not here, ValueError for more than is allowed."""
        self._functions[call.function] = self._functions.pop(call.function)
        if len(self.calls) >= MOST_CALLS:
            raise ValueError("more calls are under way than an open task may have")
        self._make_room(len(call.arguments), keep=call.function)
        self._uses[call.function] += 1
        self.calls[index] = call
        self.held += len(call.arguments)

    def drop(self, index: int) -> None:
        """The call has its outcome. Its function stays for others while there is room."""
        call = self.calls.pop(index, None)
        if call is not None:
            self.held -= len(call.arguments)
            self._uses[call.function] -= 1
            if not self._uses[call.function]:
                del self._uses[call.function]

    def _make_room(self, size: int, keep: str = "") -> None:
        """Let go of functions that no call needs, longest unused first."""
        unused = [digest for digest in self._functions if digest not in self._uses and digest != keep]
        while unused and (self.held + size > MOST_BYTES or len(unused) > _MOST_UNUSED):
            self.held -= len(self._functions.pop(unused.pop(0)))
        if self.held + size > MOST_BYTES:
            raise ValueError("more bytes are under way than an open task may have")

    def payload(self, index: int) -> CallPayload:
        """What the call carries."""
        call = self.calls[index]
        function = memoryview(self._functions[call.function])
        return CallPayload(call.function, function, memoryview(call.arguments))

    def terms(self, index: int) -> Terms | None:
        """The terms that the call has brought along, if any."""
        call = self.calls.get(index)
        return None if call is None else call.terms

    def is_cancelled(self, index: int) -> bool:
        """Whether the client has cancelled the call."""
        call = self.calls.get(index)
        return call is not None and call.cancelled

    def has_begun(self, index: int) -> bool:
        """Whether items of the call have gone one way or the other."""
        call = self.calls.get(index)
        return call is not None and call.begun

    def unsent(self, known: Iterable[int]) -> list[int]:
        """The calls that are here and not among `known`, in order."""
        return sorted(self.calls.keys() - set(known))
