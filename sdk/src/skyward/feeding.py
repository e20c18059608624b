"""Iterators that are given to a call: which of its arguments they are, and how their items go out."""

import collections.abc
import inspect
import re
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from skyward.wire.codec import dumps_parts
from skyward.wire.digest import BytesLike
from skyward.wire.errors import NotPicklable
from skyward.wire.frames import Frame, FrameKind
from skyward.wire.raised import dumps_error
from skyward.wire.streams import InputMark, Outflow, pieces

if TYPE_CHECKING:
    from skyward.functions import PendingFunction

_PULLED = (collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator)
_PULLED_NAME = re.compile(r"([\w.]*\.)?(Iterator|Iterable|Generator)\b")


def take_inputs[T](
    pending: "PendingFunction[T]",
) -> tuple["PendingFunction[T]", list[Iterator[Any]]]:
    """The call with marks in the places of iterators that it pulls from here, and those iterators.

    That is what a parameter annotated as an iterator, iterable or generator is given, if it is an iterator.
    """
    values = [*pending.args, *pending.kwargs.values()]
    if not any(isinstance(value, Iterator) for value in values):
        return pending, []
    pulled = _pulled_parameters(pending.function)
    try:
        bound = inspect.signature(pending.function).bind(*pending.args, **pending.kwargs)
    except (TypeError, ValueError):  # it says so where it is called
        return pending, []
    feeds: list[Iterator[Any]] = []

    def marked(name: str, value: Any) -> Any:
        if name not in pulled or not isinstance(value, Iterator):
            return value
        feeds.append(value)
        return InputMark(len(feeds) - 1)

    for name, value in bound.arguments.items():
        match bound.signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(marked(name, each) for each in value)
            case inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: marked(name, value[key]) for key in value}
            case _:
                bound.arguments[name] = marked(name, value)
    return replace(pending, args=bound.args, kwargs=bound.kwargs) if feeds else pending, feeds


def _pulled_parameters(function: Callable[..., Any]) -> set[str]:
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # an annotation that only a type checker can read
        hints = inspect.get_annotations(function)
    return {name for name, hint in hints.items() if _is_pulled(hint)}


def _is_pulled(hint: Any) -> bool:
    if isinstance(hint, str):
        return any(_PULLED_NAME.match(part.strip()) for part in hint.split("|"))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(map(_is_pulled, typing.get_args(hint)))
    return (typing.get_origin(hint) or hint) in _PULLED


class Feed:
    """One iterator of the caller on its way to a call. `need` and `close` may come from any thread."""

    def __init__(self, number: int, items: Iterable[Any], say: Callable[[Frame], None]) -> None:
        self._items = iter(items)
        self._say = say
        self._changed = threading.Condition()
        self._out = Outflow(FrameKind.INPUT, {"input": number})
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def begun(self) -> bool:
        """Whether an item has been taken from the iterator for the call."""
        return self._out.sent > 0

    def need(self, taken: int, *, replay: bool) -> None:
        """The call has taken so many frames; the first time this begins the iterator."""
        with self._changed:
            self._out.taken(taken)
            if replay:
                for frame in self._out.unread():
                    self._say(frame)
            self._changed.notify_all()
            self._start()

    def close(self) -> None:
        """The call needs no more: the iterator is closed, where it is when it next gives an item."""
        with self._changed:
            self._closed = True
            self._out.clear()
            self._changed.notify_all()
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="skyward-input", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while self._has_room():
                try:
                    item = next(self._items)
                except StopIteration:
                    self._give(b"", {"end": True})
                    return
                for body, more in pieces(_pickled(item, self._out.sent)):
                    if not self._has_room():
                        return
                    self._give(body, {"more": True} if more else {})
        except BaseException as error:  # SystemExit too is raised where the items are wanted
            self._fail(error)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _has_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._out.has_room)
            return not self._closed

    def _give(self, body: BytesLike, more: dict[str, Any]) -> None:
        with self._changed:
            if not self._closed:
                self._say(self._out.add(body, **more))

    def _fail(self, error: BaseException) -> None:
        """The end that an exception makes: as itself where it can be pickled, and in words in any case."""
        raised, info = dumps_error(error)
        for body, more in pieces([raised]):
            if not self._has_room():
                return
            self._give(body, {"more": True} if more else {"end": True, "error": info.to_json()})


def _pickled(item: Any, number: int) -> list[BytesLike]:
    try:
        return dumps_parts(item)
    except NotPicklable as error:
        raise TypeError(
            f"item {number} of an iterator that was given as an argument cannot be sent to the node: {error}"
        ) from None
