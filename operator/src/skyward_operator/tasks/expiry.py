"""Ended tasks that have a time to live are deleted when it is over: one loop for all of them."""

from __future__ import annotations

import asyncio
import heapq
import logging
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import TASK
from skyward_operator.kube.errors import ApiError, Conflict
from skyward_operator.tasks.work import epoch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.context import Context

logger = logging.getLogger(__name__)

_LONGEST_SLEEP_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 10.0


class Expiry:
    """Knows when which ended task is due."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._due: list[tuple[float, str, str, str]] = []
        self._times: dict[str, float] = {}
        self._wake = asyncio.Event()

    def ended(self, task: Mapping[str, Any]) -> None:
        """A task object with a final status was seen; again whenever it changes."""
        time = expires(task)
        metadata = task["metadata"]
        uid = metadata["uid"]
        if time is None:
            self._times.pop(uid, None)
        elif self._times.get(uid) != time:
            self._plan(time, metadata["namespace"], metadata["name"], uid)

    def forget(self, task: Mapping[str, Any]) -> None:
        """The object is gone."""
        self._times.pop(task["metadata"]["uid"], None)

    async def run(self) -> None:
        """Delete what is due, for ever."""
        while True:
            now = self._context.clock.now().timestamp()
            while self._due and self._due[0][0] <= now:
                time, namespace, name, uid = heapq.heappop(self._due)
                if self._times.get(uid) == time:
                    await self._delete(namespace, name, uid)
            wait = min(_LONGEST_SLEEP_SECONDS, self._due[0][0] - now) if self._due else _LONGEST_SLEEP_SECONDS
            self._wake.clear()
            try:
                async with asyncio.timeout(max(0.0, wait)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _plan(self, time: float, namespace: str, name: str, uid: str) -> None:
        self._times[uid] = time
        heapq.heappush(self._due, (time, namespace, name, uid))
        if self._due[0][3] == uid:
            self._wake.set()

    async def _delete(self, namespace: str, name: str, uid: str) -> None:
        self._times.pop(uid, None)
        try:
            await self._context.api.delete(TASK, namespace, name, uid=uid, propagation="Background")
        except Conflict:
            pass  # another task of that name: ours is gone
        except ApiError as error:
            label = f"{namespace}/{name}"
            logger.warning(
                "Task %s has expired and cannot be deleted: %s", label, error, extra={"object": label}
            )
            self._plan(self._context.clock.now().timestamp() + _RETRY_SECONDS, namespace, name, uid)


def expires(task: Mapping[str, Any]) -> float | None:
    """When an ended task may be deleted, in seconds since the epoch; None is never."""
    ttl = task["spec"].get("ttlSecondsAfterFinished")
    end = (task.get("status") or {}).get("completionTime")
    if ttl is None or end is None or "deletionTimestamp" in task["metadata"]:
        return None
    return epoch(end) + float(ttl)
