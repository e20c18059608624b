"""Machines as their providers see them: one by one while few are asked for, by one listing while many are.

Each machine that boots is polled. Hundreds that boot together would be hundreds of requests a second at one
account, which clouds refuse; a listing tells of all of them. It proves no absence, and it need not have host
keys: a machine that is not in it, or that has come to run, is asked for by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from skyward_operator.nodes.observation import ABSENT
from skyward_operator.providers.contract import TAG_INSTALLATION
from skyward_operator.providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.lease import Leadership
    from skyward_operator.nodes.observation import Absent
    from skyward_operator.providers.contract import Machine, Provider

FEW: Final = 4
"""So many machines of an account are asked for one by one: a listing may take several pages."""
RECENT_SECONDS: Final = 5.0
"""What was asked for so lately is being polled; the longest pause between two polls."""
FRESH_SECONDS: Final = 1.0
"""How long before a question a listing may have been begun that answers it, at most;"""
FRESH_SHARE: Final = 0.1
"""of the time for which the machine has been polled (the news of a quick one is quick);"""
FRESH_EACH: Final = 0.02
"""and for each machine that is polled, at least: fifty of them are listed once a second."""


@dataclass(slots=True)
class _Polled:
    """When a machine was asked for."""

    first: float
    last: float


@dataclass(slots=True)
class _Account:
    provider: Provider
    polled: dict[str, _Polled] = field(default_factory=dict)
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

    async def describe(
        self, provider: Provider, machine_id: str, *, to_connect: bool
    ) -> Machine | Absent | None:
        """As `Provider.describe` says it, or how a listing had it less than a second ago: then, `to_connect`,
        only as long as it has no address. None: there is no news yet. Raises ProviderError."""
        account = self._accounts.setdefault(id(provider), _Account(provider))
        polled = self._poll(account, machine_id)
        if len(account.polled) > FEW:
            machine = (await self._listing(account, polled)).get(machine_id)
            if machine is not None and not (to_connect and machine.address is not None):
                return machine
            if machine is None and account.listed < polled.first:
                return None  # it is newer than the listing; the next one may have it
        return await provider.describe(machine_id) or ABSENT

    def _poll(self, account: _Account, machine_id: str) -> _Polled:
        now = self._clock.monotonic()
        polled = account.polled.setdefault(machine_id, _Polled(now, now))
        polled.last = now
        if len(account.polled) > FEW:
            recent = {name: each for name, each in account.polled.items() if now - each.last < RECENT_SECONDS}
            account.polled = recent
        return polled

    async def _listing(self, account: _Account, polled: _Polled) -> Mapping[str, Machine]:
        asked = polled.last
        fresh = max(FRESH_SHARE * (asked - polled.first), FRESH_EACH * len(account.polled))
        async with account.listing:
            # One that was begun while this waited is new enough, however long it took.
            if asked - account.listed >= min(fresh, FRESH_SECONDS):
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
