"""Whether the operator is alive, while somebody waits for it: its Lease is renewed every two seconds.

An operator that was killed closes its connections, and is named at once. One that hangs keeps them open and
says nothing, so it would look like one that has no slot. Clocks are not compared: what counts is that the
Lease changes, by the clock of this process. It is read only while somebody waits.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from skyward.cluster.api import Api
from skyward.errors import SkywardError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.5
SILENT_SECONDS = 10.0
"""A Lease that was not renewed for so long is worth a word: its holder should have, five times."""


class Pulse:
    """Looks at the operator's Lease.

    Reports since when it does not change, as a time of day, and None when it does again.
    """

    def __init__(self, api: Api, waits: Callable[[], bool], report: Callable[[str | None], None]) -> None:
        self._api = api
        self._waits = waits
        self._report = report
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="skyward-pulse", daemon=True)
        self._seen: tuple[Any, ...] | None = None
        self._since = 0.0
        self._silent = False

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for a request under way."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                if self._waits():
                    self.look(self._api.operator_lease(), time.monotonic())
            except SkywardError as error:  # the watch says that the API server does not answer
                logger.debug("the operator's lease could not be read: %s", error)
            except RuntimeError:
                if self._stopped.is_set():
                    return  # the connection was closed under the request
                raise

    def look(self, lease: Mapping[str, Any], now: float) -> None:
        """The Lease as it is at a monotonic time. If it is the one that was seen last, however long ago, it
        has not changed in between."""
        spec = lease.get("spec") or {}
        stamp = spec.get("holderIdentity"), spec.get("renewTime")
        if stamp[1] is None:
            return  # no operator has ever renewed it
        if stamp != self._seen:
            self._seen, self._since = stamp, now
            if self._silent:
                self._silent = False
                self._report(None)
        elif now - self._since >= SILENT_SECONDS and not self._silent:
            self._silent = True
            self._report(time.strftime("%H:%M:%S", time.localtime(time.time() - (now - self._since))))
