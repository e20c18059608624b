"""Answers to the questions of a kubelet and of Prometheus: /livez, /readyz, /metrics.

Live means: the event loop turns and the watches give signs of life. A standby is live. Ready means: the
schema matches, this process leads, and everything was listed. Both answer with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from skyward_operator.engine.clock import Clock
    from skyward_operator.metrics import Metrics
    from skyward_operator.settings import Address

logger = logging.getLogger(__name__)

_TICK_SECONDS: Final = 1.0
_STALLED_SECONDS: Final = 30.0
_SILENT_SECONDS: Final = 180.0


class Stage(StrEnum):
    """How far the operator is."""

    STARTING = "starting"
    AWAITING_SCHEMA = "awaiting schema"
    STANDBY = "standby"
    SYNCING = "syncing"
    READY = "ready"
    STOPPING = "stopping"


class Health:
    """The health endpoints; use as `async with`, and give it what it cannot see by itself."""

    def __init__(self, listen: Address, clock: Clock, metrics: Metrics) -> None:
        self._listen = listen
        self._clock = clock
        self._metrics = metrics
        self._stage = Stage.STARTING
        self._detail = ""
        self._ticked = clock.monotonic()
        self._watch_age: Callable[[], float] = lambda: 0.0
        self._is_leader: Callable[[], bool] = lambda: False
        self._runner: web.AppRunner | None = None
        self._ticker: asyncio.Task[None] | None = None
        self.url = ""
        """Where the endpoints are, once entered."""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/healthz", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._show_metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._listen.host, self._listen.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortTaken(
                f"cannot listen on {self._listen} for health checks ({error.strerror or error}); "
                "choose another address with --health-listen, or port 0 for a free one"
            ) from error
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._ticker = asyncio.create_task(self._tick(), name="health ticker")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    def enter(self, stage: Stage, detail: str = "") -> None:
        """The operator has come to a stage, or has something new to say about it."""
        self._stage, self._detail = stage, detail

    def observe(self, *, watch_age: Callable[[], float], is_leader: Callable[[], bool]) -> None:
        """Ask these for the age of the watches and for leadership from now on."""
        self._watch_age, self._is_leader = watch_age, is_leader

    async def _tick(self) -> None:
        while True:
            due = self._clock.monotonic() + _TICK_SECONDS
            await self._clock.sleep(_TICK_SECONDS)
            self._ticked = self._clock.monotonic()
            self._metrics.loop_lag.set(max(0.0, self._ticked - due))

    async def _livez(self, _: web.Request) -> web.Response:
        stalled = self._clock.monotonic() - self._ticked
        if stalled > _STALLED_SECONDS:
            return _answer(False, f"the event loop has run no timer for {stalled:.0f} s")
        age = self._watch_age()
        if age > _SILENT_SECONDS:
            return _answer(False, f"a watch has been silent for {age:.0f} s")
        return _answer(True, f"ok; {self._stage}")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._stage is Stage.READY and not self._is_leader():
            return _answer(False, "the lease is not safely held")
        text = f"{self._stage}: {self._detail}" if self._detail else str(self._stage)
        return _answer(self._stage is Stage.READY, text)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": self._metrics.content_type})


class PortTaken(Exception):
    """An address to listen on cannot be had; the message names the flag."""


def _answer(good: bool, text: str) -> web.Response:
    return web.Response(status=200 if good else 503, text=text + "\n")
