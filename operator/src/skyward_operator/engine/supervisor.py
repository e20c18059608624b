"""The owner of everything that runs in the background.

`spawn` is for jobs that end; `keep` is for loops that must not. A job that fails is logged and gone,
a loop that fails is logged and started again; the loss of leadership fails the whole group, because
nothing may act after it. Jobs are started in the context of the supervisor, not of the caller, so
that a job which an intake callback starts does not count as the intake's own (kopf would end it).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from typing import TYPE_CHECKING, Any, Final, Self

from skyward_operator.kube.errors import NotLeader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

logger = logging.getLogger(__name__)

_FIRST_RESTART_SECONDS: Final = 0.5
_LONGEST_RESTART_SECONDS: Final = 30.0
_HEALTHY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 5.0


class Supervisor:
    """A task group with names, restarts and a bounded end; enter it before use."""

    def __init__(self, *, stop_seconds: float = _STOP_SECONDS) -> None:
        self._stop_seconds = stop_seconds
        self._context = contextvars.copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def is_closing(self) -> bool:
        """Whether the operator is stopping: nothing more is begun."""
        return self._closing

    def spawn(self, name: str, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a job that ends by itself; cancel the returned task to stop it."""
        if self._closing:
            job.close()
            raise RuntimeError(f"{name} comes too late: the operator is stopping")
        task = asyncio.get_running_loop().create_task(
            self._guard(name, job), name=name, context=self._context.copy()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run a loop for as long as the process acts; it is started again when it fails or returns."""
        return self.spawn(name, self._restarting(name, loop))

    async def wait_failed(self) -> None:
        """Wait until leadership is lost: raises NotLeader, never returns."""
        if self._failed is None:
            raise RuntimeError("enter the supervisor first")
        await asyncio.shield(self._failed)

    async def aclose(self) -> None:
        """Cancel everything and wait for it, but not for ever."""
        self._closing = True
        pending = set(self._tasks)
        for task in pending:
            task.cancel()
        if pending:
            _, stuck = await asyncio.wait(pending, timeout=self._stop_seconds)
            for task in stuck:
                logger.warning("%s does not stop; leaving it behind", task.get_name())
        if self._failed is not None and self._failed.done():
            self._failed.exception()  # read, so that the loop does not complain
        elif self._failed is not None:
            self._failed.cancel()

    async def _guard(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except NotLeader as lost:
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(lost)
        except Exception:
            logger.exception("%s failed", name)

    async def _restarting(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        delay = _FIRST_RESTART_SECONDS
        clock = asyncio.get_running_loop()
        while True:
            started = clock.time()
            try:
                await loop()
            except NotLeader:
                raise
            except Exception:
                logger.exception("%s failed; starting it again in %.1f s", name, delay)
            else:
                logger.warning("%s ended by itself; starting it again in %.1f s", name, delay)
            if clock.time() - started > _HEALTHY_SECONDS:
                delay = _FIRST_RESTART_SECONDS
            await asyncio.sleep(delay * (0.5 + 0.5 * random.random()))  # noqa: S311 - spreads restarts, no secret
            delay = min(_LONGEST_RESTART_SECONDS, delay * 2)
