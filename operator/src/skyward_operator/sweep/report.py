"""Tells people what the sweep found: one log line and one event per orphan, and metrics without names."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from skyward.contract.names import ACCOUNTS_SUFFIX, ANNOTATION_END_ORPHANS
from skyward_operator.kube.kinds import LEASE
from skyward_operator.providers.contract import TAG_NODE, TAG_POOL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward_operator.context import Context
    from skyward_operator.nodes.book import Account
    from skyward_operator.sweep.decide import Verdict
    from skyward_operator.sweep.look import Listed
    from skyward_operator.sweep.observation import Orphan

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 3600.0
"""After so long a trouble that goes on is told again."""


class SweepReason(StrEnum):
    """Reasons of the sweep's events, which are about the operator's Lease."""

    ORPHAN_ENDED = "OrphanEnded"
    TOO_MANY_ORPHANS = "TooManyOrphans"
    ACCOUNT_NOT_SWEPT = "AccountNotSwept"


@dataclass(slots=True)
class Report:
    """What is told, and what was told already."""

    context: Context
    _told: dict[str, float] = field(default_factory=dict)

    def ended(self, account: Account, orphan: Orphan) -> None:
        """An orphan is asked to end for the first time."""
        machine = orphan.machine
        text = (
            f"machine {machine.id} at {account} belongs to no node and is ended: {orphan.why}"
            f" (node {machine.tags.get(TAG_NODE, 'unknown')}, pool {machine.tags.get(TAG_POOL, 'unknown')},"
            f" {self._age(orphan)}; its cost is in no status, see the provider's bill)"
        )
        logger.warning(text)
        self._emit("Warning", SweepReason.ORPHAN_ENDED, text)
        self.context.metrics.orphans_ended.labels(account.provider).inc()

    def blocked(self, account: Account, verdict: Verdict) -> None:
        """There are too many orphans to believe in them."""
        settings = self.context.settings
        place = f"-n {settings.lease_namespace} configmap {settings.lease_name}{ACCOUNTS_SUFFIX}"
        many, names = len(verdict.blocked), sorted(each.machine.id for each in verdict.blocked)
        self._warn(
            f"blocked {account}",
            SweepReason.TOO_MANY_ORPHANS,
            f"{many} machines at {account} belong to no node, more than the {verdict.limit} that are ended"
            f" without asking: {', '.join(names[:20])}{' and more' if many > 20 else ''}. If the nodes were"
            f" lost and these may go: kubectl annotate {place} {ANNOTATION_END_ORPHANS}={many}",
        )

    def trouble(self, listed: Listed, *, wanted: bool) -> None:
        """An account could not be looked through."""
        use = "pools or nodes use it" if wanted else "machines may be left there that no pool or node knows"
        self._warn(
            f"trouble {listed.account}",
            SweepReason.ACCOUNT_NOT_SWEPT,
            f"{listed.account} was not looked through for machines without a node: {listed.trouble}. It is"
            f" tried again; {use}",
        )

    def well(self, account: Account) -> None:
        """What was wrong with an account is over; the next trouble is news."""
        self._told.pop(f"trouble {account}", None)

    def unblocked(self, account: Account) -> None:
        """There are not too many orphans any more."""
        self._told.pop(f"blocked {account}", None)

    def counted(self, looked: Sequence[tuple[Listed, Verdict]], unswept: int) -> None:
        """The gauges after a round."""
        metrics = self.context.metrics
        orphans, blocked = Counter[str](), Counter[str]()
        for listed, verdict in looked:
            name = listed.account.provider
            orphans[name] += len(verdict.memory)
            blocked[name] += len(verdict.blocked)
        for name in orphans:
            metrics.orphans.labels(name).set(orphans[name])
            metrics.orphans_blocked.labels(name).set(blocked[name])
        metrics.orphans_unswept.set(unswept)
        metrics.orphans_swept.set(self.context.clock.now().timestamp())

    def _age(self, orphan: Orphan) -> str:
        if orphan.machine.created is None:
            return "of unknown age"
        seconds = (self.context.clock.now() - orphan.machine.created).total_seconds()
        return f"{seconds / 60:.0f} min old by its provider's clock"

    def _warn(self, subject: str, reason: SweepReason, text: str) -> None:
        now = self.context.clock.monotonic()
        if now - self._told.get(subject, float("-inf")) >= AGAIN_SECONDS:
            self._told[subject] = now
            logger.warning(text)
            self._emit("Warning", reason, text)

    def _emit(self, type_: Literal["Normal", "Warning"], reason: SweepReason, text: str) -> None:
        settings = self.context.settings
        lease: dict[str, Any] = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {
                "name": settings.lease_name,
                "namespace": settings.lease_namespace,
                "uid": self.context.leadership.installation,
            },
        }
        self.context.events.emit(lease, type_, reason, text)
