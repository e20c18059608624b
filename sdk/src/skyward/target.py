"""What a pool does with calls: the methods behind the operators, each of which makes one Task.

A wait ends with what the call raised, without frames of ours, and at Ctrl-C the Task is cancelled on the way.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, Literal, cast, overload

from skyward import termination
from skyward.calls import RankTarget, as_tuple, call_of, calls_of, check_python
from skyward.errors import SkywardError
from skyward.executor import CallFuture
from skyward.feeding import take_inputs
from skyward.functions import Function, PendingFunction, PendingFunctionGroup, Retry
from skyward.functions import function as described
from skyward.gather import StreamingGroup, checked_on_error
from skyward.leaving import Leaving
from skyward.lifecycle import Tally
from skyward.manifest import Call
from skyward.open_map import OpenMap
from skyward.open_task import OpenTask, PackedCall
from skyward.packing import pack_each
from skyward.poolview import PoolView
from skyward.results import OnError
from skyward.session import Session
from skyward.spec import Options
from skyward.streaming import CallFlow, ItemIterator, refuse_items, yields
from skyward.tasks import ResultIterator, TaskFuture, TaskHandle
from skyward.termination import Terminated
from skyward.wire.options import CallOptions
from skyward.wire.package import Outcome


class CallTarget:
    """Something that runs calls, while it is open. `Pool` is one."""

    _name: str
    _options: Options
    _tally: Tally

    def _entered(self) -> tuple[Session, PoolView]:
        """The session to make Tasks in, and what is known of the pool. Raises PoolNotReady when not open."""
        raise NotImplementedError

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
        call = self._with_defaults(call)
        handle = self._send(call, lambda session, call: session.open_task(self._name, name, call))
        return OpenTask(self._entered()[0], handle, call)

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
        retry: Retry | None = ...,
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
        retry: Retry | None = ...,
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
        retry: Retry | None = ...,
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
        retry: Retry | None = ...,
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
        retry: Retry | None = ...,
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
        retry: Retry | None = ...,
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
        retry: Retry | None = ...,
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
        retry: Retry | None = ...,
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
        retry: Retry | None = None,
    ) -> Any:
        """Call `fn` once for each item, as one task, and return the results in the order of the items.

        With `stream=True` an iterator gives them while others still run; with `ordered=False` as they end.
        An item that fails fails only itself: `on_error="return"` puts its exception in its place, "raise"
        raises the first one when all have ended. `timeout` (in seconds) and `retry` are for each call.

        An iterator (anything without a length) is taken while results come, by a thread, and never more than
        a thousand items ahead of who reads; what it raises is raised behind the results before it.
        """
        checked_on_error(on_error)
        what = fn if isinstance(fn, Function) else described(fn)
        refuse_items(PendingFunction(what.fn), "pool.map()")
        if timeout is not None or retry is not None:
            what = Function(what.fn, what.timeout if timeout is None else timeout, retry or what.retry)

        if not isinstance(items, Sized):
            iterator = _iterator(items)
            results = self._open_map(what, iterator, ordered=ordered, on_error=on_error)
            return results if stream else list(results)

        def send(session: Session, call: Call) -> TaskHandle | None:
            packed, count = pack_each(what, items)
            return session.send(self._name, what.__name__, packed, count, call, count) if count else None

        handle = self._send(Call(timeout=what.timeout, retry=what.retry), send)
        if handle is None:
            return ResultIterator.empty() if stream else []
        if stream or not ordered:
            values = self._stream(handle, ordered, on_error)
            return values if stream else list(values)
        return self._wait(handle, on_error)

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
        view.check_startable()
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
            result_ttl=self._options.result_ttl,
        )

    def _submit_group(self, members: Sequence[PendingFunction[Any]]) -> TaskHandle:
        """One Task, whatever its members ask for."""
        for member in members:
            refuse_items(member, "a group")
        call, options = calls_of([self._with_defaults(call_of(member)) for member in members])
        return self._submit(members, call, len(members), options)

    def _stream(self, handle: TaskHandle, ordered: bool, on_error: OnError) -> ResultIterator[Any]:
        soon = self._leaving().soon
        values = handle.stream(ordered=ordered, on_error=on_error)
        return ResultIterator(values, handle.cancel, soon)

    def _open_map(
        self, described: Function[..., Any], items: Iterator[Any], *, ordered: bool, on_error: OnError
    ) -> ResultIterator[Any]:
        """A Task of one call per item of an iterator."""
        call = Call(timeout=described.timeout, retry=described.retry)
        task = self.open_task(described.__name__, call)
        running = OpenMap(task, described, items)
        soon = self._leaving().soon
        values = running.values(ordered=ordered, on_error=on_error)
        return ResultIterator(values, running.leave, soon)

    def _items(
        self, pending: PendingFunction[Any], feeds: list[Iterator[Any]], call: Call
    ) -> ItemIterator[Any]:
        """A Task of one call that yields."""
        packed = PackedCall.of(pending)
        task = self.open_task(pending.name, call)
        flow = CallFlow(task.handle.name, feeds, stream=True)
        task.call(packed, flow.ended, flow)
        task.close()
        return ItemIterator(flow, flow.close, self._leaving().soon)

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

    def _leaving(self) -> Leaving:
        """Who cancels in the background, begun."""
        leaving = self._entered()[0].leaving
        leaving.start()
        return leaving

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
            self._leaving().soon(handle.cancel)  # a control plane that does not answer holds nobody up
            raise error.with_traceback(None) from None
        except Exception as error:
            raise error.with_traceback(None) from error.__cause__  # the remote frames are in its cause


def _iterator(items: Any) -> Iterator[Any]:
    try:
        return iter(items)
    except TypeError:
        raise TypeError(
            "pool.map() calls the function once for each item of a list or of anything else to iterate over, "
            f"got {items!r}"
        ) from None
