"""The life of one operator process, from its start to its end.

    credentials → health endpoints → schema → leadership → first list → parts → watches → ready

It stops what acts, then gives the lease back, so that the next one need not wait. When the
lease is lost there is no order and no grace: the process exits at once with 3, because whatever it still
did could be done by another at the same time. Agents keep working either way.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from skyward_operator.context import Context
from skyward_operator.engine.clock import SystemClock
from skyward_operator.engine.supervisor import Supervisor
from skyward_operator.health import Health, PortTaken, Stage
from skyward_operator.kube import kubeconfig
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection
from skyward_operator.kube.errors import ApiError, CredentialsError, NotLeader
from skyward_operator.kube.events import Events
from skyward_operator.kube.intake import Intake
from skyward_operator.kube.lease import Leadership
from skyward_operator.kube.resync import Resync
from skyward_operator.kube.schema import wait_for_schema
from skyward_operator.kube.store import Store
from skyward_operator.logging import set_up
from skyward_operator.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from skyward_operator.kube.credentials import Credentials
    from skyward_operator.settings import Settings

logger = logging.getLogger(__name__)

STOPPED: Final = 0
UNUSABLE: Final = 1
LOST_LEADERSHIP: Final = 3

_GARBAGE: Final = 20_000, 20, 20
"""Objects, and collections of younger ones, between collections: ten, two and two times Python's own."""
_STOP_SECONDS: Final = 9.0
_RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What acts: loops by name, which run until they are cancelled, and the gateway's address."""

    loops: Mapping[str, Callable[[], Awaitable[None]]]
    gateway_url: Callable[[], Awaitable[str]]


type Wire = Callable[[Context], Parts]


def start(settings: Settings) -> int:
    """Run an operator until it is told to stop; the exit code."""
    from skyward_operator.wiring import wire

    set_up(settings.log_format, settings.log_level)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        credentials = kubeconfig.load(settings.kubeconfig, settings.context)
        return asyncio.run(Operator(settings, credentials, wire).run())
    except OSError as error:
        logger.error("--data-dir %s cannot be used: %s", settings.data_dir, error)
    except (CredentialsError, PortTaken) as error:
        logger.error("%s", error)
    return UNUSABLE


