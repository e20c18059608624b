"""The outcomes of one Task as its calls end, each once, whatever breaks in between.

They are pulled by whoever iterates, from the gateway: a caller who is slow holds up its own connection and
nothing else. Where the Task ended with its outcomes in its status, those are taken from there.
"""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from skyward.cluster.cutter import Cutter
from skyward.cluster.route import GatewayRefused
from skyward.errors import GatewayError
from skyward.wire.delivery import Arrivals, End
from skyward.wire.errors import PackageError
from skyward.wire.outcomes import Outcome

PATIENCE_SECONDS = 120.0
"""How long a gateway that does not answer is waited for."""
_PAUSE_SECONDS = 0.25

type Task = Mapping[str, Any]


class Delivery:
    """Iterate over it once. `follow` opens a connection at a byte.

    `ended(seconds)` waits so long for the end of the Task: it returns the Task as it ended, or None if it
    goes on, and raises for one that is gone.
    """

    def __init__(
        self,
        name: str,
        follow: Callable[[int, Cutter], Iterator[bytes]],
        ended: Callable[[float], Task | None],
    ) -> None:
        self._name = name
        self._follow = follow
        self._ended = ended
        self._arrivals = Arrivals()
        self._cutter = Cutter()
        self._seen = bytearray()
        self._is_answered = False
        """The gateway has sent something over the connection that there is, or was last."""

    def cut(self) -> None:
        """Wake who reads, from any thread: the Task is gone."""
        self._cutter.cut()

    def __iter__(self) -> Iterator[Outcome]:
        """The outcomes in the order in which calls ended. Raises GatewayError, and what `ended` raises."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._arrivals.is_whole:
            self._is_answered = False
            try:
                yield from self._news()
            except PackageError as error:
                raise GatewayError(
                    f"the results of task {self._name} are damaged: {error}",
                    task=self._name,
                    remedy="send the call again",
                ) from error
            except GatewayError as error:
                self._ended(_PAUSE_SECONDS)
                if self._is_answered:  # until now, however long that was, and even if no call had ended
                    deadline = time.monotonic() + PATIENCE_SECONDS
                if isinstance(error, GatewayRefused) or time.monotonic() > deadline:
                    raise

    def _news(self) -> Iterator[Outcome]:
        task = self._ended(0.0)
        package = ((task or {}).get("status", {}).get("result") or {}).get("package")
        if package is not None:
            records = base64.b64decode(package)
            yield from self._once(self._arrivals.take(memoryview(records)[self._arrivals.offset :]))
            self._arrivals.close(End(len(records)))
            return
        self._arrivals.reconnected()
        with closing(self._follow(self._arrivals.offset, self._cutter)) as pieces:  # type: ignore[type-var]
            for piece in pieces:
                self._is_answered = True
                yield from self._once(self._arrivals.feed(piece))
                if self._arrivals.is_whole:
                    return
        raise GatewayError("the connection ended before the task did", task=self._name)

    def _once(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """Leave out a call that stands there already: it was tried again after a restart."""
        for outcome in outcomes:
            byte, bit = divmod(outcome.index, 8)
            if byte >= len(self._seen):
                self._seen.extend(bytes(byte + 1 - len(self._seen)))
            if not self._seen[byte] >> bit & 1:
                self._seen[byte] |= 1 << bit
                yield outcome
