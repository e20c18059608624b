"""The cloud as a service that listens: `async with Service(...)`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from aiohttp import web

from simcloud.accounts import Account, Accounts
from simcloud.admin import Admin
from simcloud.api import BODY_BYTES, Api
from simcloud.cloud import Cloud
from simcloud.conductor import Conductor
from simcloud.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from simcloud.scenario import Scenario
    from simcloud.vms import Vms

LOOPBACK = "127.0.0.1"


class Service:
    """One cloud with its folder. Machines stay when it stops, and are found again by the next."""

    def __init__(
        self,
        folder: Path,
        vms: Vms,
        accounts: Iterable[Account],
        admin_key: str,
        *,
        scenario: Scenario | None = None,
        port: int = 0,
    ) -> None:
        self.cloud = Cloud(Ledger(folder / "ledger.jsonl"), vms)
        if scenario is not None:
            self.cloud.follow(scenario)
        self._port = port
        app = web.Application(client_max_size=BODY_BYTES)
        app.add_routes(Api(self.cloud, Accounts(accounts)).routes())
        app.add_routes(Admin(self.cloud, admin_key).routes())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._conductor: asyncio.Task[None] | None = None
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self._port).start()
        self.endpoint = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}"
        self.cloud.metadata_url = f"{self.endpoint}/metadata"
        self._conductor = asyncio.create_task(Conductor(self.cloud).run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Answer nobody any more; machines and books stay. Twice is fine."""
        if self._conductor is not None:
            self._conductor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._conductor
        await self._runner.cleanup()
        self.cloud.ledger.close()
