"""Which machines of one account are orphans, and which of them are ended now. Pure.

A machine that was listed before the nodes were had its intent written before that, so a node that is not
there has gone, and does not come. Still nothing is ended on one look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skyward_operator.providers.contract import TAG_NODE, TAG_NODE_UID, TAG_POOL
from skyward_operator.sweep.observation import Orphan, Sighting, Why

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.providers.contract import Machine
    from skyward_operator.sweep.observation import Memory, Observation, Owner, Rules


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from one look at one account."""

    end: Sequence[Orphan]
    """To be asked to end now, whether for the first time or again."""
    watched: Sequence[Orphan]
    """Not yet: too young, or seen too seldom."""
    blocked: Sequence[Orphan]
    """Not at all: too many at once."""
    limit: int
    """So many would not have been too many."""
    kept: Sequence[Machine]
    """Machines whose nodes are in namespaces that this operator does not look at."""
    cleared: frozenset[str]
    """UIDs of pools of orphans that are gone now; keys and groups may be left of them."""
    memory: Memory


def decide(seen: Observation, now: float, rules: Rules) -> Verdict:
    """Judge one look. One that may lack machines changes nothing."""
    limit = max(rules.number, int(rules.share * len(seen.machines)))
    if not seen.complete:
        return Verdict((), (), (), limit, (), frozenset(), seen.memory)
    looked_at = [machine for machine in seen.machines if _is_looked_after(machine, seen)]
    kept = [machine for machine in seen.machines if not _is_looked_after(machine, seen)]
    orphans = [
        Orphan(machine, why) for machine in looked_at if (why := why_orphan(machine, seen.owners)) is not None
    ]
    memory = {each.machine.id: _sighted(each, seen.memory, now) for each in orphans}
    ending = [each for each in orphans if memory[each.machine.id].ending]
    ripe = [
        each
        for each in orphans
        if each not in ending and _is_ripe(memory[each.machine.id], now, seen.window, rules)
    ]
    watched = [each for each in orphans if each not in ending and each not in ripe]
    blocked: Sequence[Orphan] = ()
    if len(ripe) > max(limit, seen.allowed):
        ripe, blocked = [], ripe
    for each in ripe:
        memory[each.machine.id] = replace(memory[each.machine.id], ending=True)
    cleared = frozenset(
        sighting.pool_uid
        for name, sighting in seen.memory.items()
        if sighting.ending and name not in memory and sighting.pool_uid
    )
    return Verdict([*ending, *ripe], watched, blocked, limit, kept, cleared, memory)


def why_orphan(machine: Machine, owners: Mapping[str, Owner]) -> Why | None:
    """Why a machine belongs to no node; None if it belongs to one."""
    owner = owners.get(machine.tags.get(TAG_NODE_UID, ""))
    if owner is None:
        return Why.NO_NODE
    if owner.token != machine.token:
        return Why.OTHER_ORDER
    if owner.provider_id is not None and owner.provider_id != machine.id:
        return Why.SECOND
    return Why.ENDED if owner.ended else None


def _is_looked_after(machine: Machine, seen: Observation) -> bool:
    namespace = machine.tags.get(TAG_NODE, "").partition("/")[0]
    return not seen.namespaces or namespace in seen.namespaces


def _sighted(orphan: Orphan, memory: Memory, now: float) -> Sighting:
    before = memory.get(orphan.machine.id)
    if before is None:
        return Sighting(now, pool_uid=orphan.machine.tags.get(TAG_POOL, ""))
    return replace(before, times=before.times + 1)


def _is_ripe(sighting: Sighting, now: float, window: float, rules: Rules) -> bool:
    return sighting.times >= rules.listings and now - sighting.first > window + rules.margin
