"""`Compute` and `Pool`: machines for the length of a `with`.

A pool that this program made is deleted at the end of the `with`, whatever happened in it, and its absence is
checked before anybody says so. A pool that was there before (`Compute(name=...)`) is only used.
"""

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from skyward import config, lifecycle, termination
from skyward.console.board import count
from skyward.contract.names import POOL
from skyward.errors import PoolNotReady, SkywardError
from skyward.functions import activate, deactivate
from skyward.poolview import PoolView
from skyward.session import Session
from skyward.spec import ELSEWHERE, Nodes, Options, Spec, SpecFields
from skyward.target import CallTarget
from skyward.validation import instance, reject_unknown


def Compute(  # noqa: N802 - reads as the thing that it returns
    *specs: Spec, name: str | None = None, options: Options | None = None, **fields: Unpack[SpecFields]
) -> "Pool":
    """Machines for the length of a `with`: `with sky.Compute(provider=sky.Local(), nodes=2) as pool:`.

    Give the fields of one `Spec` as keywords, or several `Spec`s as candidates, or only a `name`: of a
    `[pools.NAME]` in skyward.toml, or of a pool that is there already. With specs, `name` is the name of the
    new pool. Raises TypeError or ValueError at once for what cannot be right, ConfigurationError for a file.
    """
    reject_unknown("Compute", fields, (*Spec.__dataclass_fields__, "name", "options"), ELSEWHERE)
    if specs and fields:
        raise TypeError(
            f"Compute() takes Specs or keywords, not both; put {', '.join(fields)} into each Spec"
        )
    for spec in specs:
        instance("every positional argument of Compute()", spec, Spec, "sky.Spec(provider=sky.AWS())")
    if fields:
        if "provider" not in fields and name is not None:
            raise TypeError(
                f"Compute(name={name!r}) uses a pool that exists and takes nothing else, got "
                f"{', '.join(fields)}; to create one, add provider=sky.Local()"
            )
        if "provider" not in fields:
            raise TypeError("Compute() needs a provider; sky.Local() is this machine: provider=sky.Local()")
        specs = (Spec(**fields),)
    if not specs and name is None:
        raise TypeError(
            "Compute() needs a provider, such as sky.Compute(provider=sky.Local(), nodes=2), "
            "or the name of a pool that exists: sky.Compute(name='train')"
        )
    settings = config.load()
    described = config.pool(settings, name) if name is not None and not specs else None
    if options is None:
        options = described.options if described is not None else config.options(settings)
    instance("options", options, Options, "sky.Options(console='log')")
    if described is not None:
        return Pool(described.specs, name, options, or_find=True)
    return Pool(specs, name, options)


class Pool(CallTarget):
    """Machines that calls are sent to. Made by `Compute`; use it in a `with` or an `async with`."""

    def __init__(
        self, specs: Sequence[Spec], name: str | None, options: Options, *, or_find: bool = False
    ) -> None:
        self._specs = tuple(specs)
        self._or_find = or_find
        self._owned = bool(specs)
        self._options = options
        self._name = lifecycle.checked_name(name) if name is not None else lifecycle.new_name()
        self._session: Session | None = None
        self._view: PoolView | None = None
        self._tally = lifecycle.Tally()

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._name

    @property
    def is_attached(self) -> bool:
        """True for a pool that was there before and stays."""
        return not self._owned

    @property
    def is_active(self) -> bool:
        """True inside the `with`, while enough nodes are ready."""
        return self._view is not None and self._view.is_usable

    @property
    def concurrency(self) -> int:
        """How many calls a node runs at a time."""
        pool = self._entered()[1].pool or {}
        return int(pool.get("spec", {}).get("worker", {}).get("concurrency", 1))

    def current_nodes(self) -> int:
        """How many nodes are ready now."""
        return self._entered()[1].ready_nodes

    def resize(self, nodes: int | tuple[int, int] | Nodes) -> None:
        """Change how many nodes are wanted; returns at once, the operator follows."""
        session, _ = self._entered()
        wanted = Nodes.of(nodes)
        body = {"spec": {"nodes": {"desired": wanted.desired, "min": wanted.min, "max": wanted.max}}}
        session.api.patch(POOL, session.namespace, self._name, body)

    # -- with ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        termination.begin()
        try:
            with termination.interruptible():
                self.open()
        except BaseException as error:
            termination.end()
            if isinstance(error, (SkywardError, KeyboardInterrupt)):  # our frames explain nothing
                raise error.with_traceback(None) from error.__cause__
            raise
        activate(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        deactivate(self)
        try:
            with termination.interruptible(closing=True):
                self.close(error)
        except KeyboardInterrupt as again:
            raise again.with_traceback(None) from None
        finally:
            termination.end()

    async def __aenter__(self) -> Self:
        termination.begin()
        aborted = threading.Event()
        opening = asyncio.ensure_future(asyncio.to_thread(self.open, aborted))
        try:
            await asyncio.shield(opening)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                aborted.set()
                await asyncio.wait([opening])
                if opening.exception() is None:  # it was ready in the very last moment
                    await asyncio.to_thread(self.close)
            termination.end()
            raise
        activate(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        deactivate(self)
        closing = asyncio.ensure_future(asyncio.to_thread(self.close, error))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:  # machines are released first, whatever else is in a hurry
            await asyncio.wait([closing])
            raise
        finally:
            termination.end()

    def __repr__(self) -> str:
        if self._view is None:
            return f"<pool {self._name}>"
        return f"<pool {self._name}: {count(self._view.ready_nodes, 'node')} ready>"

    # -- without `with` -----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed."""
        return self._session is not None

    def open(self, aborted: threading.Event | None = None) -> None:
        """Make the pool and wait until it takes calls, as `with` does. `close` ends it; so does the end of
        the program. Another thread may have it give up by setting `aborted`."""
        if self._session is not None:
            raise PoolNotReady(f"pool {self._name} is already in use", remedy="enter each pool once")
        self._session, self._view, self._owned = lifecycle.open_pool(
            self._name,
            self._specs,
            self._options,
            aborted or threading.Event(),
            self._tally,
            or_find=self._or_find,
        )
        lifecycle.close_at_exit(self._at_exit)

    def close(self, error: BaseException | None = None) -> None:
        """Cancel what runs, release the machines and wait for the proof; `error` is why, if it is one."""
        session, view = self._entered()
        self._session = self._view = None
        lifecycle.forget_at_exit(self._at_exit)
        lifecycle.close_pool(session, view, self._options, self._tally, error, owned=not self.is_attached)

    # -- inside -------------------------------------------------------------------------------------------

    def _at_exit(self) -> None:
        if self._session is not None:
            self.close()

    def _entered(self) -> tuple[Session, PoolView]:
        if self._session is None or self._view is None:
            raise PoolNotReady(
                f"pool {self._name} is not in use",
                remedy="calls go between `with sky.Compute(...) as pool:` and its end",
            )
        return self._session, self._view
