"""Feeds the store from kopf's watches: the only place that knows kopf.

kopf is an informer here: it opens the watches, keeps them open and goes on after breaks. Their events are
taken by Tap before kopf sees them. It writes nothing: no annotations, no finalizers, no events. It is
crash-only by design (a watch error or an expired list ends
it), so it runs as a session inside our process that is started again whenever it ends or falls silent,
without touching anything else. Each watch begins where a list of Resync ends, which knows of deletions
in a gap.

`kopf.operator()` counts every asyncio task that appears after its start as its own, and cancels it at its
end. So its tasks are spawned in a context of their own, by which they are told from all others, and are
ended here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Final

import kopf

from skyward_operator.kube.kinds import collection_path
from skyward_operator.kube.pulse import Pulse
from skyward_operator.kube.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import aiohttp

    from skyward.contract.names import Kind
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.credentials import Credentials
    from skyward_operator.kube.resync import Resync
    from skyward_operator.kube.store import Store
    from skyward_operator.metrics import Metrics

logger = logging.getLogger(__name__)

type Place = tuple[Kind, str | None]
"""A kind, in one namespace or in all."""

_SILENT_SECONDS: Final = 150.0
"""Two missed bookmarks and kopf's own reconnect after 70 s: then something is wrong that it does not see."""
_DEAF_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 3.0
_STOP_ROUNDS: Final = 4
_FIRST_RESTART_SECONDS: Final = 0.5
_LONGEST_RESTART_SECONDS: Final = 15.0
_REQUEST_SECONDS: Final = 20.0

_session_of: contextvars.ContextVar[object] = contextvars.ContextVar("skyward_intake_session")


