"""Offers that were refused a while ago: until when nobody asks for them again, shared by all nodes.

A provider that has none of something now has none for the next node either, and is not asked again for some
minutes; if it then refuses once more, for twice as long. Refusals of one burst count once. When the time is
over a single node tries, and the others wait for what comes of it; a success forgets everything.

How far a refusal reaches follows from what it says: no capacity is about one offer, a quota about all offers
with the same accelerator in that region and market, wrong credentials about the whole account. Lost with the
process, and learnt again: that costs requests, never money.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import NodeReason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from skyward_operator.nodes.book import Account
    from skyward_operator.nodes.observation import Refusal
    from skyward_operator.providers.contract import Offer

FIRST_AND_LONGEST: Final[dict[NodeReason, tuple[float, float]]] = {
    # Karpenter's AWS provider leaves an offer without capacity alone for 3 min, Azure's a quota for 15 to 30.
    NodeReason.INSUFFICIENT_CAPACITY: (180.0, 1800.0),
    NodeReason.INTERRUPTED: (180.0, 1800.0),
    NodeReason.QUOTA_EXCEEDED: (300.0, 1800.0),
    NodeReason.PRICE_CAP_EXCEEDED: (60.0, 300.0),
    # What a person mends is looked at again soon, and the same interval each time.
    NodeReason.CREDENTIALS_NOT_FOUND: (15.0, 15.0),
    NodeReason.INVALID_CREDENTIALS: (15.0, 15.0),
    NodeReason.PROVIDER_UNAVAILABLE: (5.0, 60.0),
    NodeReason.RATE_LIMITED: (5.0, 60.0),
}
"""Seconds that a refusal holds at first, and at most when it comes again and again."""
OTHERWISE: Final = 60.0, 300.0
REMEMBERED_SECONDS: Final = 1800.0
"""After so long without a refusal the next one is a first one again."""
PROBE_SECONDS: Final = 90.0
"""A node that tries first has so long, then another one may: it may have been deleted meanwhile."""
OF_ACCOUNTS: Final = frozenset(
    {
        NodeReason.CREDENTIALS_NOT_FOUND,
        NodeReason.INVALID_CREDENTIALS,
        NodeReason.PROVIDER_UNAVAILABLE,
        NodeReason.RATE_LIMITED,
    }
)

type Scope = tuple[Account, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Block:
    """Why an offer is left alone, and until when (monotonic time)."""

    refusal: Refusal
    until: float


@dataclass(frozen=True, slots=True)
class _Entry:
    refusal: Refusal
    until: float
    strikes: int = 1
    cap: Decimal | None = None
    """A price that was too high was so for this cap and lower ones."""
    probing: str = ""
    probe_until: float = 0.0


class Unavailable:
    """What was refused. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._entries: dict[Scope, _Entry] = {}

    def refuse(
        self,
        account: Account,
        offer: Offer | None,
        refusal: Refusal,
        now: float,
        *,
        cap: Decimal | None = None,
        seconds: float | None = None,
    ) -> float:
        """Remember a refusal, and return until when; `seconds` is how long the provider asked for."""
        scope = _scope(account, offer, refusal.reason)
        before = self._entries.get(scope)
        strikes = 1
        if before is not None and now < before.until + REMEMBERED_SECONDS:
            strikes = before.strikes + (now >= before.until)
        first, longest = FIRST_AND_LONGEST.get(refusal.reason, OTHERWISE)
        until = now + (seconds if seconds is not None else min(longest, first * 2.0 ** min(strikes - 1, 16)))
        if before is not None:
            until = max(until, before.until)  # a late answer of the same burst makes it no shorter
        self._entries[scope] = _Entry(refusal, until, strikes, cap)
        self._drop_old(now)
        return until

    def succeeded(self, account: Account, offer: Offer | None = None) -> bool:
        """The account answered; with an offer, a machine of it was made. True if something was forgotten."""
        forgotten = [self._entries.pop(scope, None) for scope in _scopes(account, offer)]
        return any(forgotten)

    def freed(self, account: Account) -> bool:
        """A machine at this account is gone, and its share of every quota. True if that was waited for."""
        reason = NodeReason.QUOTA_EXCEEDED
        quotas = [scope for scope, entry in self._of(account) if entry.refusal.reason == reason]
        for scope in quotas:
            del self._entries[scope]
        return bool(quotas)

    def block(
        self, account: Account, offer: Offer | None, now: float, *, who: str = "", cap: Decimal | None = None
    ) -> Block | None:
        """Why this is not asked for now by `who`, under that price cap; None if it may be."""
        for scope in _scopes(account, offer):
            entry = self._entries.get(scope)
            if entry is None or not _applies(entry, cap):
                continue
            if now < entry.until:
                return Block(entry.refusal, entry.until)
            if entry.probing not in ("", who) and now < entry.probe_until:
                return Block(entry.refusal, min(entry.probe_until, now + 2.0))
        return None

    def claim(self, account: Account, offer: Offer, who: str, now: float) -> None:
        """`who` tries what was refused before; until that is decided the others wait."""
        for scope in _scopes(account, offer):
            entry = self._entries.get(scope)
            if entry is not None and now >= entry.until and entry.probing != who:
                self._entries[scope] = replace(entry, probing=who, probe_until=now + PROBE_SECONDS)

    def strikes(self, account: Account, offer: Offer, now: float) -> int:
        """How often in a row this offer was refused of late, also if it may be asked for again."""
        entry = self._entries.get(_offer_scope(account, offer))
        return entry.strikes if entry is not None and now < entry.until + REMEMBERED_SECONDS else 0

    def __len__(self) -> int:
        return len(self._entries)

    def _of(self, account: Account) -> Iterator[tuple[Scope, _Entry]]:
        return ((scope, entry) for scope, entry in self._entries.items() if scope[0] == account)

    def _drop_old(self, now: float) -> None:
        if len(self._entries) > 1000:
            fresh = {s: e for s, e in self._entries.items() if now < e.until + REMEMBERED_SECONDS}
            self._entries = fresh


def _applies(entry: _Entry, cap: Decimal | None) -> bool:
    """A price that is too high for one cap is none for a higher one."""
    if entry.refusal.reason != NodeReason.PRICE_CAP_EXCEEDED or entry.cap is None:
        return True
    return cap is not None and cap <= entry.cap


def _scopes(account: Account, offer: Offer | None) -> tuple[Scope, ...]:
    """All that may speak of this, the widest first."""
    if offer is None:
        return ((account, ()),)
    return (account, ()), _quota_scope(account, offer), _offer_scope(account, offer)


def _scope(account: Account, offer: Offer | None, reason: NodeReason) -> Scope:
    if offer is None or reason in OF_ACCOUNTS:
        return account, ()
    return (_quota_scope if reason == NodeReason.QUOTA_EXCEEDED else _offer_scope)(account, offer)


def _offer_scope(account: Account, offer: Offer) -> Scope:
    return account, (offer.region, offer.instance_type, offer.market)


def _quota_scope(account: Account, offer: Offer) -> Scope:
    """Quotas count accelerators, or machines without one, by region and market."""
    accelerator = offer.accelerator.name if offer.accelerator else ""
    return account, (offer.region, offer.market, accelerator, "quota")
