"""`Compute` and `Pool`: machines for the length of a `with`, and the methods behind the operators.

A pool that this program made is deleted at the end of the `with`, whatever happened in it, and its absence is
checked before anybody says so. A pool that was there before (`Compute(name=...)`) is only used.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from types import TracebackType
from typing import Any, Literal, Self, Unpack, cast, overload

from skyward import lifecycle, termination
from skyward.calls import RankTarget, as_tuple, call_of, calls_of, check_python
from skyward.console.board import count
from skyward.contract.names import POOL
from skyward.errors import PoolNotReady, SkywardError
from skyward.executor import CallFuture
from skyward.feeding import take_inputs
from skyward.functions import Function, PendingFunction, PendingFunctionGroup, Retry, activate, deactivate
from skyward.functions import function as described
from skyward.gather import StreamingGroup, checked_on_error
from skyward.manifest import Call
from skyward.open_map import OpenMap
from skyward.open_task import OpenTask, PackedCall
from skyward.packing import pack_each
from skyward.poolview import PoolView
from skyward.results import OnError
from skyward.session import Session
from skyward.spec import ELSEWHERE, Nodes, Options, Spec, SpecFields
from skyward.streaming import CallFlow, ItemIterator, refuse_items, yields
from skyward.tasks import ResultIterator, TaskFuture, TaskHandle
from skyward.termination import Terminated
from skyward.validation import instance, reject_unknown
from skyward.wire.options import CallOptions
from skyward.wire.package import Outcome


def Compute(  # noqa: N802 - reads as the thing that it returns
    *specs: Spec, name: str | None = None, options: Options | None = None, **fields: Unpack[SpecFields]
) -> "Pool":
    """Machines for the length of a `with`: `with sky.Compute(provider=sky.Local(), nodes=2) as pool:`.

    Give the fields of one `Spec` as keywords, or several `Spec`s as candidates, or only the `name` of a
    pool that is there already. With specs, `name` is the name of the new pool. Raises TypeError or
    ValueError at once for what cannot be right.
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
    return Pool(specs, name, instance("options", options or Options(), Options, "sky.Options(console='log')"))


