"""Spot machines that are taken back with notice, from a person's program to the ledger."""

from __future__ import annotations

import pytest
from tests.cluster.front_door import MINUTES, until
from tests.cluster.preempted import scene

pytestmark = pytest.mark.timeout(8 * MINUTES)


def test_a_program_loses_nothing_when_all_of_its_machines_are_taken_with_notice() -> None:
    """A map of 200 short calls, one long call that listens and one that does not."""
    with scene() as under_way:
        machines = under_way.begins()
        assert len(machines) == 2
        for machine in machines:
            under_way.take(machine, 30.0)
        until(lambda: len(under_way.told()) == 2)
        until(lambda: len(under_way.leaving()) == 1)  # the other one goes as soon as nothing is left on it
        (stubborn,) = under_way.leaving()
        conditions = {each["type"]: each["status"] for each in stubborn["status"]["conditions"]}
        assert (conditions["Interrupted"], conditions["Ready"]) == ("True", "False")
        under_way.came_right()
