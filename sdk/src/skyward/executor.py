"""`sky.Executor`: `concurrent.futures.Executor` over one open Task, for many small calls without a wait.

A call costs no write at the API server: it goes over a standing connection to the operator, and from there to
a node. Otherwise it is a call as any other: retried when its node is lost, stopped when it is cancelled.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from skyward.errors import SkywardError
from skyward.functions import Function, PendingFunction, Retry, resolve, seconds_given
from skyward.manifest import Call, call_options
from skyward.open_task import OpenTask, PackedCall
from skyward.packing import pack_function
from skyward.results import passable, value_of
from skyward.streaming import refuse_items
from skyward.tasks import TaskFuture
from skyward.validation import instance
from skyward.wire.options import CallOptions
from skyward.wire.package import Outcome

if TYPE_CHECKING:
    from skyward.cluster.channel import Channel
    from skyward.functions import Target

MOST_BYTES = 256 * 1024 * 1024
"""Arguments that wait for their outcome before `submit` waits as well."""
_END_SECONDS = 30.0


class CallFuture[T](TaskFuture[T]):
    """The result of one call of an open task.

    What came back is unpickled by whoever asks for it, once: that runs the user's code.
    """

    def __init__(self, task: str) -> None:
        super().__init__(lambda: None)
        self._task = task
        self._raw: Outcome | None = None
        self._opening = threading.Lock()
        self._opened: tuple[T | None, BaseException | None] | None = None

    def cancels(self, cancel_remote: Callable[[], None]) -> None:
        """How to cancel the call, known once it was sent; at once, if it was cancelled meanwhile."""
        self._cancel_remote = cancel_remote
        if self.cancelled():
            cancel_remote()

    def result(self, timeout: float | None = None) -> T:
        """The value. Raises what the call raised, `TimeoutError` or `CancelledError`."""
        value: T = super().result(timeout)
        if self._raw is None:
            return value
        value_, error = self._open(self._raw)
        if error is not None:
            raise error
        return cast("T", value_)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or None."""
        error = super().exception(timeout)
        return self._open(self._raw)[1] if self._raw is not None else error

    def _open(self, raw: Outcome) -> tuple[T | None, BaseException | None]:
        with self._opening:
            if self._opened is None:
                try:
                    self._opened = value_of(self._task, raw), None
                except BaseException as error:
                    self._opened = None, error
        return self._opened

    def settle(self, end: Outcome | SkywardError) -> None:
        """The call has ended."""
        with suppress(InvalidStateError):  # it was cancelled meanwhile
            if isinstance(end, SkywardError):
                self.set_exception(end)
            else:
                self._raw = end
                self.set_result(cast("T", None))


class Executor(StandardExecutor):
    """Runs calls on a pool, as `ThreadPoolExecutor` does on threads: `with sky.Executor(pool) as executor:`.

    `timeout` (seconds) ends each call that runs longer; `retry` says how often one is tried again; what a
    `@sky.function` says of itself comes first. Use it inside of the pool's `with`; several may be open at a
    time. The Task behind it ends with `shutdown`.
    """

    def __init__(
        self, pool: "Target | None" = None, *, timeout: float | None = None, retry: Retry | None = None
    ) -> None:
        import skyward

        timeout = seconds_given("timeout", timeout)
        if retry is not None:
            instance("retry", retry, Retry, "sky.Retry(on_exception=2)")
        target = resolve(pool if pool is not None else skyward)
        self._task: OpenTask = target.open_task("executor", Call(timeout=timeout, retry=retry))
        self._shut = False
        self._lock = threading.Lock()
        self._futures: set[CallFuture[Any]] = set()

    @property
    def task(self) -> str:
        """The name of the Task."""
        return self._task.handle.name

    @property
    def connection(self) -> "Channel":
        """The connection to the operator."""
        return self._task.channel

    def submit[**P, T](
        self, fn: Callable[P, T] | Function[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> CallFuture[T]:
        """Have `fn(*args, **kwargs)` run on a node. Waits only while 256 MB of arguments are under way.

        Raises NotPicklable or ArgumentTooLarge for what cannot be sent, RuntimeError after `shutdown` and
        after the end of the pool's `with`.
        """
        return self._send(_pending(fn, args, kwargs), None)

    def _send(self, pending: PendingFunction[Any], function: bytes | None) -> CallFuture[Any]:
        refuse_items(pending, "an executor")
        packed = replace(PackedCall.of(pending, function), options=self._options(pending))
        task = self._task
        with task.changed:
            task.changed.wait_for(lambda: task.held < MOST_BYTES or task.failure is not None)
        future: CallFuture[Any] = CallFuture(self.task)
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._refuse_outside()
            self._futures.add(future)
        try:
            index = self._task.call(packed, future.settle)
        except BaseException:
            self._futures.discard(future)
            self._refuse_outside()  # it has ended just now
            raise
        future.cancels(lambda: self._task.cancel(index))
        future.add_done_callback(self._futures.discard)
        return future

    def _options(self, pending: PendingFunction[Any]) -> CallOptions | None:
        """What its function asks for, and otherwise what holds for all calls."""
        if pending.timeout is None and pending.retry is None:
            return None
        rest = self._task.terms
        return call_options(
            replace(rest, timeout=pending.timeout or rest.timeout, retry=pending.retry or rest.retry)
        )

    def _refuse_outside(self) -> None:
        handle = self._task.handle
        if handle.is_left:
            raise RuntimeError(
                f"cannot schedule new futures: the block of pool {handle.pool} has ended, and with it the "
                f"executor; submit inside of `with sky.Compute(...)`"
            ) from None

    def map[T](
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Results in the order of the items; with `buffersize`, at most that many calls ahead of the reader.

        `chunksize` is for other executors: calls share messages here anyway. Raises TimeoutError from
        the iterator when a result is not there `timeout` seconds after this call.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        function = pack_function(_pending(fn, (), {}))
        futures = (self._send(_pending(fn, given, {}), function) for given in zip(*iterables, strict=False))
        return self._results(futures, deque(islice(futures, buffersize)), end)

    def _results[T](
        self, futures: Iterator[CallFuture[T]], ahead: deque[CallFuture[T]], end: float | None
    ) -> Iterator[T]:
        try:
            while ahead:
                try:
                    result = ahead[0].result(None if end is None else end - time.monotonic())
                except StopIteration as error:
                    raise passable(error) from error
                ahead.popleft()
                ahead.extend(islice(futures, 1))
                yield result
        finally:
            for future in ahead:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further calls. `cancel_futures` stops all that have not ended, those that run as well.

        With `wait` it returns when the last call has ended, and the Task with it.
        """
        with self._lock:
            self._shut = True
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        self._task.close()
        if wait:
            with self._task.changed:
                self._task.changed.wait_for(lambda: not self._task.waiting)
            self._task.handle.wait(_END_SECONDS)


def _pending(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PendingFunction[Any]:
    if isinstance(fn, Function):
        return PendingFunction(fn.fn, args, kwargs, timeout=fn.timeout, retry=fn.retry)
    return PendingFunction(fn, args, kwargs)
