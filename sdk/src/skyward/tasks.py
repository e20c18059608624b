"""One operator expression under way: waits for its Task to end and turns it into values.

The watch thread only marks a handle as finished. Results are unpickled by whoever waits (or by a worker
thread, for futures): unpickling runs the user's code and must hold up nobody else.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Executor, Future, InvalidStateError, wait
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from skyward.cluster.cutter import Cutter
from skyward.console import Console, Subject
from skyward.contract.reasons import TaskPhase
from skyward.delivery import Delivery
from skyward.errors import TaskCancelled
from skyward.narration import lost_attempts, task_words
from skyward.reorder import in_order
from skyward.results import OnError, attempts_of, each_value, outcomes_of, values_of
from skyward.termination import interruptible
from skyward.wire.digest import BytesLike
from skyward.wire.outcomes import Outcome

QUIET_SECONDS = 1.0
"""A task that takes no longer than this is not worth a line."""
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_FINAL = {str(phase) for phase in TaskPhase if phase.is_final}


class TaskFuture[T](Future[T]):
    """The result of a call that is under way; `await` works too. Cancelling it stops the remote work."""

    def __init__(self, cancel_remote: Callable[[], None]) -> None:
        super().__init__()
        self._cancel_remote = cancel_remote
        self._cancelling = threading.Lock()
        self._is_cancel_told = False

    def cancel(self) -> bool:
        """Cancel the call on its node. False if it has ended already."""
        if not super().cancel():
            return False
        with self._cancelling:  # a callback of the future, or another thread, may cancel it as well
            first, self._is_cancel_told = not self._is_cancel_told, True
        if first:
            # `wait` and `as_completed` take a cancelled future for done only once its executor has said so.
            self.set_running_or_notify_cancel()
        self._cancel_remote()
        return True

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result; raises what the call raised. Ctrl-C ends the wait, in `asyncio.run` too."""
        with interruptible():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for what the call raised, or None. Ctrl-C ends the wait, in `asyncio.run` too."""
        with interruptible():
            return super().exception(timeout)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()


TOLD_BYTES = 16 * 1024 * 1024
"""After so many more it is said how many have gone, or come."""


class OpenCalls(Protocol):
    """What is known here of a Task that takes calls while it is open."""

    @property
    def waiting(self) -> int:
        """Calls without an outcome."""

    def close(self) -> None:
        """No further call follows: the Task ends when the last one has."""


class TaskHandle:
    """One Task of this run. `count` is the number of results it must bring, None if the pool decides."""

    def __init__(
        self,
        name: str,
        pool: str,
        count: int | None,
        console: Console,
        fetch: Callable[[str, Mapping[str, Any]], BytesLike],
        cancel: Callable[[str], None],
        follow: Callable[[str, int, Cutter], Iterator[bytes]],
    ) -> None:
        self.name = name
        self.pool = pool
        self.calls = 0
        self.is_left = False
        """The block of its pool has ended."""
        self.is_cancelled = False
        """It was asked to stop."""
        self._open: OpenCalls | None = None
        self._count = count
        self._unfinished = count or 1
        self._console = console
        self._subject = Subject("task", name)
        self._fetch = fetch
        self._cancel = cancel
        self._follow = follow
        self._finished: Future[dict[str, Any]] = Future()
        self._words = ""
        self._sent = 0
        self._attempts = 0
        self._upload_problem = ""
        self._losses_told: set[tuple[int, int]] = set()

    @property
    def is_finished(self) -> bool:
        """True once the Task has ended, whichever way."""
        return self._finished.done()

    @property
    def unfinished(self) -> int:
        """How many of its calls have not ended, as far as is known.

        One at least while it has not ended; but none of an open task whose outcomes are all here.
        """
        return max(1, self._unfinished) if self._open is None else self._open.waiting

    def opened(self, calls: OpenCalls) -> None:
        """Its calls come while it runs, and are known here before its status counts them."""
        self._open = calls

    def submitted(self) -> None:
        """The Task exists."""
        if not self._words:  # the watch may have been quicker
            self._say_how_far("Queued")

    def uploading(self, sent: int, size: int) -> None:
        """So many bytes of its arguments are sent."""
        if sent - self._sent >= TOLD_BYTES or sent < self._sent:
            self._sent = sent
            self._say_how_far(f"Queued: {sent / 1e6:,.0f} of {size / 1e6:,.0f} MB of its arguments are sent")

    def upload_waits(self, problem: str) -> None:
        """The operator does not take its arguments now; they are sent again."""
        self._upload_problem = problem
        self._say_how_far(f"Queued: its arguments are not taken yet: {problem}")

    def upload_stored(self, kept: int, size: int) -> None:
        """All of its arguments are sent, and the operator brings them where they are kept."""
        self._upload_problem = ""
        self._say_how_far(
            f"Queued: {kept / 1e6:,.0f} of {size / 1e6:,.0f} MB of its arguments are in the store"
        )

    def on_output(self) -> None:
        """A call of it has printed something: it runs, whatever was heard of the Task so far."""
        if not self._words or self._words.startswith("Queued"):
            self._say_how_far("Running")

    def on_object(self, task: dict[str, Any]) -> None:
        """The Task as it is now (from the watch thread)."""
        if self.is_finished:
            return
        for attempt, words in lost_attempts(task).items():
            if attempt not in self._losses_told:  # a call that may have run twice is never kept quiet
                self._losses_told.add(attempt)
                self._console.tell(self._subject, words)
        status = task.get("status") or {}
        counts = status.get("counts") or {}
        self._unfinished = counts.get("total", self._unfinished) - counts.get("succeeded", 0)
        self._unfinished -= counts.get("failed", 0)
        self._attempts = attempts_of(task)
        if status.get("phase") in _FINAL:
            self._console.done(self._subject)
            self.calls = counts.get("succeeded", 0) + counts.get("failed", 0)
            self._finish(task)
        elif self._upload_problem and status.get("reason") == "AwaitingPayload":
            self.upload_waits(self._upload_problem)  # it knows better what it waits for
        else:
            self._say_how_far(task_words(task))

    def _say_how_far(self, words: str) -> None:
        if self.is_finished:
            return
        self._words = words
        self._console.update(self._subject, words, after=QUIET_SECONDS)
        if self.is_finished:  # meanwhile, in another thread
            self._console.done(self._subject)

    def on_gone(self) -> None:
        """The Task was deleted before it ended (from the watch thread)."""
        self.fail(
            TaskCancelled(
                f"task {self.name} was deleted before it ended",
                task=self.name,
                remedy="send the call again if its result is still wanted",
                attempts=self._attempts,
            )
        )

    def fail(self, error: BaseException) -> None:
        """End with `error`, unless it has ended."""
        self._console.done(self._subject)
        with suppress(InvalidStateError):
            self._finished.set_exception(error)

    def cancel(self) -> None:
        """Ask for the remote work to be stopped; the Task ends as cancelled soon after."""
        if not self.is_finished:
            self.is_cancelled = True
            self._cancel(self.name)

    def leave(self) -> None:
        """The block of its pool ends. Without calls that could be waited for it ends by itself."""
        self.is_left = True
        if self._open is not None and not self._open.waiting:
            self._open.close()

    def abandon(self) -> None:
        """Nothing more will be heard of it here: whoever still waits for it hears why."""
        self.is_left = True
        self.fail(
            TaskCancelled(
                f"task {self.name} was cancelled: the block of pool {self.pool} ended before it did",
                task=self.name,
                remedy="wait for results inside of the pool's `with`",
            )
        )

    def wait(self, timeout: float) -> bool:
        """Wait for the end; False if it did not come in time."""
        return not wait([self._finished], timeout).not_done

    def final(self) -> dict[str, Any]:
        """The Task as it ended. Raises what was given to `fail`."""
        return self._finished.result(0)

    def values(self, timeout: float | None = None, on_error: OnError = "raise") -> list[Any]:
        """Wait for the end and return the value of every call. Raises the first failure."""
        task = self._finished.result(timeout)
        outcomes = outcomes_of(task, lambda blob: self._fetch(self.name, blob))
        return values_of(task, outcomes, self._count, on_error)

    def stream(self, *, ordered: bool, on_error: OnError) -> Iterator[Any]:
        """The value of each call as it ends, or in the order of the calls. Raises at the end, for all."""
        outcomes = in_order(self.outcomes()) if ordered else self.outcomes()
        return each_value(self.name, outcomes, self._finished.result, self._count, on_error)

    def outcomes(self) -> Iterator[Outcome]:
        """The outcome of each call as it ends, until the last one has."""
        delivery = Delivery(
            self.name,
            lambda start, cutter: self._follow(self.name, start, cutter),
            self._ended,
            lambda why: self._console.tell(self._subject, f"⚠ its results do not come ({why}); trying again"),
        )
        self._finished.add_done_callback(lambda end: delivery.cut() if end.exception() else None)
        return iter(delivery)

    def _ended(self, seconds: float) -> dict[str, Any] | None:
        try:
            return self._finished.result(seconds)
        except FutureTimeout:
            if self._finished.done():  # it is the Task's own error
                raise
            return None

    def when_finished(self, callback: Callable[[], None]) -> None:
        """Call back once it has ended, from whichever thread notices it."""
        self._finished.add_done_callback(lambda _: callback())

    def future[T](
        self, choose: Callable[[list[Any]], T], executor: Executor, on_error: OnError = "raise"
    ) -> TaskFuture[T]:
        """A future of what `choose` makes of the values."""
        future: TaskFuture[T] = TaskFuture(self.cancel)

        def resolve() -> None:
            try:
                result = choose(self.values(on_error=on_error))
            except BaseException as error:
                _settle(future, error=error)
            else:
                _settle(future, result=result)

        def hand_over(_: Future[dict[str, Any]]) -> None:
            try:
                executor.submit(resolve)
            except RuntimeError as error:  # the interpreter ends: nobody is left to show the result to
                _settle(future, error=error)

        self._finished.add_done_callback(hand_over)
        return future

    def _finish(self, task: dict[str, Any]) -> None:
        with suppress(InvalidStateError):
            self._finished.set_result(task)


class ResultIterator[T](Iterator[T]):
    """Results of a Task while it runs. Leaving early cancels it: `close`, the end of a `with`, `del`."""

    def __init__(
        self, values: Iterator[T], leave: Callable[[], None], soon: Callable[[Callable[[], None]], None]
    ) -> None:
        self._values = values
        self._leave: Callable[[], None] | None = leave
        self._soon = soon

    @classmethod
    def empty(cls) -> "ResultIterator[T]":
        """The results of no calls."""
        return cls(iter(()), lambda: None, lambda _: None)

    def __iter__(self) -> "ResultIterator[T]":
        return self

    def __next__(self) -> T:
        try:
            with interruptible():
                return next(self._values)
        except StopIteration:
            self._leave = None
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                self.close()
            else:  # a signal: whoever is in a hurry does not wait for a server
                self.leave_soon()
            # The remote frames are in its cause; those of an iterator of the caller's own are kept.
            raise error.with_traceback(_below_ours(error.__traceback__)) from error.__cause__

    def close(self) -> None:
        """No more results are wanted: what has not ended is cancelled. Again is no error."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def leave_soon(self) -> None:
        """As `close`, in the background."""
        leave, self._leave = self._leave, None
        if leave is not None:  # it asks the API server, which nobody waits for in here
            self._soon(leave)

    def __enter__(self) -> "ResultIterator[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.leave_soon()


def _below_ours(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace


def _settle(future: Future[Any], *, result: Any = None, error: BaseException | None = None) -> None:
    with suppress(InvalidStateError):  # it was cancelled meanwhile
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
