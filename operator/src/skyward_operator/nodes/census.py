"""Machines as their providers see them: one by one while few are asked for, by one listing while many are.

Each machine that boots is polled. Hundreds that boot together would be hundreds of requests a second at one
account, which clouds refuse; a listing tells of all of them. It proves no absence, and it need not have host
keys: a machine that is not in it, or that has come to run, is asked for by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from skyward_operator.providers.contract import TAG_INSTALLATION
from skyward_operator.providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.lease import Leadership
    from skyward_operator.providers.contract import Machine, Provider

FEW: Final = 4
"""So many machines of an account are asked for one by one: a listing may take several pages."""
RECENT_SECONDS: Final = 5.0
"""What was asked for so lately is being polled; the longest pause between two polls."""
FRESH_SECONDS: Final = 1.0
"""How long before a question a listing may have been begun that answers it."""


@dataclass(slots=True)
class _Account:
    provider: Provider
    asked: dict[str, float] = field(default_factory=dict)
    """When each machine was asked for last."""
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)
    listed: float = float("-inf")
    """When the last listing was begun."""
    machines: Mapping[str, Machine] = field(default_factory=dict)
    error: ProviderError | None = None


class Census:
    """One look at an account answers all who ask at about the same time; belongs to one event loop."""

    def __init__(self, leadership: Leadership, clock: Clock) -> None:
        self._leadership = leadership
        self._clock = clock
        self._accounts: dict[int, _Account] = {}
        """By identity of the adapter, which is kept alive by it: an adapter need not be hashable."""

    async def describe(self, provider: Provider, machine_id: str, *, to_connect: bool) -> Machine | None:
        """As `Provider.describe` says it, or how a listing had it less than a second ago: then, `to_connect`,
        only as long as it has no address. Raises ProviderError."""
        account = self._accounts.setdefault(id(provider), _Account(provider))
        if self._asked(account, machine_id) > FEW:
            machine = (await self._listing(account)).get(machine_id)
            if machine is not None and not (to_connect and machine.address is not None):
                return machine
        return await provider.describe(machine_id)

    def _asked(self, account: _Account, machine_id: str) -> int:
        """How many machines of an account are being polled, with this one."""
        now = self._clock.monotonic()
        account.asked[machine_id] = now
        if len(account.asked) > FEW:
            account.asked = {each: at for each, at in account.asked.items() if now - at < RECENT_SECONDS}
        return len(account.asked)

    async def _listing(self, account: _Account) -> Mapping[str, Machine]:
        asked = (
            self._clock.monotonic()
        )  # one that is begun while this waits is new enough, however long it takes
        async with account.listing:
            if asked - account.listed >= FRESH_SECONDS:
                began = self._clock.monotonic()
                await self._list(account)
                account.listed = began
            if account.error is not None:
                raise account.error
            return account.machines

    async def _list(self, account: _Account) -> None:
        """An account that refuses or fails is not asked again by everybody who waits."""
        account.machines, account.error = {}, None
        try:
            found = await account.provider.list({TAG_INSTALLATION: self._leadership.installation})
        except ProviderError as error:
            account.error = error
        else:
            account.machines = {machine.id: machine for machine in found.machines}
