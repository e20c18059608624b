"""The streams of calls of open tasks, on their way between client and node: nothing of them is kept here.

Client and worker are the two ends. A frame that finds no connection to go on is dropped; the end that reads
says what it has once there is one, and the other end says the rest again. What is remembered of a call is how
much its client has taken, for a link that comes back, and whether items of it have gone at all: then another
attempt at it would be no continuation, and is not made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skyward.wire.frames import Frame, FrameKind

if TYPE_CHECKING:
    from skyward_operator.tasks.flights import Attempt
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.room import Room


class Streaming:
    """Passes the frames of streams on, both ways."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def from_client(self, live: LiveTask, index: int, frame: Frame) -> None:
        """A CREDIT or INPUT frame. Raises KeyError, TypeError or ValueError for one that makes no sense."""
        header = dict(frame.header)
        for name in ("seq", "input") if frame.kind is FrameKind.INPUT else ("taken",):
            _check(header[name], name)
        call = live.open.calls.get(index) if live.open is not None else None
        if call is None or not call.streams:
            return  # it has ended
        if frame.kind is FrameKind.CREDIT:
            call.taken = max(call.taken, header["taken"])
            call.cancelled = call.cancelled or bool(header.get("close"))
        attempt, number = live.flights.get(index), header.pop("number", None)
        wanted = attempt is not None and (number in (None, attempt.number) or header.get("close"))
        if attempt is None or not wanted:
            return
        del header["index"]
        call.begun = call.begun or frame.kind is FrameKind.INPUT
        self._pass_on(live, attempt, frame.kind, header, frame.body)

    def from_node(self, live: LiveTask, attempt: Attempt, frame: Frame) -> None:
        """An ITEM or NEED frame of an attempt that counts."""
        if live.open is None or live.open.caller is None:
            return
        call = live.open.calls.get(attempt.index)
        if call is None or not call.streams:
            return
        call.begun = call.begun or frame.kind is FrameKind.ITEM
        header = dict(frame.header)
        del header["attempt"]
        place = {"index": attempt.index, "number": attempt.number}
        live.open.caller.send(Frame(frame.kind, {**header, **place}, frame.body))

    def rejoin(self, room: Room, node: str) -> None:
        """A node answers again: what was on its way to or from it is lost, and is said again."""
        for live in room.tasks.values():
            for index, call in live.open.calls.items() if live.open is not None else ():
                attempt = live.flights.get(index)
                if call.streams and attempt is not None and attempt.node == node:
                    header = {"taken": call.taken, "replay": True, "close": call.cancelled}
                    self._pass_on(live, attempt, FrameKind.CREDIT, header, b"")

    def _pass_on(
        self, live: LiveTask, attempt: Attempt, kind: FrameKind, header: dict[str, Any], body: Any
    ) -> None:
        self._floor.sender.pass_on(live, attempt, Frame(kind, {**header, "attempt": attempt.id}, body))


def _check(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError(f"{value!r} is no {name} of a stream")
