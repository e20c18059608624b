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
_HELD_SECONDS = 30.0
"""A connection that held so long was well, even if no call ended meanwhile."""
_SAID_AFTER_SECONDS = 10.0

type Task = Mapping[str, Any]


class Delivery:
    """Iterate over it once. `follow` opens a connection at a byte.

    `ended(seconds)` waits so long for the end of the Task: it returns the Task as it ended, or None if it
    goes on, and raises for one that is gone. `trouble` is told why outcomes do not come, if that lasts.
    """

    def __init__(
        self,
        name: str,
        follow: Callable[[int, Cutter], Iterator[bytes]],
        ended: Callable[[float], Task | None],
        trouble: Callable[[str], None] = lambda problem: None,
    ) -> None:
        self._name = name
        self._follow = follow
        self._ended = ended
        self._trouble = trouble
        self._arrivals = Arrivals()
        self._cutter = Cutter()
        self._seen = bytearray()
        self._is_answered = False
        """The gateway has sent something over the connection that there is, or was last."""
        self._broken = 0
        """Connections in a row over which nothing came through, though the gateway answered."""

    def cut(self) -> None:
        """Wake who reads, from any thread: the Task is gone."""
        self._cutter.cut()

    def __iter__(self) -> Iterator[Outcome]:
        """The outcomes in the order in which calls ended. Raises GatewayError, and what `ended` raises."""
        well, is_said = time.monotonic(), False
        while not self._arrivals.is_whole:
            self._is_answered = False
            begun, offset = time.monotonic(), self._arrivals.offset
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
                now = time.monotonic()
                moved = self._arrivals.offset > offset
                if moved or (self._is_answered and now - begun >= _HELD_SECONDS):
                    well, self._broken, is_said = now, 0, False
                elif self._is_answered:
                    self._broken += 1
                if isinstance(error, GatewayRefused) or now - well > PATIENCE_SECONDS:
                    raise self._given_up(error) from error.__cause__
                if now - well > _SAID_AFTER_SECONDS and not is_said:
                    is_said = True
                    self._trouble(error.message)

    def _given_up(self, error: GatewayError) -> GatewayError:
        if not self._broken:
            return error
        return GatewayError(
            f"the results of task {self._name} do not come: {self._broken} connections in a row broke before "
            f"anything of them was through; the last: {error.message}",
            task=self._name,
            remedy="see what ends connections on the way to the operator (a proxy, an ingress, a firewall); "
            f"the results are kept while the task exists: sky.task({self._name!r}).results()",
        )

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
