"""Which machines are orphans, and when one may be ended: each doubt keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from skyward_operator.providers.contract import TAG_NODE, TAG_NODE_UID, TAG_POOL, Machine, MachineState
from skyward_operator.sweep.decide import decide, why_orphan
from skyward_operator.sweep.observation import Observation, Owner, Rules, Why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward_operator.sweep.decide import Verdict

RULES = Rules(margin=60.0)
WINDOW = 10.0


def machine(name: str, node: str = "gone", token: str = "t", namespace: str = "default") -> Machine:
    tags = {TAG_NODE_UID: node, TAG_NODE: f"{namespace}/n", TAG_POOL: "pool-uid"}
    return Machine(name, token, tags, MachineState.RUNNING)


def seen(machines: Sequence[Machine], *owners: Owner, complete: bool = True) -> Observation:
    return Observation(machines, complete, {each.uid: each for each in owners}, WINDOW)


def looks(*observations: tuple[float, Observation]) -> Verdict:
    """The verdict of the last of several looks, each with what was remembered from the one before."""
    memory: dict[str, object] = {}
    for now, observation in observations:
        verdict = decide(replace(observation, memory=memory), now, RULES)  # type: ignore[arg-type]
        memory = dict(verdict.memory)
    return verdict


def ended(verdict: Verdict) -> list[str]:
    return [each.machine.id for each in verdict.end]


@pytest.mark.parametrize(
    ("owner", "why"),
    [
        (Owner("n", "t", "m", ended=False), None),
        (Owner("n", "t", None, ended=False), None),
        (Owner("other", "t", "m", ended=False), Why.NO_NODE),
        (Owner("n", "t2", None, ended=False), Why.OTHER_ORDER),
        (Owner("n", None, None, ended=False), Why.OTHER_ORDER),
        (Owner("n", "t", "m2", ended=False), Why.SECOND),
        (Owner("n", "t", "m", ended=True), Why.ENDED),
    ],
)
def test_a_machine_belongs_to_the_node_that_ordered_it_last_and_has_no_other(
    owner: Owner, why: Why | None
) -> None:
    assert why_orphan(machine("m", "n"), {owner.uid: owner}) is why


def test_an_orphan_is_ended_when_it_was_seen_twice_over_window_and_margin() -> None:
    look = seen([machine("m")])
    assert ended(looks((0, look))) == []
    assert ended(looks((0, look), (70, look))) == []
    assert ended(looks((0, look), (71, look))) == ["m"]
    assert [each.machine.id for each in looks((0, look), (70, look)).watched] == ["m"]


def test_it_is_asked_to_end_again_until_it_is_gone_and_then_its_pool_is_cleared() -> None:
    look = seen([machine("m")])
    assert ended(looks((0, look), (71, look), (72, look))) == ["m"]
    after = looks((0, look), (71, look), (72, seen([])))
    assert ended(after) == []
    assert after.cleared == {"pool-uid"}
    assert not after.memory


def test_a_listing_that_may_lack_machines_neither_counts_nor_makes_anything_forgotten() -> None:
    look, partial = seen([machine("m")]), seen([machine("m")], complete=False)
    nothing = seen([], complete=False)
    assert ended(looks((0, partial), (100, partial))) == []
    assert ended(looks((0, look), (100, partial))) == []
    assert ended(looks((0, look), (100, nothing), (200, look))) == ["m"]


def test_an_orphan_that_was_away_or_owned_in_between_is_watched_anew() -> None:
    look, owned = seen([machine("m")]), seen([machine("m")], Owner("gone", "t", "m", ended=False))
    assert ended(looks((0, look), (100, seen([])), (200, look))) == []
    assert ended(looks((0, look), (100, owned), (200, look))) == []


def test_too_many_at_once_are_a_wrong_view_until_a_person_says_that_they_may_go() -> None:
    four = [machine(f"m{number}") for number in range(4)]
    three = looks((0, seen(four[:3])), (100, seen(four[:3])))
    assert len(three.end) == 3
    verdict = looks((0, seen(four)), (100, seen(four)))
    assert (ended(verdict), len(verdict.blocked), verdict.limit) == ([], 4, 3)
    assert not any(each.ending for each in verdict.memory.values())
    too_few, enough = (replace(seen(four), allowed=number) for number in (3, 4))
    assert ended(looks((0, seen(four)), (100, too_few))) == []
    assert len(ended(looks((0, seen(four)), (100, enough)))) == 4


def test_a_fifth_of_the_machines_is_not_too_many() -> None:
    owners = [Owner(f"n{number}", "t", f"o{number}", ended=False) for number in range(40)]
    owned = [machine(f"o{number}", f"n{number}") for number in range(40)]
    some = seen([*owned, *(machine(f"m{number}") for number in range(10))], *owners)
    assert len(looks((0, some), (100, some)).end) == 10
    more = replace(some, machines=[*some.machines, machine("a"), machine("b"), machine("c")])
    assert len(looks((0, more), (100, more)).blocked) == 13


def test_machines_of_namespaces_that_are_not_looked_at_are_left_alone() -> None:
    look = replace(seen([machine("m", namespace="theirs"), machine("o")]), namespaces=frozenset({"default"}))
    verdict = looks((0, look), (100, look))
    assert (ended(verdict), [each.id for each in verdict.kept]) == (["o"], ["m"])
