"""One thread that follows the live output of a run through the gateway, for as long as it is wanted.

Output is a courtesy: when the gateway cannot be reached from here, calls still work and the thread keeps
trying.
"""

import threading
from collections.abc import Callable
from typing import Any

from skyward.cluster.cutter import Cutter
from skyward.cluster.gateway import Gateway
from skyward.errors import SkywardError

SILENCE_SECONDS = 60.0
"""The gateway sends an empty line every 15 s when nothing is printed."""
_PAUSES = (0.1, 0.3, 1.0, 3.0)


class LogFollower:
    """Hands each new piece of output to `on_line`, once."""

    def __init__(self, gateway: Gateway, on_line: Callable[[dict[str, Any]], None]) -> None:
        self._gateway = gateway
        self._on_line = on_line
        self._stopped = threading.Event()
        self._cutter = Cutter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._newest: dict[tuple[Any, ...], float] = {}

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="skyward-logs", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End, without waiting for the thread."""
        self._stopped.set()
        self._cutter.cut()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            seen = dict(self._newest)
            try:
                for line in self._gateway.stream("/v1/logs", {"follow": "1"}, SILENCE_SECONDS, self._cutter):
                    failures = 0
                    self._take(line, seen)
            except (SkywardError, ValueError, RuntimeError):  # RuntimeError: the client was closed meanwhile
                failures += 1
            self._stopped.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def _take(self, line: dict[str, Any], seen: dict[tuple[Any, ...], float]) -> None:
        """Pass on what an earlier connection has not brought: a new one may begin with what was there."""
        if not line.get("text"):
            return
        source = (line.get("task"), line.get("index"), line.get("node"), line.get("stream"))
        time = float(line.get("time") or 0.0)
        if time and time <= seen.get(source, 0.0):
            return
        self._newest[source] = max(time, self._newest.get(source, 0.0))
        if not self._stopped.is_set():
            self._on_line(line)