class Intake:
    """The watches of one operator; empty `namespaces` means the whole cluster.

    `took_signals` is called after each start of a session, because kopf takes SIGTERM and SIGINT.
    """

    def __init__(
        self,
        credentials: Credentials,
        store: Store,
        resync: Resync,
        clock: Clock,
        *,
        namespaces: Sequence[str] = (),
        metrics: Metrics | None = None,
        took_signals: Callable[[], None] = lambda: None,
    ) -> None:
        self._credentials = credentials
        self._store = store
        self._resync = resync
        self._clock = clock
        self._namespaces = tuple(namespaces)
        self._metrics = metrics
        self._took_signals = took_signals
        self._ours = contextvars.copy_context()
        self._told: dict[str, int] = {}
        namespaced: tuple[str | None, ...] = self._namespaces or (None,)
        places = {collection_path(kind, each): (kind, each) for kind in store.kinds for each in namespaced}
        self.pulse: Final = Pulse(places, clock)
        self._tap = Tap(places, self._take, self._listed)

    async def run(self) -> None:
        """Watch until cancelled, starting again after whatever happens."""
        delay = _FIRST_RESTART_SECONDS
        while True:
            started = self._clock.monotonic()
            self.pulse.reset()
            why = await self._session()
            if self._clock.monotonic() - started > _SILENT_SECONDS:
                delay = _FIRST_RESTART_SECONDS
            logger.warning("the watches %s; starting them again in %.1f s", why, delay)
            if self._metrics is not None:
                self._metrics.intake_restarts.inc()
            await self._clock.sleep(delay)
            delay = min(_LONGEST_RESTART_SECONDS, delay * 2)

    async def _session(self) -> str:
        """Run kopf until it ends or is found silent; says what happened."""
        sessions: list[aiohttp.ClientSession] = []
        mark = object()
        context = contextvars.copy_context()
        context.run(_session_of.set, mark)
        loop = asyncio.get_running_loop()
        watching = loop.create_task(self._watch(sessions), name="intake session", context=context)
        watchdog = asyncio.create_task(self._watchdog(), name="intake watchdog")
        try:
            done, _ = await asyncio.wait({watching, watchdog}, return_when=asyncio.FIRST_COMPLETED)
            ended = done.pop()
            return f"ended ({error!r})" if (error := ended.exception()) is not None else ended.result()
        finally:
            watchdog.cancel()
            self.pulse.cut()
            with _kopf_slips_ignored(loop):
                await _end_all(mark)
            for session in sessions:
                await session.close()

    async def _watch(self, sessions: list[aiohttp.ClientSession]) -> str:
        tasks = await kopf.spawn_tasks(
            registry=self._registry(sessions),
            settings=_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )
        self._took_signals()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if not task.cancelled() and (error := task.exception()) is not None]
        if errors:
            raise errors[0]
        return "ended"

    async def _watchdog(self) -> str:
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            age = self.pulse.age()
            if self._metrics is not None:
                self._metrics.watch_age.set(age)
            if age > _SILENT_SECONDS:
                return f"were silent for {age:.0f} s"
            for kind in self._store.kinds:
                if await self._is_deaf(kind):
                    return f"missed a change of {kind.plural} that a list showed"

    async def _is_deaf(self, kind: Kind) -> bool:
        """Whether a list knew of something that the watch does not tell, even a while later."""
        version = self._resync.corrected.pop(kind.plural, 0)
        if version <= self._told.get(kind.plural, 0):
            return False
        await self._clock.sleep(_DEAF_SECONDS)
        return version > self._told.get(kind.plural, 0)

    def _registry(self, sessions: list[aiohttp.ClientSession]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def login(**_: Any) -> kopf.AiohttpSession:
            session = self._credentials.open_session(self.pulse, self._tap, connections=0)
            sessions.append(session)
            return kopf.AiohttpSession(server=self._credentials.server, aiohttp_session=session)

        kopf.on.login(id="login", registry=registry)(login)
        for kind in self._store.kinds:
            place = (kind.group, kind.version, kind.plural)
            kopf.on.event(*place, id=kind.plural, registry=registry)(_never)
        return registry

    async def _listed(self, place: Place) -> str:
        """Make the store equal to the API server; the resourceVersion up to which it is."""
        kind, namespace = place
        listing = self._resync.listed(kind, namespace)
        # In our context, as for events.
        context = self._ours.copy()
        version = await asyncio.get_running_loop().create_task(listing, name="intake list", context=context)
        self._told[kind.plural] = max(self._told.get(kind.plural, 0), int(version))
        return version

    def _take(self, place: Place, event: dict[str, Any]) -> str:
        """Take an event of a watch in; its object's resourceVersion."""
        kind, _ = place
        type_, obj = event["type"], event["object"]
        metadata = obj["metadata"]
        version: str = metadata["resourceVersion"]
        self._told[kind.plural] = max(self._told.get(kind.plural, 0), int(version))
        if self._metrics is not None:
            self._metrics.watched(kind.plural, type_)
        # In our context: what a subscriber starts is not kopf's to cancel.
        if type_ == "DELETED":
            key = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
            self._ours.run(self._store.remove, kind, *key)
        else:
            self._ours.run(self._store.put, kind, obj)
        return version


async def _never(**_: Any) -> None:
    """The handler for which kopf watches a kind; no event reaches it."""


async def _end_all(mark: object) -> None:
    """Cancel every task of a session and wait for it; kopf's own tasks need more than one round."""
    for _ in range(_STOP_ROUNDS):
        await asyncio.sleep(
            0
        )  # one that never began would leave a coroutine of kopf behind that nobody awaited
        tasks = {task for task in asyncio.all_tasks() if task.get_context().get(_session_of) is mark}
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        done, _running = await asyncio.wait(tasks, timeout=_STOP_SECONDS / _STOP_ROUNDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # read, so that the loop does not complain


@contextlib.contextmanager
def _kopf_slips_ignored(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """A watch of kopf that is ended while it connects asserts in a callback that it runs in a task."""
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "request_cancel_callback" in context["message"]:
            return
        before(loop, context) if before is not None else loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)


class _Backoffs:
    """Delays without an end: an API server that is away is no reason to give up watching."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay
            delay = min(_LONGEST_RESTART_SECONDS, delay * 2)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = 1  # what it lists is thrown away
    settings.networking.request_timeout = _REQUEST_SECONDS
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None
    return settings
