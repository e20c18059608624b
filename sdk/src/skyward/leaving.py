"""Cancels in the background what nobody iterates over any more.

An iterator may be thrown away by the garbage collector, in the middle of anything, in any thread. So its end
must not wait for a server, nor take a lock (as handing work to an executor does): it only leaves a note.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Leaving:
    """One thread, from the first stream of a session to its end. What is in the queue then is not done."""

    def __init__(self) -> None:
        self._notes: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin, unless it has begun or is over."""
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="skyward-leaving", daemon=True)
                self._thread.start()

    def soon(self, leave: Callable[[], None]) -> None:
        """Have `leave` called. Takes no lock: `SimpleQueue.put` is reentrant."""
        self._notes.put(leave)

    def stop(self) -> None:
        """End, without waiting for the thread."""
        self._stopped = True
        self._notes.put(None)

    def _run(self) -> None:
        while (leave := self._notes.get()) is not None and not self._stopped:
            try:
                leave()
            except Exception:
                if not self._stopped:  # the session's connection is closed meanwhile
                    raise
