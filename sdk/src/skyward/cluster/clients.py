"""HTTP clients of one server: one for the main thread, and one for all others.

A signal raises in the main thread wherever it is, also where its client has just taken a lock: whoever wants
that lock next would wait for ever. So that client is the main thread's own, and a new one takes its place.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx


class Clients:
    """Gives each thread its client. `make` makes one; both go to the same place in the same way."""

    def __init__(self, make: Callable[[], httpx.Client]) -> None:
        self._make = make
        self._shared = make()
        self._main: httpx.Client | None = None

    @contextmanager
    def use(self) -> Iterator[httpx.Client]:
        """The client for one request, and for reading its answer."""
        if threading.current_thread() is not threading.main_thread():
            yield self._shared
            return
        if self._main is None:
            self._main = self._make()
        try:
            yield self._main
        except (KeyboardInterrupt, SystemExit):  # of a signal; closing the client would take its locks too
            self._main = None
            raise

    def close(self) -> None:
        """Close all connections; what is being read ends."""
        self._shared.close()
        main, self._main = self._main, None
        if main is not None:
            main.close()
