"""One thread that follows the live output of a run through the gateway, for as long as it is wanted.

Output is a courtesy: when the gateway cannot be reached from here, calls still work and the thread keeps
trying, whatever went wrong. What is more than a moment's silence is said, once until output comes again.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from skyward.cluster.cutter import Cutter
from skyward.cluster.gateway import Gateway
from skyward.cluster.route import GatewayRefused
from skyward.cluster.upload import PATIENCE_SECONDS
from skyward.errors import GatewayError, SkywardError

SILENCE_SECONDS = 60.0
"""The gateway sends an empty line every 15 s when nothing is printed."""
_BREATH_SECONDS = 0.0005
"""After a piece of output that took a while to show, so that threads which wait for results get their turn at
the interpreter: it changes hands by itself every 5 ms only, and much output comes at once."""
_LONG_PIECE = 4096
_SAID_AFTER = 34
"""Failures in a row, some ten seconds of them: an operator that starts again is no news."""
_PAUSES = (0.1, *[0.3] * 200, 3.0)
"""Quick while an operator starts again, slow where the gateway cannot be reached at all."""


class Position:
    """How far a reader has come, so that it can go on over another connection and get each record once.

    The gateway numbers what it keeps by time. Each connection begins with what was kept after `since`, task
    by task, says which tasks have ended, and ends that part with a record without text. Then it goes on with
    what comes.
    """

    def __init__(self, since: float = 0.0) -> None:
        self.since = since
        self._offsets: dict[str, int] = {}
        """How much is known of the log of each node: that is sent from its beginning each time."""
        self._ahead: set[float] = set()
        """What a replay has brought so far: it is not in order, so it may have to begin again."""
        self._replaying = True

    def begin(self, *, follow: bool = True) -> dict[str, str]:
        """A connection begins; what to ask for: what there is, and, to follow, what comes."""
        self._replaying = True
        return {"since": repr(self.since), **({"follow": "1"} if follow else {})}

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether a record brings something new."""
        kept = record.get("kept")
        if "done" in record:
            return True
        if "offset" in record:
            node, offset = str(record.get("node")), int(record["offset"])
            known = self._offsets.get(node, 0)
            self._offsets[node] = max(offset, known)
            return offset > known
        if not record.get("text"):
            self.since = float(kept or self.since)
            self._ahead.clear()
            self._replaying = False
            return False
        if kept is None:
            return True
        if not self._replaying:
            self.since = kept
            return True
        if kept in self._ahead:
            return False
        self._ahead.add(kept)
        return True


class LogFollower:
    """Hands each piece of a run's output in a namespace to `on_line`, once, whatever breaks in between.

    `on_trouble` is told what keeps output from coming or from being shown.
    """

    def __init__(
        self,
        gateway: Gateway,
        namespace: str,
        on_line: Callable[[dict[str, Any]], None],
        on_trouble: Callable[[str], None] = lambda problem: None,
    ) -> None:
        self._gateway = gateway
        self._namespace = namespace
        self._on_line = on_line
        self._on_trouble = on_trouble
        self._is_in_trouble = False
        self._is_unshown = False
        self._ending = threading.Event()
        self._stopped = threading.Event()
        self._cutter = Cutter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.connected = threading.Event()
        """Set once a connection has brought what was kept before it."""
        self._position = Position()

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="skyward-logs", daemon=True)
                self._thread.start()

    def finish(self, seconds: float) -> None:
        """Hand on what was printed until now and has not come yet, then end.

        However much it is, as long as it comes; an operator that does not answer gets `seconds`.
        """
        self._ending.set()
        self._cutter.cut()
        if self._thread is None or not self.connected.is_set():
            self._stopped.set()
            return
        while self._thread.is_alive():
            before = self._position.since
            self._thread.join(seconds)
            if self._position.since == before:
                break
        deadline = time.monotonic() + seconds
        while not self._thread.is_alive() and time.monotonic() < deadline and not self._has_rest():
            time.sleep(_PAUSES[1])
        self._stopped.set()

    def _has_rest(self) -> bool:
        """Take what was kept since the last record; False where the connection breaks."""
        query = {"namespace": self._namespace, **self._position.begin(follow=False)}
        try:
            for line in self._gateway.stream("/v1/logs", query, SILENCE_SECONDS):
                self._take(line)
        except (SkywardError, RuntimeError):
            return False
        return True

    def _run(self) -> None:
        failures = 0
        while not self._ending.is_set():
            query = {"namespace": self._namespace, **self._position.begin()}
            try:
                for line in self._gateway.stream("/v1/logs", query, SILENCE_SECONDS, self._cutter):
                    failures = 0
                    self._take(line)
            except Exception as error:  # the only thread that shows output must not die of it
                failures += 1
                passes = isinstance(error, GatewayError) and not isinstance(error, GatewayRefused)
                if not passes or failures == _SAID_AFTER:
                    self._say(f"live output does not come ({_words(error)}); trying again, calls go on")
            self._ending.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def _take(self, line: dict[str, Any]) -> None:
        """Pass a line on, unless an earlier connection brought it; one without text ends a replay."""
        if self._position.takes(line) and not self._stopped.is_set():
            self._show(line)
            if len(line.get("text", "")) > _LONG_PIECE:
                time.sleep(_BREATH_SECONDS)
        if not line.get("text") and "done" not in line:
            self.connected.set()
            self._is_in_trouble = False

    def _show(self, line: dict[str, Any]) -> None:
        """What cannot be shown is left out: the next line may be fine."""
        try:
            self._on_line(line)
        except Exception as error:  # of a terminal that is gone, of an encoding, of a line
            if not self._is_unshown:
                self._is_unshown = True
                task = line.get("task")
                why = f"output of task {task} cannot be shown here ({_words(error)})"
                self._tell(f"{why}; `skyward logs {task}` has it")

    def _say(self, problem: str) -> None:
        if not self._is_in_trouble and not self._ending.is_set():
            self._is_in_trouble = True
            self._tell(problem)

    def _tell(self, problem: str) -> None:
        with contextlib.suppress(Exception):  # the console may be what is broken
            self._on_trouble(problem)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, SkywardError) else f"{type(error).__name__}: {error}"


def read_output(
    gateway: Gateway, path: str, *, follow: bool, since: float = 0.0, patience: float = PATIENCE_SECONDS
) -> Iterator[dict[str, Any] | None]:
    """Output that was kept after `since`, then None, then, to `follow`, what comes until its end.

    Each record comes once; a connection that breaks is made again, and an operator that restarts is waited
    for. Raises GatewayError when it refuses, and when it does not answer for `patience` seconds.
    """
    position, answered, caught_up = Position(since), False, False
    failing: float | None = None
    while True:
        try:
            for record in gateway.stream(path, position.begin(follow=follow), SILENCE_SECONDS):
                answered, failing = True, None
                if record.get("end"):
                    return
                if position.takes(record):
                    yield record
                elif not caught_up and "kept" in record and not record.get("text"):
                    caught_up = True
                    yield None
        except GatewayRefused:
            raise
        except GatewayError:
            failing = failing if failing is not None else time.monotonic()
            if not answered or time.monotonic() - failing > patience:
                raise
        time.sleep(_PAUSES[1])
