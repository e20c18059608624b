"""Wrong tickets, counted per peer: after many of them the API server is not asked on behalf of that peer.

What a peer may see is decided by what is in memory, at no cost, so that others who come from the same address
(everybody, behind the API server's proxy) are served as before. Only a ticket that opens nothing known is
told to come again later, the same whether its object exists or not.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BURST: Final = 50
"""Wrong tickets in a row before a peer has to wait."""
PER_SECOND: Final = 1.0
"""How fast they are forgiven."""
_PEERS: Final = 4096


class Guesses:
    """The wrong tickets of each peer, as far as they are not forgiven."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._peers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wrong(self, peer: str) -> None:
        """One more. The longest quiet peer is forgotten where there are too many."""
        self._peers[peer] = (min(self._count(peer) + 1, BURST + 1.0), self._monotonic())
        self._peers.move_to_end(peer)
        while len(self._peers) > _PEERS:
            self._peers.popitem(last=False)

    def too_many(self, peer: str) -> bool:
        """Whether this peer has to wait."""
        return self._count(peer) >= BURST

    def _count(self, peer: str) -> float:
        count, then = self._peers.get(peer, (0.0, 0.0))
        return max(0.0, count - (self._monotonic() - then) * PER_SECOND)
