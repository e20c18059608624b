"""The accounts where machines were ever ordered, so that they can be looked through later.

An account is written down before the first order goes to it, and stays until it was seen to be empty: an
order whose machine shows late must be found although its node, its pool and its operator are gone.
The list is a ConfigMap beside the operator's Lease; it names Secrets and holds none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from skyward.contract.names import ACCOUNTS_SUFFIX, ANNOTATION_END_ORPHANS
from skyward_operator.kube.errors import AlreadyExists, NotFound
from skyward_operator.kube.kinds import CONFIG_MAP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api
    from skyward_operator.settings import Settings


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """A provider with the credentials of a Secret, or with the operator's own identity."""

    provider: str
    namespace: str = ""
    secret: str = ""

    @classmethod
    def of(cls, namespace: str, candidate: Candidate) -> Self:
        """The account that a candidate of a pool in this namespace buys from."""
        reference = candidate.credentials_ref
        return cls(candidate.provider, namespace, reference.name) if reference else cls(candidate.provider)

    def __str__(self) -> str:
        return f"{self.provider} (Secret {self.namespace}/{self.secret})" if self.secret else self.provider


class Book:
    """The list, in memory and in its ConfigMap; only the operator that leads writes it."""

    def __init__(self, api: Api, settings: Settings, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._place = (settings.lease_namespace, f"{settings.lease_name}{ACCOUNTS_SUFFIX}")
        self._used: dict[Account, float] | None = None
        self._allowance = 0
        self._lock = asyncio.Lock()

    async def accounts(self) -> Sequence[Account]:
        """All of them, as the ConfigMap has them now: a person may have struck one out."""
        async with self._lock:
            return sorted(await self._read(anew=True))

    @property
    def allowance(self) -> int:
        """So many machines without a node a person allows to be ended at once, as `accounts` last read it."""
        return self._allowance

    async def spend_allowance(self) -> None:
        """What a person allowed has been done; it holds once."""
        namespace, name = self._place
        nothing: dict[str, Any] = {"metadata": {"annotations": {ANNOTATION_END_ORPHANS: None}}}
        await self._api.patch(CONFIG_MAP, namespace, name, nothing)
        self._allowance = 0

    async def note(self, accounts: Iterable[Account]) -> None:
        """Have these written down for good; an order to one may follow once this returns."""
        async with self._lock:
            known, now = await self._read(), self._clock.monotonic()
            wanted = set(accounts)
            known.update(dict.fromkeys(wanted & known.keys(), now))
            if fresh := wanted - known.keys():
                await self._write({key(each): json.dumps(asdict(each)) for each in sorted(fresh)})
                known.update(dict.fromkeys(fresh, now))

    async def forget(self, account: Account, unused_since: float) -> bool:
        """Strike out an account that is empty; False if it was used after that monotonic time."""
        async with self._lock:
            known = await self._read()
            if known.get(account, unused_since) >= unused_since:
                return False
            await self._write({key(account): None})
            del known[account]
            return True

    async def _read(self, *, anew: bool = False) -> dict[Account, float]:
        if self._used is None or anew:
            try:
                found = await self._api.get(CONFIG_MAP, *self._place)
            except NotFound:
                found = {}
            text = (found.get("metadata", {}).get("annotations") or {}).get(ANNOTATION_END_ORPHANS, "")
            self._allowance = int(text) if text.isascii() and text.isdecimal() else 0
            read = (Account(**json.loads(text)) for text in (found.get("data") or {}).values())
            # One that is not known from this process may have been used a moment ago by the one before.
            before, now = self._used or {}, self._clock.monotonic()
            self._used = {each: before.get(each, now) for each in read}
        return self._used

    async def _write(self, data: dict[str, str | None]) -> None:
        """Merge this into the ConfigMap; None removes."""
        namespace, name = self._place
        try:
            await self._api.patch(CONFIG_MAP, namespace, name, {"data": data})
        except NotFound:
            kept = {word: text for word, text in data.items() if text is not None}
            metadata = {"name": name, "namespace": namespace}
            try:
                await self._api.create(CONFIG_MAP, {"metadata": metadata, "data": kept})
            except AlreadyExists:
                await self._api.patch(CONFIG_MAP, namespace, name, {"data": data})


def key(account: Account) -> str:
    """An account's entry; names of Secrets may be longer than a key."""
    identity = "/".join((account.provider, account.namespace, account.secret))
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
