"""What one look at all accounts found, as a person is shown it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skyward_operator.engine.clock import timestamp
from skyward_operator.providers.contract import TAG_NODE, TAG_POOL

if TYPE_CHECKING:
    from skyward_operator.sweep.decide import Verdict
    from skyward_operator.sweep.look import Listed
    from skyward_operator.sweep.observation import Orphan


@dataclass(slots=True)
class Findings:
    """One entry for each account, in the order in which they were looked through."""

    accounts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, listed: Listed, verdict: Verdict | None = None) -> None:
        """What an account listed, and how that was judged; without a verdict it could not be asked."""
        account, orphans = listed.account, list[dict[str, Any]]()
        if verdict is not None:
            orphans += [_orphan(each, "ended") for each in verdict.end]
            orphans += [_orphan(each, "watched") for each in verdict.watched]
            orphans += [_orphan(each, "blocked") for each in verdict.blocked]
        self.accounts.append(
            {
                "provider": account.provider,
                "namespace": account.namespace,
                "secret": account.secret,
                "complete": listed.complete,
                "trouble": listed.trouble,
                "machines": len(listed.machines),
                "elsewhere": len(verdict.kept) if verdict is not None else 0,
                "limit": verdict.limit if verdict is not None else 0,
                "orphans": orphans,
            }
        )


def _orphan(orphan: Orphan, state: str) -> dict[str, Any]:
    """A machine without a node. `state`: asked to end now, watched for longer, or one of too many."""
    machine = orphan.machine
    return {
        "id": machine.id,
        "state": state,
        "why": str(orphan.why),
        "node": machine.tags.get(TAG_NODE, ""),
        "poolUid": machine.tags.get(TAG_POOL, ""),
        "created": timestamp(machine.created) if machine.created is not None else None,
    }
