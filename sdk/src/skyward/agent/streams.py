"""The worker's end of streams: what a call yields goes out, what it pulls from its caller comes in.

The call waits here for room or for an item; frames from its caller arrive in another thread. Everything that
is sent is sent under the stream's lock, so that its order is that of its numbers. Whoever ends a call (a
signal, a cancel, a time-out) ends these waits as well: none of them hides from an exception.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from functools import partial
from typing import Any

from skyward.errors import RemoteError, RemoteTraceback
from skyward.wire.codec import dumps_parts, loads
from skyward.wire.digest import BytesLike
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.errors import NotPicklable, PickleError
from skyward.wire.frames import Frame, FrameKind
from skyward.wire.raised import loads_error
from skyward.wire.streams import Arrived, Inflow, InputMark, Outflow, pieces


class CallStream:
    """All streams of one call. `receive` is called in another thread than the rest."""

    def __init__(self, attempt: str, send: Callable[[Frame], None]) -> None:
        self._attempt = attempt
        self._send = send
        self._changed = threading.Condition()
        self._out = Outflow(FrameKind.ITEM, {"attempt": attempt})
        self._inputs: dict[int, Inflow] = {}
        self._closed = False
        self._on_change: Callable[[], object] | None = None

    def receive(self, frame: Frame) -> None:
        """A CREDIT or an INPUT frame."""
        header = frame.header
        with self._changed:
            if frame.kind is FrameKind.INPUT:
                if (inflow := self._inputs.get(header["input"])) is not None:
                    inflow.put(header, frame.body)
            else:
                self._out.taken(header["taken"])
                self._closed = self._closed or bool(header.get("close"))
                if header.get("replay"):
                    self._say_again()
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change()

    def wake(self) -> None:
        """Have a wait look up: an exception was raised in its thread."""
        with self._changed:
            self._changed.notify_all()

    def with_inputs(self, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with iterators in the places of marks."""
        return [self._filled(each) for each in args], {key: self._filled(kwargs[key]) for key in kwargs}

    def deliver(self, items: Generator[Any, Any, Any] | AsyncGenerator[Any, None]) -> Any:
        """Hand on what a generator yields, until it or its reader ends. Returns what it returned."""
        try:
            value = (
                self._each(items) if isinstance(items, Generator) else asyncio.run(self._each_awaited(items))
            )
        except Exception:
            self._finish()  # what was yielded before is read before it is raised
            raise
        self._finish()
        return value

    def _each(self, items: Generator[Any, Any, Any]) -> Any:
        while True:
            try:
                item = next(items)
            except StopIteration as end:
                return end.value
            if not self._yield(item):
                items.close()
                return None

    async def _each_awaited(self, items: AsyncGenerator[Any, None]) -> None:
        async for item in items:
            await self._room_awaited()
            if not self._yield(item):
                await items.aclose()
                return

    async def _room_awaited(self) -> None:
        """Other tasks of the function run on while it waits."""
        loop, change = asyncio.get_running_loop(), asyncio.Event()
        self._on_change = partial(loop.call_soon_threadsafe, change.set)
        while not (self._out.has_room or self._closed):
            await change.wait()
            change.clear()
        self._on_change = None

    def _yield(self, item: Any) -> bool:
        """Send an item once there is room; False when nobody reads on."""
        try:
            parts = dumps_parts(item)
        except NotPicklable as error:
            raise NotPicklable(f"an item that the call yields: {error}; yield plain data instead") from None
        for body, more in pieces(parts):
            self._await_room()
            with self._changed:
                if self._closed:
                    return False
                self._send(self._out.add(body, more=True) if more else self._out.add(body))
        return True

    def _await_room(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._out.has_room or self._closed)

    def _finish(self) -> None:
        """Say that there are no more items, and wait until the reader has taken them all."""
        with self._changed:
            if not self._closed:
                self._send(self._out.add(b"", end=True))
            self._changed.wait_for(lambda: self._out.is_taken or self._closed)

    def _say_again(self) -> None:
        for frame in self._out.unread():
            self._send(frame)
        for number, inflow in self._inputs.items():
            self._need(number, inflow, replay=True)

    # inputs

    def _filled(self, value: Any) -> Any:
        return Pull(self, value.number) if isinstance(value, InputMark) else value

    def _pull(self, number: int) -> Arrived:
        """The next item of an input, waited for; the last one has `end`."""
        with self._changed:
            inflow = self._inputs.get(number)
            if inflow is None:
                inflow = self._inputs[number] = Inflow()
                self._need(number, inflow)
            while (arrived := inflow.take()) is None:
                self._changed.wait()
                if inflow.tells():  # a part of an item that is larger than the window
                    self._need(number, inflow)
            if inflow.tells():
                self._need(number, inflow)
            return arrived

    def _need(self, number: int, inflow: Inflow, *, replay: bool = False) -> None:
        header: dict[str, Any] = {"attempt": self._attempt, "input": number, "taken": inflow.taken}
        self._send(Frame(FrameKind.NEED, {**header, "replay": True} if replay else header))


class Pull(Iterator[Any]):
    """An iterator of the caller, in the function. What it raises there is raised here."""

    def __init__(self, stream: CallStream, number: int) -> None:
        self._stream = stream
        self._number = number
        self._over = False

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        arrived = self._stream._pull(self._number)
        if not arrived.header.get("end"):
            return loads(arrived.body)
        self._over = True
        if (error := arrived.header.get("error")) is not None:
            raise _raised(arrived.body, ErrorInfo.from_json(error))
        raise StopIteration


def _raised(body: BytesLike, info: ErrorInfo) -> BaseException:
    """What the caller's iterator raised: itself, or its words where that cannot be."""
    if body:
        try:
            return loads_error(body)
        except PickleError:
            remedy = "install the package that defines it on the nodes (sky.Image), or catch sky.RemoteError"
    else:
        remedy = "the exception holds something that pickle cannot carry: catch sky.RemoteError"
    words = RemoteError(f"the iterator of the caller raised {info.full_type}: {info.message}", remedy=remedy)
    words.__cause__ = RemoteTraceback(info.traceback or info.message)
    return words