class Operator:
    """One process. `wire` makes its parts; `abandon` ends the process when the lease is lost."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        wire: Wire,
        *,
        abandon: Callable[[int], object] = os._exit,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._wire = wire
        self._abandon = abandon
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._store = Store()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Work until SIGTERM, SIGINT or `stop()`; the exit code."""
        self._take_signals()
        async with (
            Health(self._settings.health_listen, self._clock, self._metrics) as health,
            Connection(self._credentials, metrics=self._metrics) as connection,
        ):
            logger.info("API server %s (%s); health at %s", self._credentials.server,
                        self._credentials.source, health.url)  # fmt: skip
            work = asyncio.create_task(self._work(Api(connection), health), name="work")
            stop = asyncio.create_task(self._stop.wait(), name="stop")
            try:
                await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
                health.enter(Stage.STOPPING)
            finally:
                work.cancel()
                stop.cancel()
                await asyncio.wait({work, stop})
            return self._exit_code(work)

    def stop(self) -> None:
        """End gracefully; the second time, or after some seconds, at once."""
        if self._stop.is_set():
            logger.warning("asked to stop a second time: stopping at once")
            os._exit(STOPPED)
        self._stop.set()

    async def _work(self, api: Api, health: Health) -> None:
        health.enter(Stage.AWAITING_SCHEMA)
        await wait_for_schema(api, self._clock, lambda why: health.enter(Stage.AWAITING_SCHEMA, why))
        leadership = Leadership(api, self._settings, self._clock, metrics=self._metrics)
        health.enter(Stage.STANDBY)
        await leadership.acquire()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(leadership), name="lease")
                await self._lead(api, health, leadership)
        finally:
            await leadership.release()

    async def _keep(self, leadership: Leadership) -> None:
        try:
            await leadership.keep()
        except NotLeader as lost:
            self._lose(lost)
            raise

    async def _lead(self, api: Api, health: Health, leadership: Leadership) -> None:
        """Act until cancelled; nothing that was started here outlives it."""
        health.enter(Stage.SYNCING)
        fenced = api.with_fence(leadership.check, self._store.put)
        resync = Resync(
            api,
            self._store,
            namespaces=self._settings.namespaces,
            interval=self._settings.resync_seconds,
            metrics=self._metrics,
        )
        await self._list_everything(resync)
        async with Supervisor() as supervisor:
            events = Events(fenced, self._clock, metrics=self._metrics)
            parts = self._wire(self._context(fenced, events, supervisor, leadership))
            intake = self._intake(resync)
            health.observe(watch_age=intake.pulse.age, is_leader=lambda: leadership.is_leader)
            supervisor.keep("events", events.run)
            for name, loop in parts.loops.items():
                supervisor.keep(name, loop)
            supervisor.keep("resync", resync.run)
            supervisor.keep("intake", intake.run)
            health.enter(Stage.SYNCING, "the gateway does not listen yet")
            listening = await parts.gateway_url()
            service = self._settings.gateway_service
            url = self._settings.advertise_gateway_url or (service.url if service else listening)
            await leadership.advertise(url, str(service) if service else None)
            self._write_endpoints(url, health.url)
            _settle_garbage()
            health.enter(Stage.READY)
            logger.info("ready: %d objects known; gateway at %s", self._known(), url)
            try:
                await supervisor.wait_failed()
            except NotLeader as lost:
                self._lose(lost)
                raise
            finally:
                self._settings.endpoints_file.unlink(missing_ok=True)

    def _context(self, api: Api, events: Events, supervisor: Supervisor, leadership: Leadership) -> Context:
        return Context(
            settings=self._settings,
            api=api,
            store=self._store,
            events=events,
            clock=self._clock,
            metrics=self._metrics,
            supervisor=supervisor,
            leadership=leadership,
        )

    def _intake(self, resync: Resync) -> Intake:
        return Intake(
            self._credentials,
            self._store,
            resync,
            self._clock,
            namespaces=self._settings.namespaces,
            metrics=self._metrics,
            took_signals=self._take_signals,
        )

    async def _list_everything(self, resync: Resync) -> None:
        while True:
            try:
                await resync.all()
            except ApiError as error:
                logger.warning("the objects could not be listed: %s", error)
                await self._clock.sleep(_RETRY_SECONDS)
            else:
                return

    def _known(self) -> int:
        return sum(self._store.count(kind) for kind in self._store.kinds)

    def _write_endpoints(self, gateway: str, health: str) -> None:
        file = self._settings.endpoints_file
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({"gateway": gateway, "health": health}) + "\n")
        fresh.replace(file)

    def _exit_code(self, work: asyncio.Task[None]) -> int:
        error = None if work.cancelled() else work.exception()
        if error is None:
            logger.info("stopped")
            return STOPPED
        if _is_loss(error):
            self._lose(error)
            return LOST_LEADERSHIP
        logger.error("the operator failed", exc_info=error)
        return STOPPED if self._stop.is_set() else UNUSABLE

    def _lose(self, error: BaseException) -> None:
        """Stop acting: after the loss of the lease there is nothing that may still be done."""
        logger.error("leadership is lost (%s); exiting at once", error)
        sys.stderr.flush()
        self._abandon(LOST_LEADERSHIP)

    def _take_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        logger.info("%s: stopping", number.name)
        # Whatever hangs, the process is gone in time: every state it leaves is one it can start from.
        watchdog = threading.Timer(_STOP_SECONDS, os._exit, (STOPPED,))
        watchdog.daemon = True
        watchdog.start()
        self.stop()


def _settle_garbage() -> None:
    """What is there at the start, modules and the objects of thousands of Tasks, stays for as long as the
    process: collections need not look at it again. Nor at Tasks that come later, again and again: 5,000 of
    them had four full collections of 150 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def _is_loss(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(NotLeader) is not None
    return isinstance(error, NotLeader)
