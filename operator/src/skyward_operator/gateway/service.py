"""Serves the gateway for as long as the operator acts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from skyward_operator.gateway.connections import Bounds, Connections
from skyward_operator.gateway.guard import Guards
from skyward_operator.gateway.server import Server

if TYPE_CHECKING:
    from skyward_operator.context import Context
    from skyward_operator.nodes.reconcile import Nodes
    from skyward_operator.sweep.loop import Sweep
    from skyward_operator.tasks import Tasks

_END_SECONDS: Final = 1.0
_READ_BYTES: Final = 1 << 20
"""What a body that comes faster than it is stored takes of the memory, twice."""


class Gateway:
    """The gateway of one operator. `run` serves it; `url` says where."""

    def __init__(self, context: Context, server: Server, bounds: Bounds | None = None) -> None:
        self._listen = context.settings.gateway_listen
        self._server = server
        self._guards = Guards(Connections(bounds or Bounds(), context.metrics))
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def url(self) -> str:
        """Where it listens, once it does."""
        return await asyncio.shield(self._url)

    async def run(self) -> None:
        """Serve until cancelled."""
        app = self._server.app()
        app.middlewares.insert(0, self._guards.middleware)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_END_SECONDS,
            read_bufsize=_READ_BYTES,
            auto_decompress=False,  # what is encoded is refused, and must not cost anything before
        )
        await runner.setup()
        assert runner.server is not None  # noqa: S101
        try:
            listener = await asyncio.get_running_loop().create_server(
                self._guards.before(runner.server), self._listen.host, self._port(), backlog=1024
            )
            if not self._url.done():
                host, port = listener.sockets[0].getsockname()[:2]
                self._url.set_result(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                listener.close()
        finally:
            await runner.cleanup()

    def _port(self) -> int:
        """The port to listen on: the one that was published, if it had to start again."""
        if self._url.done():
            return int(self._url.result().rpartition(":")[2])
        return self._listen.port


def build(context: Context, tasks: Tasks, nodes: Nodes | None = None, sweep: Sweep | None = None) -> Gateway:
    """The gateway of one operator. Nodes leave their logs on disk, where it finds them."""
    placement = nodes.placement if nodes is not None else None
    return Gateway(context, Server(context, tasks.gateway_backend, placement=placement, sweep=sweep))
