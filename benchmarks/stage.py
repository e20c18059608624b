"""What the measurements of one run share: how much is measured, a control plane, and a limit of time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import timed
from skyward import local
from skyward.local import plane
from skyward.local.home import Home
from skyward.local.operator import operator_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from skyward.local.endpoint import Endpoint


class NotMeasured(Exception):
    """A path that cannot be measured here; the message says why."""


class Stage:
    """One run. `close` it: its control plane ends with it."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self._open = contextlib.ExitStack()
        self._endpoint: Endpoint | None = None

    def amount(self, whole: int, quick: int) -> int:
        """How often or how much: in a whole run, and in a quick one."""
        return quick if self.quick else whole

    @property
    def endpoint(self) -> Endpoint:
        """The control plane that measurements share, started when the first one asks."""
        if self._endpoint is None:
            self._endpoint = self._open.enter_context(control_plane())
        return self._endpoint

    def close(self) -> None:
        """End the control plane; the next to ask gets a new one."""
        self._endpoint = None
        self._open.close()


@contextmanager
def control_plane(
    taken: list[float] | None = None, operator: Callable[[Home], Sequence[str]] = operator_command
) -> Iterator[Endpoint]:
    """A control plane in a temporary folder, which is the one of this process for as long as it lasts."""
    with folder() as place:
        before = os.environ.get("SKYWARD_HOME")
        os.environ["SKYWARD_HOME"] = str(place)
        try:
            with timed(taken if taken is not None else []):
                endpoint = local.ensure(operator=operator)
            yield endpoint
        finally:
            plane.stop(Home.locate())
            os.environ.pop("SKYWARD_HOME")
            if before is not None:
                os.environ["SKYWARD_HOME"] = before


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="skyward-bench-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds; in the main thread only."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not through within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
