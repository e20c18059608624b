"""The operator is killed between the notice and the end of machines: what it told, moved and bought holds."""

from __future__ import annotations

import pytest
from tests.chaos.scene import eventually
from tests.cluster.front_door import MINUTES, until
from tests.cluster.preempted import Scene, scene


def kill_operator(under_way: Scene) -> None:
    """Kill it; the control plane starts another one."""
    eventually(lambda: under_way.person.processes("skyward_operator run"), "an operator runs")
    under_way.person.kill("skyward_operator run")


@pytest.mark.timeout(8 * MINUTES)
def test_an_operator_killed_while_its_nodes_leave_goes_on_with_them() -> None:
    """Once after the notice is written, once after the first replacement is bought."""
    with scene() as under_way:
        for machine in under_way.begins():
            under_way.take(machine, 45.0)
        until(lambda: len(under_way.told()) >= 1 or under_way.leaving())
        kill_operator(under_way)
        eventually(lambda: len(under_way.cloud.events("created")) > 2, "a replacement is bought", MINUTES)
        kill_operator(under_way)
        under_way.came_right()