class Pool:
    """Machines that calls are sent to. Made by `Compute`; use it in a `with` or an `async with`."""

    def __init__(self, specs: Sequence[Spec], name: str | None, options: Options) -> None:
        self._specs = tuple(specs)
        self._options = options
        self._name = lifecycle.checked_name(name) if name is not None else lifecycle.new_name()
        self._session: Session | None = None
        self._view: PoolView | None = None
        self._aborted = threading.Event()
        self._tally = lifecycle.Tally()

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._name

    @property
    def is_attached(self) -> bool:
        """True for a pool that was there before and stays."""
        return not self._specs

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

    # -- calls --------------------------------------------------------------------------------------------

    def run[T](self, pending: PendingFunction[T], *, target: RankTarget = None) -> T:
        """Run on one node (any, "head", or the node of a rank) and return the result: `pending >> pool`."""
        filled, feeds = take_inputs(pending)
        if yields(pending.function):
            return cast("T", self._items(filled, feeds, call_of(pending, target)))
        if feeds:
            return self._result(self._fed(filled, feeds, call_of(pending, target)))
        handle = self._submit([pending], call_of(pending, target), 1)
        result: T = self._wait(handle)[0]
        return result

    def run_async[T](self, pending: PendingFunction[T], *, target: RankTarget = None) -> TaskFuture[T]:
        """Start on one node and return a future, which can also be awaited: `pending > pool`."""
        refuse_items(pending, "`>`, which gives a future,")
        filled, feeds = take_inputs(pending)
        if feeds:
            return self._fed(filled, feeds, call_of(pending, target))
        handle = self._submit([pending], call_of(pending, target), 1)
        future: TaskFuture[T] = handle.future(lambda values: values[0], self._entered()[0].executor)
        return future

    def broadcast[T](self, pending: PendingFunction[T]) -> list[T]:
        """Run on every node and return one result per node, in the order of their index: `pending @ pool`."""
        refuse_items(pending, "a broadcast")
        return self._wait(self._submit([pending], call_of(pending, None, "All"), None))

    def run_parallel[*Ts](self, group: PendingFunctionGroup[*Ts]) -> tuple[*Ts]:
        """Run all calls of a group in parallel and return their results: `(a() & b()) >> pool`."""
        results: tuple[*Ts] = tuple(self._wait(self._submit_group(group.members), group.on_error))
        return results

    def run_parallel_async[*Ts](self, group: PendingFunctionGroup[*Ts]) -> TaskFuture[tuple[*Ts]]:
        """Start all calls of a group and return one future: `(a() & b()) > pool`."""
        handle = self._submit_group(group.members)
        return handle.future(as_tuple, self._entered()[0].executor, group.on_error)

    def stream[T](self, group: StreamingGroup[T]) -> ResultIterator[T]:
        """Hand out results while other calls of the group still run: `gather(..., stream=True) >> pool`."""
        return self._stream(self._submit_group(group.members), group.ordered, group.on_error)

    def open_task(self, name: str, call: Call) -> OpenTask:
        """A task that takes calls while it is open: what `sky.Executor` works with."""
        handle = self._send(call, lambda session, call: session.open_task(self._name, name, call))
        return OpenTask(self._entered()[0], handle)

    @overload
    def map[T, R](
        self,
        fn: Function[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[False] = ...,
        on_error: Literal["raise"] = ...,
        timeout: float | None = ...,
    ) -> list[R]: ...
    @overload
    def map[T, R](
        self,
        fn: Function[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[False] = ...,
        on_error: Literal["return"],
        timeout: float | None = ...,
    ) -> list[R | Exception]: ...
    @overload
    def map[T, R](
        self,
        fn: Function[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[True],
        on_error: Literal["raise"] = ...,
        timeout: float | None = ...,
    ) -> ResultIterator[R]: ...
    @overload
    def map[T, R](
        self,
        fn: Function[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[True],
        on_error: Literal["return"],
        timeout: float | None = ...,
    ) -> ResultIterator[R | Exception]: ...
    @overload
    def map[T, R](
        self,
        fn: Callable[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[False] = ...,
        on_error: Literal["raise"] = ...,
        timeout: float | None = ...,
    ) -> list[R]: ...
    @overload
    def map[T, R](
        self,
        fn: Callable[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[False] = ...,
        on_error: Literal["return"],
        timeout: float | None = ...,
    ) -> list[R | Exception]: ...
    @overload
    def map[T, R](
        self,
        fn: Callable[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[True],
        on_error: Literal["raise"] = ...,
        timeout: float | None = ...,
    ) -> ResultIterator[R]: ...
    @overload
    def map[T, R](
        self,
        fn: Callable[[T], R],
        items: Iterable[T],
        *,
        ordered: bool = ...,
        stream: Literal[True],
        on_error: Literal["return"],
        timeout: float | None = ...,
    ) -> ResultIterator[R | Exception]: ...
    def map(
        self,
        fn: Any,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        stream: bool = False,
        on_error: OnError = "raise",
        timeout: float | None = None,
    ) -> Any:
        """Call `fn` once for each item, as one task, and return the results in the order of the items.

        With `stream=True` an iterator gives them while others still run; with `ordered=False` as they end.
        An item that fails fails only itself: `on_error="return"` puts its exception in its place, "raise"
        raises the first one when all have ended. `timeout` is for each call, in seconds.

        An iterator (anything without a length) is taken while results come, by a thread, and never more than
        a thousand items ahead of who reads; what it raises is raised behind the results before it.
        """
        checked_on_error(on_error)
        what = fn if isinstance(fn, Function) else described(fn)
        refuse_items(PendingFunction(what.fn), "pool.map()")
        if timeout is not None:
            what = Function(what.fn, timeout)

        if not isinstance(items, Sized):
            results = self._open_map(what, items, ordered=ordered, on_error=on_error)
            return results if stream else list(results)

        def send(session: Session, call: Call) -> TaskHandle | None:
            packed, count = pack_each(what, items)
            return session.send(self._name, what.__name__, packed, count, call, count) if count else None

        handle = self._send(Call(timeout=what.timeout), send)
        if handle is None:
            return ResultIterator.empty() if stream else []
        if stream or not ordered:
            values = self._stream(handle, ordered, on_error)
            return values if stream else list(values)
        return self._wait(handle, on_error)

    # -- with ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        termination.begin()
        try:
            with termination.interruptible():
                self._open()
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
                self._close(error)
        except KeyboardInterrupt as again:
            raise again.with_traceback(None) from None
        finally:
            termination.end()

    async def __aenter__(self) -> Self:
        termination.begin()
        opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            await asyncio.shield(opening)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._aborted.set()
                await asyncio.wait([opening])
                if opening.exception() is None:  # it was ready in the very last moment
                    await asyncio.to_thread(self._close, None)
            termination.end()
            raise
        activate(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        deactivate(self)
        closing = asyncio.ensure_future(asyncio.to_thread(self._close, error))
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

    # -- inside -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._session is not None:
            raise PoolNotReady(f"pool {self._name} is already in use", remedy="enter each pool once")
        self._aborted.clear()
        self._session, self._view = lifecycle.open_pool(
            self._name, self._specs, self._options, self._aborted, self._tally
        )
        lifecycle.close_at_exit(self._at_exit)

    def _close(self, error: BaseException | None) -> None:
        session, view = self._entered()
        self._session = self._view = None
        lifecycle.forget_at_exit(self._at_exit)
        lifecycle.close_pool(session, view, self._options, self._tally, error, owned=not self.is_attached)

    def _at_exit(self) -> None:
        if self._session is not None:
            self._close(None)

    def _entered(self) -> tuple[Session, PoolView]:
        if self._session is None or self._view is None:
            raise PoolNotReady(
                f"pool {self._name} is not in use",
                remedy="calls go between `with sky.Compute(...) as pool:` and its end",
            )
        return self._session, self._view

    def _submit(
        self,
        members: Sequence[PendingFunction[Any]],
        call: Call,
        count: int | None,
        options: Sequence[CallOptions] = (),
    ) -> TaskHandle:
        return self._send(
            call, lambda session, call: session.submit(self._name, members, call, count, options)
        )

    def _send[H: TaskHandle | None](self, call: Call, send: Callable[[Session, Call], H]) -> H:
        session, view = self._entered()
        check_python(view)
        try:
            with termination.interruptible():
                handle = send(session, self._with_defaults(call))
        except SkywardError as error:
            raise error.with_traceback(None) from error.__cause__
        if handle is not None:
            handle.when_finished(lambda: self._tally.add(handle.calls))
        return handle

    def _with_defaults(self, call: Call) -> Call:
        times = self._options.retry_on_interruption
        return Call(
            mode=call.mode,
            rank=call.rank,
            timeout=call.timeout or self._options.default_compute_timeout,
            queue_timeout=call.queue_timeout,
            retry=call.retry or (Retry(on_interruption=times) if times != Retry().on_interruption else None),
        )

    def _submit_group(self, members: Sequence[PendingFunction[Any]]) -> TaskHandle:
        """One Task, whatever its members ask for."""
        for member in members:
            refuse_items(member, "a group")
        call, options = calls_of([self._with_defaults(call_of(member)) for member in members])
        return self._submit(members, call, len(members), options)

    def _stream(self, handle: TaskHandle, ordered: bool, on_error: OnError) -> ResultIterator[Any]:
        leaving = self._entered()[0].leaving
        leaving.start()
        values = handle.stream(ordered=ordered, on_error=on_error)
        return ResultIterator(values, handle.cancel, leaving.soon)

    def _open_map(
        self, described: Function[..., Any], items: Iterable[Any], *, ordered: bool, on_error: OnError
    ) -> ResultIterator[Any]:
        """A Task of one call per item of an iterator."""
        task = self.open_task(described.__name__, Call(timeout=described.timeout))
        running = OpenMap(task, described, items)
        leaving = self._entered()[0].leaving
        leaving.start()
        values = running.values(ordered=ordered, on_error=on_error)
        return ResultIterator(values, running.leave, leaving.soon)

    def _items(
        self, pending: PendingFunction[Any], feeds: list[Iterator[Any]], call: Call
    ) -> ItemIterator[Any]:
        """A Task of one call that yields."""
        packed = PackedCall.of(pending)
        task = self.open_task(pending.name, call)
        flow = CallFlow(task.handle.name, feeds, stream=True)
        task.call(packed, flow.ended, flow)
        task.close()
        leaving = self._entered()[0].leaving
        leaving.start()
        return ItemIterator(flow, flow.close, leaving.soon)

    def _fed[T](self, pending: PendingFunction[T], feeds: list[Iterator[Any]], call: Call) -> CallFuture[T]:
        """A Task of one call that pulls from here and returns."""
        packed = PackedCall.of(pending)
        task = self.open_task(pending.name, call)
        flow = CallFlow(task.handle.name, feeds, stream=False)
        future: CallFuture[T] = CallFuture(task.handle.name)

        def ended(end: Outcome | SkywardError) -> None:
            flow.ended(end)
            future.settle(end)

        index = task.call(packed, ended, flow)
        future.cancels(lambda: task.cancel(index))
        task.close()
        return future

    def _result[T](self, future: CallFuture[T]) -> T:
        try:
            return future.result()
        except (KeyboardInterrupt, Terminated) as error:
            future.cancel()
            raise error.with_traceback(None) from None
        except Exception as error:
            raise error.with_traceback(None) from error.__cause__

    def _wait(self, handle: TaskHandle, on_error: OnError = "raise") -> list[Any]:
        try:
            with termination.interruptible():
                return handle.values(on_error=on_error)
        except (KeyboardInterrupt, Terminated) as error:
            leaving = self._entered()[0].leaving  # a control plane that does not answer holds nobody up
            leaving.start()
            leaving.soon(handle.cancel)
            raise error.with_traceback(None) from None
        except Exception as error:
            raise error.with_traceback(None) from error.__cause__  # the remote frames are in its cause
