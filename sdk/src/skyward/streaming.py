"""The caller's end of streams: the items of a call that yields, and iterators that a call pulls from here.

What arrives waits in a window until it is read. An iterator of the caller runs in a thread of its own, from
the moment that the function first asks for an item, and never further ahead than the window.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from skyward.errors import EnvironmentMismatch, GatewayError, NodeLost, SkywardError
from skyward.feeding import Feed
from skyward.results import value_of
from skyward.tasks import ResultIterator
from skyward.wire import codec
from skyward.wire.errors import PickleError
from skyward.wire.frames import Frame, FrameKind
from skyward.wire.package import Outcome
from skyward.wire.streams import Arrived, Inflow

if TYPE_CHECKING:
    from skyward.functions import PendingFunction


def yields(function: Callable[..., Any]) -> bool:
    """Whether calls of a function give items: it is a generator function, or an async one."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def refuse_items(pending: "PendingFunction[Any]", what: str) -> None:
    """Raise TypeError for a call that yields where only values can come back."""
    if yields(pending.function):
        name = pending.name
        raise TypeError(
            f"{name}() is a generator, and {what} takes calls that return. Its items come with "
            f"`for item in {name}(...) >> pool:`; where all of them are wanted at once, send a function that "
            f"returns list({name}.local(...)) instead"
        )


class CallFlow:
    """All streams of one call. Implements `open_task.Flow`."""

    def __init__(self, task: str, feeds: list[Iterator[Any]], *, stream: bool) -> None:
        self._task = task
        self._stream = stream
        self._changed = threading.Condition()
        self._inflow = Inflow()
        self._feeds = [Feed(number, iterator, self._say) for number, iterator in enumerate(feeds)]
        self._number: int | None = None
        self._over = self._closed = False
        self._end: Outcome | SkywardError | None = None
        self._waiter: Callable[[], object] | None = None
        self._index = 0
        self._send: Callable[[Frame], None] = lambda frame: None

    # open_task.Flow

    def begin(self, index: int, send: Callable[[Frame], None]) -> None:
        """The call has an index, and a way to say something about it."""
        self._index, self._send = index, send

    def traits(self) -> dict[str, Any]:
        """What the CALL says of its streams."""
        return {"stream": self._stream, "inputs": len(self._feeds), "begun": self._begun}

    def again(self) -> Frame:
        """What a new connection begins with: how far this side is, so that the other one says the rest."""
        with self._changed:
            return self._credit(replay=True)

    def receive(self, frame: Frame) -> None:
        """An ITEM or NEED frame."""
        header = frame.header
        with self._changed:
            if self._end is not None or not self._is_current(header["number"]):
                return
            if frame.kind is FrameKind.ITEM:
                self._inflow.put(header, frame.body)
                if self._inflow.tells():
                    self._send(self._credit())
                self._notify()
        if frame.kind is FrameKind.NEED and header["input"] < len(self._feeds):
            self._feeds[header["input"]].need(header["taken"], replay=bool(header.get("replay")))

    def ended(self, end: Outcome | SkywardError) -> None:
        """The call has ended: its items that are here can be read, and no more of its inputs are needed."""
        for feed in self._feeds:
            feed.close()
        with self._changed:
            self._end = self._end or end
            self._notify()

    # who reads

    def items(self) -> Generator[Any, None, Any]:
        """The items in order; what the generator returned is this one's value. Raises what it raised."""
        while True:
            with self._changed:
                while (arrived := self._next()) is None and self._end is None:
                    self._changed.wait()
            if arrived is None:
                return self._result()
            yield self._read(arrived)

    def _read(self, arrived: Arrived) -> Any:
        try:
            return codec.loads(arrived.body)
        except PickleError as error:
            raise EnvironmentMismatch(
                f"task {self._task}: an item arrived but cannot be read here: {error}",
                task=self._task,
                remedy="install here what the item is made of, or yield plain data",
                attempts=self._number or 1,
            ) from error

    def close(self) -> None:
        """Nobody reads on: the generator ends where it yields."""
        with self._changed:
            if self._closed or self._end is not None:
                return
            self._closed = True
            self._send(self._credit())

    def when_ready(self, callback: Callable[[], object]) -> None:
        """Call back once `items` would not wait: at once, or from another thread."""
        with self._changed:
            if not self._is_ready():
                self._waiter = callback
                return
        callback()

    def _next(self) -> Arrived | None:
        arrived = self._inflow.take()
        if arrived is not None and self._inflow.tells():
            self._send(self._credit())
        if arrived is not None and arrived.header.get("end"):
            self._over, arrived = True, None
        return arrived

    def _is_ready(self) -> bool:
        if self._inflow.is_next_the_end:
            self._next()  # the outcome comes once this was said
        return bool(self._inflow) or self._end is not None

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._waiter is not None and self._is_ready():
            waiter, self._waiter = self._waiter, None
            waiter()

    def _result(self) -> Any:
        if isinstance(self._end, SkywardError):
            raise self._end
        assert self._end is not None  # noqa: S101
        value = value_of(self._task, self._end)
        if not self._over and not self._closed:
            raise GatewayError(
                f"the call of task {self._task} has ended, and some of its items did not arrive",
                task=self._task,
                remedy="send the call again; please report it if it happens again",
                attempts=self._end.number,
            )
        return value

    # which attempt this is

    @property
    def _begun(self) -> bool:
        return self._inflow.received > 0 or any(feed.begun for feed in self._feeds)

    def _is_current(self, number: int) -> bool:
        """Whether frames of this attempt continue what is here. A later one cannot, once one has begun."""
        if self._number is not None and number > self._number and self._begun:
            self._end = NodeLost(
                f"task {self._task}: the call was begun again after some of its items had been delivered",
                task=self._task,
                remedy="send it again, and take its items from the beginning",
                attempts=number,
            )
            self._send(Frame(FrameKind.CANCEL, {"index": self._index}))
            self._notify()
            return False
        if self._number is None or number > self._number:
            self._number = number
        return number == self._number

    # what it says

    def _credit(self, *, replay: bool = False) -> Frame:
        header: dict[str, Any] = {"index": self._index, "taken": self._inflow.taken}
        flags = {"replay": replay, "close": self._closed}
        header.update({name: True for name, given in flags.items() if given})
        return self._of_attempt(FrameKind.CREDIT, header)

    def _say(self, frame: Frame) -> None:
        self._send(self._of_attempt(frame.kind, {**frame.header, "index": self._index}, frame.body))

    def _of_attempt(self, kind: FrameKind, header: dict[str, Any], body: Any = b"") -> Frame:
        return Frame(kind, header if self._number is None else {**header, "number": self._number}, body)


class ItemIterator[T](ResultIterator[T]):
    """The items of a call that yields, while it runs: for `for` and for `async for`.

    Leaving early ends the generator where it yields: `close`, the end of a `with`, `del`.
    """

    def __init__(
        self, flow: CallFlow, leave: Callable[[], None], soon: Callable[[Callable[[], None]], None]
    ) -> None:
        super().__init__(flow.items(), leave, soon)
        self._flow = flow

    def __aiter__(self) -> "ItemIterator[T]":
        return self

    async def __anext__(self) -> T:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        self._flow.when_ready(lambda: loop.call_soon_threadsafe(ready.set))
        try:
            await ready.wait()
        except asyncio.CancelledError:
            self.close()
            raise
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """As `close`."""
        self.close()
