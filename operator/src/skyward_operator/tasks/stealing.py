"""Calls that wait behind others on a busy node are called back when slots are idle and nothing else waits.

A node that is slower than the others, or a call that takes long, holds up what was sent there with it. The
agent gives back what has not begun; that waits again, and the idle slots take it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from skyward_operator.tasks.flights import Attempt
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.room import Room

PAUSE_SECONDS: Final = 0.05
"""Between two looks at a pool: one slice of each task is called back at most."""
_WORTH_SECONDS: Final = 0.05
"""Less work than this ends sooner than it moves."""


class Stealing:
    """Looks at pools with idle slots."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def look(self, room: Room) -> None:
        """Call back what is worth it, now or in a moment."""
        if room.look is not None or not room.spreading or not room.scheduler.idle():
            return
        loop = asyncio.get_running_loop()
        wait = room.looked + PAUSE_SECONDS - loop.time()
        room.look = loop.call_later(max(0.0, wait), self._look, room)

    def _look(self, room: Room) -> None:
        room.look, room.looked = None, asyncio.get_running_loop().time()
        if not room.scheduler.idle() or not self._floor.context.leadership.is_leader:
            return
        now = self._floor.context.clock.monotonic()
        may_move = False
        for uid in list(room.spreading):
            live = room.tasks.get(uid)
            if live is None or live.ending is not None:
                room.spreading.discard(uid)
            elif live.submitted and not room.scheduler.waiting(uid) and not _is_bounded(live):
                may_move = may_move or any(movable(each) for each in live.flights)
                if (found := choose(live.flights, live.paces, now)) is not None:
                    found.recalled = True
                    self._floor.sender.recall(live, found)
        if may_move:
            self.look(room)


def _is_bounded(live: LiveTask) -> bool:
    """Whether as many slots work on the task as may."""
    most = live.work.parallelism
    return most is not None and len(live.flights) >= most


def movable(attempt: Attempt) -> int:
    """How many of its calls have not begun, and were not asked for."""
    return 0 if attempt.recalled else attempt.count - (attempt.started is not None)


def choose(flights: Iterable[Attempt], paces: Mapping[str, float], now: float) -> Attempt | None:
    """The attempt with the most work that has not begun; None where no work is worth to be moved.

    `paces`: the seconds that a call took last on each node. A node that has said nothing for longer counts
    for more. What was sent a moment ago may be about to begin.
    """
    best: tuple[float, Attempt] | None = None
    for attempt in flights:
        calls, heard = movable(attempt), attempt.heard
        if not calls or (heard is not None and attempt.started is None and now - heard < PAUSE_SECONDS):
            continue
        silent = now - heard - PAUSE_SECONDS if heard is not None else 0.0
        pace = max(paces.get(attempt.node, 0.0), silent)
        work = calls * pace
        if work >= _WORTH_SECONDS and (best is None or work > best[0]):
            best = work, attempt
    return best[1] if best is not None else None
