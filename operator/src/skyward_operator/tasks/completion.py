"""How a task ends: no further call, what runs is stopped, one write, then its results are acknowledged."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from skyward_operator.tasks.decide import End
    from skyward_operator.tasks.floor import Floor
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.record import Recorder
    from skyward_operator.tasks.room import Room

OVER: Final = 4000
"""The code that a client is left with when its open task has ended."""

logger = logging.getLogger(__name__)

_STOP_MARGIN_SECONDS: Final = 10.0
"""How long after the grace period an agent may be silent before its calls are given up."""


class Completion:
    """Ends tasks."""

    def __init__(
        self, floor: Floor, recorder: Recorder, drop_files: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self._floor = floor
        self._recorder = recorder
        self._drop_files = drop_files

    def stop(self, live: LiveTask, end: End) -> None:
        """End a task like this: nothing more is handed out, and what runs is asked to stop."""
        if live.ending is not None:
            return
        if live.completing:
            self._give_up_results(live, end)
            return
        live.ending = end
        live.delayed.clear()
        self._floor.room_of(live).scheduler.forget(live.work.uid)
        for attempt in live.flights:
            self._floor.sender.cancel(live, attempt)
        if live.flights:
            patience = live.work.grace_seconds + _STOP_MARGIN_SECONDS
            self._floor.later(live, patience, lambda: self._give_up(live))
        self.complete_if_done(live)

    def complete_if_done(self, live: LiveTask) -> None:
        """Begin the end of a task whose last call has ended."""
        if live.completing or not live.is_complete:
            return
        live.completing = True
        live.stop_timers()
        room = self._floor.room_of(live)
        room.scheduler.forget(live.work.uid)
        self._floor.context.supervisor.spawn(f"end of task {live.work.name}", self._complete(room, live))

    def _give_up_results(self, live: LiveTask, end: End) -> None:
        """A task all of whose calls have ended is not wanted any more: it does not wait for a store that does
        not take what they returned."""
        if live.results.trouble:
            lost = f"{end.message}; what its calls returned is lost with the operator's disk: "
            live.ending = replace(end, message=lost + live.results.trouble)
        live.results.given_up.set()

    def _give_up(self, live: LiveTask) -> None:
        room = self._floor.room_of(live)
        for attempt in live.flights:
            text = "attempt %s on %s does not say that it stopped"
            logger.warning(text, attempt.id, attempt.node, extra={"object": live.work.label})
            self._floor.disembark(room, live, attempt)
        self.complete_if_done(live)

    async def _complete(self, room: Room, live: LiveTask) -> None:
        await self._floor.logs.written(live.work.uid)
        await self._floor.custody.keep_results(live)
        await self._recorder.finish(live)
        for node, attempt in live.unacknowledged:
            self._floor.sender.acknowledge(live.work.namespace, node, [attempt])
        live.results.close()
        if live.open is not None and live.open.caller is not None:
            live.open.caller.end(OVER, "the task has ended")
        self._floor.ledger.drop(live)
        self._floor.payloads.close(live.work)
        await asyncio.to_thread(self._floor.payloads.drop_unfinished, live.work)
        self._floor.logs.close(live.work)
        room.tasks.pop(live.work.uid, None)
        room.spreading.discard(live.work.uid)
        self._floor.sweep(room)
        if live.gone:
            await self._drop_files(live.work.namespace, live.work.uid)
