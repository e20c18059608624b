"""A component that is started again when it ends by itself, later each time it does so soon."""

import time
from collections.abc import Callable

from skyward.local.processes import Child
from skyward.local.status import Component, ComponentState

FIRST_DELAY = 0.2
LONGEST_DELAY = 15.0
_STABLE_SECONDS = 20.0
"""A process that ran this long has earned a quick restart again."""


class Watched:
    """One component: how to start it, how to see that it serves, and its newest process."""

    def __init__(self, name: str, begin: Callable[[], Child], serves: Callable[[], bool]) -> None:
        self.name = name
        self.state = ComponentState.STOPPED
        self.restarts = 0
        self.last_exit = ""
        self.restart_at = 0.0
        self._begin = begin
        self._serves = serves
        self._child: Child | None = None
        self._delay = FIRST_DELAY

    def start(self) -> None:
        """Start a new process."""
        self.adopt(self._begin())

    def adopt(self, child: Child) -> None:
        """Take a process that was started elsewhere."""
        self._child = child
        self.state = ComponentState.STARTING

    def check_ready(self) -> bool:
        """True once for each process: when it begins to serve."""
        if self.state is not ComponentState.STARTING or not self._serves():
            return False
        self.state = ComponentState.RUNNING
        return True

    def check_exit(self, now: float) -> bool:
        """True once for each process that ended by itself; the next one is due at `restart_at`."""
        child = self._child
        if child is None or child.is_running or self.state is ComponentState.RESTARTING:
            return False
        if now - child.started > _STABLE_SECONDS:
            self._delay = FIRST_DELAY
        self.last_exit = f"{child.exit_text} at {time.strftime('%Y-%m-%d %H:%M:%S')}"
        self.state = ComponentState.RESTARTING
        self.restart_at = now + self._delay
        self._delay = min(self._delay * 2, LONGEST_DELAY)
        self.restarts += 1
        return True

    @property
    def last_words(self) -> str:
        """The last lines that the newest process wrote."""
        return self._child.tail() if self._child is not None else ""

    def is_due(self, now: float) -> bool:
        """True when the time for the next process has come."""
        return self.state is ComponentState.RESTARTING and now >= self.restart_at

    def stop(self) -> None:
        """End it for good."""
        if self._child is not None:
            self._child.stop()
        self._child = None
        self.state = ComponentState.STOPPED

    def describe(self) -> Component:
        """What the status file says about it."""
        identity = self._child.identity if self._child and self._child.is_running else None
        return Component(self.name, self.state, identity, self.restarts, self.last_exit)
