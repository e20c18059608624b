"""What has to be paid, by the second, and what an auditor asks of a ledger."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simcloud.state import Instance, State


def bill(state: State, account: str, now: float) -> dict[str, Any]:
    """The bill of an account until now; money is decimal strings in dollars."""
    lines = [line(each, now) for each in state.instances.values() if each.account == account]
    total = sum((Decimal(each["amount"]) for each in lines), Decimal(0))
    return {"account": account, "total": f"{total:f}", "instances": lines}


def line(instance: Instance, now: float) -> dict[str, Any]:
    """One machine on a bill."""
    seconds = (instance.gone or now) - instance.created
    return {
        "id": instance.id,
        "name": instance.name,
        "instance_type": instance.instance_type,
        "market": instance.market,
        "seconds": round(seconds, 3),
        "amount": f"{instance.amount(now):f}",
        "ended": instance.gone is not None,
    }


@dataclass(frozen=True, slots=True)
class Audit:
    """What a ledger says about its customers' care."""

    bought: int
    alive: Sequence[str]
    """Machines that are still paid for."""
    bought_twice: Sequence[str]
    """Client tokens that have bought more than one machine."""
    at_once: Sequence[str]
    """Values of the owner's tag under which two machines were paid for at the same time."""
    side: Sequence[str]
    """Side resources that are left."""
    seconds: float
    amount: Decimal
    causes: dict[str, int] = field(default_factory=dict)
    """How machines ended."""


def audit(state: State, now: float, owner_tag: str) -> Audit:
    """Judge all accounts. `owner_tag` is the tag that says for whom a machine was bought."""
    instances = list(state.instances.values())
    tokens = Counter((each.account, each.token) for each in instances)
    owners = Counter(each.tags.get(owner_tag, "") for each in instances)
    return Audit(
        bought=len(instances),
        alive=[each.id for each in state.live()],
        bought_twice=[token for (_, token), times in tokens.items() if times > 1],
        at_once=[
            owner for owner, times in owners.items() if times > 1 and overlap(instances, owner_tag, owner)
        ],
        side=[f"{each.kind} {each.name}" for each in state.side.values()],
        seconds=sum(((each.gone or now) - each.created for each in instances), 0.0),
        amount=sum((each.amount(now) for each in instances), Decimal(0)),
        causes=dict(Counter(each.cause for each in instances if each.gone is not None)),
    )


def overlap(instances: Sequence[Instance], owner_tag: str, owner: str) -> bool:
    """Whether two machines of one owner were paid for at the same time."""
    mine = sorted(
        (each.created, each.gone or float("inf")) for each in instances if each.tags.get(owner_tag) == owner
    )
    return any(later < ended for (_, ended), (later, _) in itertools.pairwise(mine))
