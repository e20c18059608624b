"""One look: what the accounts list, and after that, anew and uncached, which nodes and pools there are.

In this order: a machine that was listed had its node before, so its node must be in what is read after it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward.contract.names import NODE, POOL
from skyward.contract.node import ComputeNode
from skyward.contract.pool import ComputePool
from skyward_operator.nodes.accounts import PROVIDER_SECONDS, NoAccount, chosen
from skyward_operator.nodes.book import Account
from skyward_operator.providers.contract import TAG_INSTALLATION, MachineState
from skyward_operator.providers.errors import ProviderError
from skyward_operator.sweep.observation import Owner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward.contract.names import Kind
    from skyward_operator.context import Context
    from skyward_operator.kube.store import Object
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.providers.contract import Machine, Provider

AT_ONCE = 4
"""So many accounts are asked beside each other."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What an account said. Without a provider it could not be asked, and `trouble` says why."""

    account: Account
    provider: Provider | None
    machines: Sequence[Machine] = ()
    complete: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Owners:
    """The nodes and pools there are."""

    nodes: Mapping[str, Owner]
    pools: frozenset[str]
    """UIDs."""
    wanted: frozenset[Account]
    """Where pools or nodes could still buy."""
    used: frozenset[Account]
    """Where nodes have bought."""


async def list_machines(accounts: Accounts, asked: Sequence[Account], installation: str) -> Sequence[Listed]:
    """What each of these accounts has with the installation's tag; one that fails says so."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(account: Account) -> Listed:
        async with slots:
            try:
                async with asyncio.timeout(PROVIDER_SECONDS):
                    provider = await accounts.of(account)
                    listing = await provider.list({TAG_INSTALLATION: installation})
            except (NoAccount, ProviderError, TimeoutError) as error:
                return Listed(account, None, trouble=str(error) or "time-out")
            left = [each for each in listing.machines if each.state is not MachineState.GONE]
            trouble = "" if listing.complete else "its listing may lack machines"
            return Listed(account, provider, left, listing.complete, trouble)

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(one(account)) for account in asked]
    return [task.result() for task in asking]


async def list_owners(context: Context) -> Owners:
    """The nodes and pools, read from the API server itself. Raises ApiError: then nothing is known."""
    nodes = [ComputeNode.read(obj) for obj in await _all(context, NODE)]
    pools = [ComputePool.read(obj) for obj in await _all(context, POOL)]
    buyers: list[ComputeNode | ComputePool] = [*nodes, *pools]
    wanted = {
        Account.of(each.metadata.namespace or "", candidate)
        for each in buyers
        for candidate in each.spec.candidates
    }
    used = {
        Account.of(node.metadata.namespace or "", chosen(node))
        for node in nodes
        if node.status.launch is not None
    }
    return Owners(
        {node.metadata.uid or "": _owner(node) for node in nodes},
        frozenset(pool.metadata.uid or "" for pool in pools),
        frozenset(wanted),
        frozenset(used),
    )


async def _all(context: Context, kind: Kind) -> list[Object]:
    places: tuple[str | None, ...] = context.settings.namespaces or (None,)
    return [obj for place in places for obj in (await context.api.list(kind, place))[0]]


def _owner(node: ComputeNode) -> Owner:
    launch, billing = node.status.launch, node.status.billing
    return Owner(
        node.metadata.uid or "",
        launch.token if launch else None,
        node.status.provider_id,
        ended=billing is not None and billing.end_time is not None,
    )
