"""A map over an iterator: items are taken and sent while results come, and never many of them are here.

One open Task, and a thread that takes the items: a slow source holds up no result, and a slow reader holds up
the source. What the source raises comes in its place, behind the results of the items before it.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from skyward.errors import NotPicklable, SkywardError
from skyward.functions import Function
from skyward.open_task import OpenTask, PackedCall
from skyward.packing import not_sent, pack_function
from skyward.reorder import in_order
from skyward.results import OnError, each_value
from skyward.wire.package import Outcome

AHEAD = 1024
"""Items that were taken and whose results have not been read, at most."""
AHEAD_BYTES = 64 * 1024 * 1024
"""Bytes of their arguments and results, above which no further one is taken."""


class OpenMap:
    """Calls a function with each item of an iterator, in one open task."""

    def __init__(self, task: OpenTask, described: Function[..., Any], items: Iterator[Any]) -> None:
        self._task = task
        self._described = described
        self._items = items
        self._arrived: SimpleQueue[Outcome | SkywardError | None] = SimpleQueue()
        self._changed = threading.Condition()
        self._function: bytes = b""
        self._taken = self._read = 0
        self._unread_bytes = 0
        self._over = False
        """No further item is taken."""
        self._is_source_done = False
        self._raised: BaseException | None = None

    def values(self, *, ordered: bool, on_error: OnError) -> Iterator[Any]:
        """The results as they come, or in the order of the items. A call that failed is raised at the end."""
        threading.Thread(target=self._take_items, name="skyward-items", daemon=True).start()
        outcomes = in_order(self._outcomes()) if ordered else self._outcomes()
        name = self._task.handle.name
        ended = {"metadata": {"name": name}, "status": {"phase": "Succeeded"}}
        return each_value(name, self._counted(outcomes), lambda: ended, None, on_error)

    def leave(self) -> None:
        """Nobody reads on: take no further item, and have what runs stopped.

        A Task with nothing to stop ends by itself.
        """
        self._stop()
        if self._task.waiting or not self._is_source_done:
            self._task.handle.cancel()

    # the thread that takes items

    def _take_items(self) -> None:
        try:
            while self._has_room():
                try:
                    item = next(self._items)
                except StopIteration:
                    break
                self._send(item)
        except BaseException as error:  # SystemExit too is raised where the results are read
            self._raised = error
        finally:
            with self._changed:
                self._over = self._is_source_done = True
            self._arrived.put(None)
            self._task.close()
            close = getattr(self._items, "close", None)
            if close is not None:
                close()

    def _has_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._over
                    or (
                        self._taken - self._read < AHEAD
                        and self._task.held + self._unread_bytes < AHEAD_BYTES
                    )
                )
            )
            return not self._over

    def _send(self, item: Any) -> None:
        pending = self._described(item)  # raises TypeError if the function does not take one item
        self._function = self._function or pack_function(pending)
        position = self._taken
        try:
            packed = PackedCall.of(pending, self._function, position)
        except NotPicklable as error:  # it fails alone, as one of a list does
            self._ended(not_sent(position, error))
        else:
            # The Task counts the calls that were sent, and the map all of its items.
            self._task.call(packed, lambda end: self._ended(_at(position, end)))
        with self._changed:
            self._taken += 1

    def _ended(self, end: Outcome | SkywardError) -> None:
        with self._changed:
            if isinstance(end, Outcome):
                self._unread_bytes += len(end.body)
            self._changed.notify_all()
        self._arrived.put(end)

    def _stop(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    # who reads

    def _outcomes(self) -> Iterator[Outcome]:
        """Each outcome as it comes; at the end, what the iterator has raised."""
        came = 0
        is_source_over = False
        while not is_source_over or came < self._taken:
            match self._arrived.get():
                case None:
                    is_source_over = True
                case Outcome() as outcome:
                    came += 1
                    yield outcome
                case SkywardError() as error:
                    self._stop()
                    raise error
        if self._raised is not None:
            raise self._raised

    def _counted(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        for outcome in outcomes:
            with self._changed:
                self._read += 1
                self._unread_bytes -= len(outcome.body)
                self._changed.notify_all()
            yield outcome


def _at(position: int, end: Outcome | SkywardError) -> Outcome | SkywardError:
    return replace(end, index=position) if isinstance(end, Outcome) else end
