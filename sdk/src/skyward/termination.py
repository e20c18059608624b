"""SIGTERM ends an open pool as Ctrl-C does: an exception in the main thread, so that every `with` ends.

Only while a pool is open, and only where nobody else has decided what SIGTERM does. And Ctrl-C itself ends
what blocks, whoever runs the event loop.
"""

import asyncio
import functools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM

_open_pools = 0
_leaving = False


class Terminated(SystemExit):
    """The program got SIGTERM; it ends with the status that a shell shows for that."""

    def __init__(self) -> None:
        super().__init__(STATUS)


def begin() -> None:
    """A pool is being opened."""
    global _open_pools
    if not _is_main():
        return
    if _open_pools == 0 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    _open_pools += 1


def end() -> None:
    """A pool was closed; after the last one SIGTERM is again what it was."""
    global _open_pools, _leaving
    if not _is_main() or _open_pools == 0:
        return
    _open_pools -= 1
    _leaving = _leaving and _open_pools > 0
    if _open_pools == 0 and signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave() -> None:
    """A second signal came: the pools around the one that was being closed are left as well."""
    global _leaving
    _leaving = _open_pools > 0


def is_leaving() -> bool:
    """Whether a second signal has come while the pools of this program were being closed."""
    return _leaving


@contextmanager
def interruptible(*, closing: bool = False) -> Iterator[None]:
    """While this blocks, Ctrl-C raises KeyboardInterrupt, inside of `asyncio.run` too.

    There the first Ctrl-C only asks the loop to cancel its main task, and the loop is what is blocked. So one
    that came a moment before raises here, as the cancellation that it is, unless a pool is being closed.
    """
    handler = signal.getsignal(signal.SIGINT) if _is_main() else None
    runner = getattr(handler.func, "__self__", None) if isinstance(handler, functools.partial) else None
    if not isinstance(runner, asyncio.Runner):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        task = asyncio.current_task()
        if task is not None and task.cancelling() and not closing:
            raise asyncio.CancelledError
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _terminate(_: int, __: FrameType | None) -> None:
    raise Terminated


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
