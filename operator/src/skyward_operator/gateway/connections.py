"""Who may be connected: everybody who has shown a ticket that opens something, and few who have not.

A connection is unproven until a request on it was let in. There is room for few of these, and where there is
none the one that has been unproven longest makes place: a client with a ticket shows it at once and is past
that, while others, however many they are, only push each other out. So nobody has to be refused by address,
behind which everybody may be (the API server's proxy is one address for all).
"""

from __future__ import annotations

import logging
import resource
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from skyward_operator.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many, and for how many seconds."""

    connections: int = 4096
    """In all; fewer where the process may not open that many files."""
    unproven: int = 512
    unproven_per_address: int = 256
    requests_per_ticket: int = 512
    """At a time: a stream or a session is one request for as long as it lasts."""
    head_seconds: float = 10.0
    """From the first byte of a request, or from the beginning of a connection, to the end of its header."""
    idle_seconds: float = 75.0
    """Between two requests."""
    stall_seconds: float = 60.0
    """How long a client may take nothing of what is sent to it."""

    @property
    def most(self) -> int:
        """Connections that this process can have."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return self.connections if files < 0 else max(16, min(self.connections, files // 2))


class Connection(Protocol):
    """What is known of one connection here."""

    address: str

    @property
    def is_idle(self) -> bool:
        """No request is under way."""

    def end(self) -> None:
        """Break it; `left` is told later."""


class Connections:
    """All connections of the gateway."""

    def __init__(self, bounds: Bounds, metrics: Metrics) -> None:
        self.bounds = bounds
        self._metrics = metrics
        self._most = bounds.most
        self._unproven: OrderedDict[Connection, None] = OrderedDict()
        self._proven: OrderedDict[Connection, None] = OrderedDict()
        self._addresses: Counter[str] = Counter()
        """Unproven ones by address."""
        self._tickets: Counter[str] = Counter()
        """Requests under way by the hash of their ticket."""

    def __len__(self) -> int:
        return len(self._unproven) + len(self._proven)

    def came(self, connection: Connection) -> bool:
        """A connection begins; False when there is no place that could be made for it."""
        if self._addresses[connection.address] >= self.bounds.unproven_per_address:
            self._push_out(next(each for each in self._unproven if each.address == connection.address))
        elif len(self._unproven) >= self.bounds.unproven:
            self._push_out(next(iter(self._unproven)))
        if len(self) >= self._most and not self._make_place():
            self.ended_by("full")
            return False
        self._unproven[connection] = None
        self._addresses[connection.address] += 1
        self._show()
        return True

    def proved(self, connection: Connection) -> None:
        """A request on it was let in."""
        if connection in self._unproven:
            self._forget_unproven(connection)
            self._proven[connection] = None
        elif connection in self._proven:
            self._proven.move_to_end(connection)

    def left(self, connection: Connection) -> None:
        """It has ended; again is nothing."""
        if connection in self._unproven:
            self._forget_unproven(connection)
        self._proven.pop(connection, None)
        self._show()

    def begin(self, ticket: str) -> bool:
        """A request begins; False where its ticket has as many under way as it may."""
        if self._tickets[ticket] >= self.bounds.requests_per_ticket:
            self.ended_by("ticket")
            return False
        self._tickets[ticket] += 1
        return True

    def finish(self, ticket: str) -> None:
        """It has ended."""
        self._tickets[ticket] -= 1
        if not self._tickets[ticket]:
            del self._tickets[ticket]

    def ended_by(self, cause: str) -> None:
        """Count what was refused or broken off."""
        self._metrics.gateway_refused.labels(cause).inc()

    def _make_place(self) -> bool:
        """Push out one that is not in use: unproven first, else whose ticket was shown longest ago."""
        idle = next((each for each in self._proven if each.is_idle), None)
        victim = next(iter(self._unproven), idle)
        if victim is None:
            logger.error("the gateway has %d connections, all in use: none can be added", len(self))
            return False
        self._push_out(victim)
        return True

    def _push_out(self, connection: Connection) -> None:
        self.left(connection)
        self.ended_by("pushed-out")
        connection.end()

    def _forget_unproven(self, connection: Connection) -> None:
        del self._unproven[connection]
        self._addresses[connection.address] -= 1
        if not self._addresses[connection.address]:
            del self._addresses[connection.address]

    def _show(self) -> None:
        self._metrics.gateway_connections.set(len(self))
