"""Ends orphans, and removes the keys and groups that are left of pools that are gone."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward_operator.nodes.accounts import PROVIDER_SECONDS
from skyward_operator.providers.contract import TAG_INSTALLATION, TAG_POOL
from skyward_operator.providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.context import Context
    from skyward_operator.nodes.book import Account
    from skyward_operator.providers.contract import Provider
    from skyward_operator.sweep.observation import Orphan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broom:
    """The hands of the sweep at the providers. What fails is done in the next round."""

    context: Context

    async def end(self, account: Account, provider: Provider, orphan: Orphan) -> None:
        """Ask for an orphan's end."""
        self.context.leadership.check()
        machine = orphan.machine
        try:
            async with asyncio.timeout(PROVIDER_SECONDS):
                await provider.terminate(machine.id, machine.token)
        except (ProviderError, TimeoutError) as error:
            logger.warning("machine %s at %s was not ended: %s; it is tried again",
                           machine.id, account, error or "time-out")  # fmt: skip

    async def clear_pool(self, account: Account, provider: Provider, pool_uid: str) -> None:
        """Remove what orphans of a pool that is gone leave behind."""
        await self._clean_up(account, provider, {TAG_POOL: pool_uid})

    async def clear(self, account: Account, provider: Provider) -> bool:
        """Remove all keys and groups from an account that nothing uses. True when none is left."""
        installation = self.context.leadership.installation
        return await self._clean_up(account, provider, {TAG_INSTALLATION: installation})

    async def _clean_up(self, account: Account, provider: Provider, tags: Mapping[str, str]) -> bool:
        if not provider.capabilities.side_resources:
            return True
        self.context.leadership.check()
        try:
            async with asyncio.timeout(PROVIDER_SECONDS):
                return await provider.clean_up(tags)
        except (ProviderError, TimeoutError) as error:
            logger.warning("keys and groups at %s are left: %s; it is tried again",
                           account, error or "time-out")  # fmt: skip
            return False
