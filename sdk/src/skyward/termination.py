"""SIGTERM ends an open pool as Ctrl-C does: an exception in the main thread, so that every `with` ends.

Only while a pool is open, and only where nobody else has decided what SIGTERM does.
"""

import signal
import threading
from types import FrameType

STATUS = 128 + signal.SIGTERM

_open_pools = 0


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
    global _open_pools
    if not _is_main() or _open_pools == 0:
        return
    _open_pools -= 1
    if _open_pools == 0 and signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_: int, __: FrameType | None) -> None:
    raise Terminated


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
