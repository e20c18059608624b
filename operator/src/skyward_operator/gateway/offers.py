"""What a pool could buy now, for those who may read the pool.

Credentials lie in Secrets that only the operator reads, so only it can ask. The pool comes first: whoever may
create one in a namespace may have its accounts asked, nobody else; one with `suspend: true` buys nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from skyward.contract.names import POOL
from skyward.contract.pool import ComputePool

if TYPE_CHECKING:
    from skyward_operator.gateway.access import Access
    from skyward_operator.placement.placement import Placement

ANSWER_SECONDS: Final = 20.0
"""So long an account may take; what is known by then is sent."""
LOOK_SECONDS: Final = 0.1


class OfferRoutes:
    """The handler that sends offers."""

    def __init__(self, access: Access, placement: Placement) -> None:
        self._access = access
        self._placement = placement

    def routes(self) -> list[web.RouteDef]:
        """Where it is."""
        return [web.get("/v1/namespaces/{namespace}/pools/{name}/offers", self.get_pool)]

    async def get_pool(self, request: web.Request) -> web.StreamResponse:
        """The offers for a pool's candidates, in the order in which they would be asked for."""
        pool = ComputePool.read(await self._access.readable(POOL, request))
        board = await self._placement.board(pool)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while not board.is_complete:
                    await asyncio.sleep(LOOK_SECONDS)
                    board = await self._placement.board(pool)
        except TimeoutError:
            pass  # those that have not answered say so
        return web.json_response(board.document())
