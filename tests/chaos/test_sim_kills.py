"""The whole operator on an unpleasant cloud: killed while it buys, it forgets nothing and buys none twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.scene import eventually
from tests.cluster.front_door import MINUTES, newcomer
from tests.cluster.sim_process import Cloud, cloud

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.cluster.front_door import Person

PROGRAM = """
import json
import skyward as sky
with sky.Compute(provider=sky.Sim(), nodes=2) as pool:
    print(json.dumps(pool.map(abs, range(-6, 0))))
"""
ROUGH: Mapping[str, Any] = {
    "seed": 1,
    "faults": [
        {"at": "create", "effect": "lose-answer", "times": 2},
        {"at": "create", "effect": "internal-error", "skip": 2, "times": 2},
        {"at": "side", "effect": "unavailable", "times": 2},
        {"at": "describe", "effect": "cut", "probability": 0.3, "times": 20},
        {"at": "list", "effect": "partial", "fraction": 1, "times": 2},
        {"at": "terminate", "effect": "lose-answer", "times": 2},
    ],
}


def kill_operator(person: Person, buyer: Cloud, machines: int) -> None:
    """Kill the operator as soon as the cloud has sold so many machines."""
    eventually(lambda: len(buyer.events("created")) >= machines, f"{machines} machines are bought")
    eventually(lambda: person.processes("skyward_operator run"), "an operator runs")
    person.kill("skyward_operator run")


@pytest.mark.timeout(6 * MINUTES)
@pytest.mark.parametrize("account", ["default", "bare"])
def test_an_operator_killed_after_each_purchase_leaves_a_clean_ledger(account: str) -> None:
    """Both answers are lost, and the process that waited for them as well; the program notices nothing."""
    profile = {"default": "full", "bare": "bare"}[account]
    with cloud(ROUGH) as buyer:
        words = {"ENDPOINT": buyer.endpoint, "KEY": buyer.key(account), "PROFILE": profile}
        with newcomer(**{f"SKYWARD_SIM_{name}": value for name, value in words.items()}) as person:
            up = person.run("skyward", "local", "up")
            assert up.returncode == 0, up.stdout + up.stderr
            with person.starts(PROGRAM) as program:
                kill_operator(person, buyer, 1)
                kill_operator(person, buyer, 2)
                shown = program.end()
            assert json.dumps([6, 5, 4, 3, 2, 1]) in shown
            assert "nothing left running" in shown
        status, audit = buyer.audit()
        assert status == 0, audit
        assert audit["bought"] == 2
        done = {effect for event in buyer.events("request") for effect in event["effects"]}
        assert {"lose-answer", "unavailable"} <= done
