"""Writes of Task status: as few as people need, and one that ends the task.

A task that ends within a second is written once. Otherwise the first word comes after a second, further
ones at most once a second while calls run and every five seconds while it waits (less often where thousands
wait), and only if something changed. Results are durable here before they are acknowledged to the agents.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import TASK
from skyward.contract.reasons import TaskPhase, TaskReason
from skyward_operator.kube.errors import ApiError, Conflict, Invalid, NotFound
from skyward_operator.tasks.decide import End, ending
from skyward_operator.tasks.status import final_status, live_state, live_status, values_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward_operator.context import Context
    from skyward_operator.tasks.ledger import LiveTask

logger = logging.getLogger(__name__)

INLINE_RESULT: Final = 64 * 1024
"""Packed outcomes up to this many bytes stand in the status itself."""

_SHARE_OF_WORDS: Final = 6
"""One in so many writes at a time may be a word on a task that goes on. Those have places of their own: with
thousands of waiting tasks, the ends of others must not queue behind them."""

_LOOKS_PER_SECOND: Final = 250
"""How many waiting tasks are looked at in a second, at most: of thousands, each is looked at less often."""

_CONFLICTS: Final = 5
_LONGEST_RETRY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: until the first word on a task, between words while it runs, and while it waits."""

    first: float = 1.0
    running: float = 1.0
    waiting: float = 5.0


class Recorder:
    """The only writer of Task status."""

    def __init__(
        self, context: Context, refresh: Callable[[LiveTask], None], pace: Pace, concurrency: int = 48
    ) -> None:
        self._context = context
        self._refresh = refresh
        self._pace = pace
        self._writes = asyncio.Semaphore(concurrency)
        self._words = asyncio.Semaphore(max(1, concurrency // _SHARE_OF_WORDS))
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._said: dict[str, tuple[Any, ...]] = {}
        self._writing: set[str] = set()

    def watch(self, live: LiveTask) -> None:
        """Say how this task is doing from now on, unless it ends first."""
        self._schedule(live, self._pace.first)

    def forget(self, live: LiveTask) -> None:
        """Nothing more is said about this task."""
        uid = live.work.uid
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()
        self._said.pop(uid, None)

    async def finish(self, live: LiveTask) -> bool:
        """Write how the task ended, however long that takes; False when the object is gone."""
        self.forget(live)
        await live.results.flushed()
        if live.gone:
            return False
        end = live.ending or _natural_end(live)
        result = await self._result(live)
        delay = 0.2
        while True:
            try:
                return await self._write_final(live, end, result)
            except Invalid as error:
                # Writing it again can never succeed: say that instead of looping for ever.
                label = live.work.label
                logger.error("Task %s: its status is refused: %s", label, error, extra={"object": label})
                if end.reason is TaskReason.INTERNAL_ERROR:
                    return True
                end = End(TaskPhase.FAILED, TaskReason.INTERNAL_ERROR, f"its status was refused: {error}")
                result, live.first_failure = None, None
            except ApiError as error:
                label = live.work.label
                logger.warning("Task %s: %s; again in %.1f s", label, error, delay, extra={"object": label})
                await self._context.clock.sleep(delay)
                delay = min(_LONGEST_RETRY_SECONDS, delay * 2)

    async def _write_final(self, live: LiveTask, end: End, result: dict[str, Any] | None) -> bool:
        work, store = live.work, self._context.store
        async with self._writes:
            known = store.get(TASK, *work.key)
            for _ in range(_CONFLICTS):
                if known is None or known["metadata"]["uid"] != work.uid:
                    return False
                conditions = (known.get("status") or {}).get("conditions") or ()
                status = final_status(live, end, result, conditions, self._context.clock.now())
                version = known["metadata"].get("resourceVersion")
                try:
                    await self._context.api.patch_status(TASK, *work.key, status, resource_version=version)
                except NotFound:
                    return False
                except Conflict:
                    try:
                        known = await self._context.api.get(TASK, *work.key)
                    except NotFound:
                        return False
                else:
                    return True
        raise Conflict(f"Task {work.namespace}/{work.name} changes faster than its status can be written")

    async def _result(self, live: LiveTask) -> dict[str, Any] | None:
        result: dict[str, Any] = {}
        if live.open is not None:
            return None  # its client has the outcomes
        if live.outcome is not None:
            result["package"] = b64encode(live.outcome).decode()
        elif 0 < live.results.size <= INLINE_RESULT:
            packed = await asyncio.to_thread(live.results.path.read_bytes)
            result["package"] = b64encode(packed).decode()
        elif live.results.size:
            result["blob"] = {"digest": live.results.digest, "sizeBytes": live.results.size}
        if (value := values_of(live)) is not None:
            result["value"] = value
        return result or None

    def _schedule(self, live: LiveTask, delay: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[live.work.uid] = loop.call_later(delay, self._due, live)

    def _due(self, live: LiveTask) -> None:
        if live.gone or self._context.supervisor.is_closing:
            self._timers.pop(live.work.uid, None)
            return
        if live.completing and not live.results.trouble:  # its results may still find no room
            self._schedule(live, self._pace.running)
            return
        self._refresh(live)
        uid = live.work.uid
        state = (*live_state(live), live.total, live.flights.calls, len(live.succeeded), len(live.failed))
        if self._said.get(uid) != state and uid not in self._writing:
            self._writing.add(uid)
            self._context.supervisor.spawn(f"status of task {live.work.name}", self._write_live(live, state))
        self._schedule(live, self._pace.running if live.flights else self._while_waiting())

    def _while_waiting(self) -> float:
        return max(self._pace.waiting, len(self._timers) / _LOOKS_PER_SECOND)

    async def _write_live(self, live: LiveTask, state: tuple[Any, ...]) -> None:
        work = live.work
        try:
            async with self._words:
                known = self._context.store.get(TASK, *work.key)
                if (
                    (live.completing and not live.results.trouble)
                    or known is None
                    or known["metadata"]["uid"] != work.uid
                ):
                    return
                before = known.get("status") or {}
                status = live_status(live, before.get("conditions") or (), self._context.clock.now())
                await self._context.api.patch_status(
                    TASK,
                    *work.key,
                    status,
                    resource_version=known["metadata"].get("resourceVersion"),
                    current=before,
                )
            self._said[work.uid] = state
        except (Conflict, NotFound):
            pass  # the newer object is on its way; the next round says it
        except ApiError as error:
            label = work.label
            logger.warning("Task %s: %s", label, error, extra={"object": label})
        finally:
            self._writing.discard(work.uid)


def _natural_end(live: LiveTask) -> End:
    if live.first_failure is not None:
        failure = live.first_failure
        return ending(failure.error, failure.index, len(live.failed), live.total)
    calls = "1 call" if live.total == 1 else f"{live.total} calls"
    return End(TaskPhase.SUCCEEDED, TaskReason.SUCCEEDED, f"{calls} returned")
