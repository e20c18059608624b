"""A program's sign of life on its pool: without it, the operator deletes the pool when the lease is over.

A thread renews one annotation. What cannot be written is tried again, sooner than usual: a laptop that was
closed for a moment goes on, and a control plane that is away for a while ends nothing.
"""

import logging
import threading
from datetime import UTC, datetime

from skyward.cluster.api import Api
from skyward.contract.names import ANNOTATION_RENEWED, POOL
from skyward.errors import SkywardError

logger = logging.getLogger(__name__)

BEATS = 5
"""So many signs in one lease: some may be lost."""
AGAIN = 4
"""After one that was lost the next one comes so much sooner."""


def sign() -> str:
    """Another one each time. The operator only sees that it changes: nobody compares clocks."""
    return datetime.now(UTC).isoformat()


class Heartbeat:
    """The signs for one pool, from its creation until it is deleted or the program ends."""

    def __init__(self, api: Api, namespace: str, pool: str, lease_seconds: float) -> None:
        self._api = api
        self._place = (namespace, pool)
        self._interval = lease_seconds / BEATS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="skyward-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the pool was made with a first sign."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for a request under way."""
        self._stopped.set()

    def _run(self) -> None:
        wait = self._interval
        while not self._stopped.wait(wait):
            body = {"metadata": {"annotations": {ANNOTATION_RENEWED: sign()}}}
            try:
                if self._api.patch(POOL, *self._place, body) is None:
                    return
                wait = self._interval
            except SkywardError as error:
                logger.debug("pool %s was not told that this program is there: %s", self._place[1], error)
                wait = self._interval / AGAIN
            except RuntimeError:
                if self._stopped.is_set():
                    return  # the connection was closed under the request
                raise
