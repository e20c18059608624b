"""Side resources: what an adapter made beside the machines, such as SSH keys and security groups.

They belong to a pool. Each of its nodes offers to remove them when it goes, and its provider refuses while
another machine uses them: so the last one takes them along, whatever happened to the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skyward_operator.nodes.accounts import PROVIDER_SECONDS, NoAccount, refusal
from skyward_operator.providers.contract import TAG_POOL
from skyward_operator.providers.errors import Rejected, Unauthorized

if TYPE_CHECKING:
    from skyward.contract.node import ComputeNode
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.nodes.observation import Refusal
    from skyward_operator.providers.contract import Provider


@dataclass(frozen=True, slots=True)
class SideResources:
    """Those of pools; the tag with a pool's UID is enough, there is no second pool with it anywhere."""

    accounts: Accounts

    async def clean_up(self, node: ComputeNode) -> list[Refusal]:
        """Remove what was made for this node's pool and no machine uses any more.

        A provider that is unwell is asked again (the error is raised). What it refuses for good is left
        behind and returned: keys and groups cost nothing, and an object that can never go does.
        """
        tags = {TAG_POOL: node.spec.pool_ref.uid}
        left: list[Refusal] = []
        for provider in await self._providers(node):
            try:
                async with asyncio.timeout(PROVIDER_SECONDS):
                    await provider.clean_up(tags)
            except (Rejected, Unauthorized) as error:
                text = (
                    f"keys and groups of pool {node.spec.pool_ref.name} are left at {provider.name}: {error}"
                )
                left.append(replace(refusal(error), message=text))
        return left

    async def _providers(self, node: ComputeNode) -> list[Provider]:
        """Where something may have been made: at each candidate's account that can still be got at."""
        found: dict[int, Provider] = {}
        for candidate in node.spec.candidates:
            try:
                provider = await self.accounts.provider(node.metadata.namespace or "", candidate)
            except (NoAccount, Rejected, Unauthorized):
                continue
            if provider.capabilities.side_resources:
                found[id(provider)] = provider
        return list(found.values())
