"""Draws what goes wrong from a scenario. The n-th draw of a fault is the same for the same seed, whatever
happens between."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simcloud.scenario import Fault, Scenario


class Fate(BaseModel):
    """What will happen to one machine; drawn when it is ordered, and kept in the ledger."""

    boot_seconds: float | None = 0.0
    """None: it never comes up."""
    ssh_seconds: float = 0.0
    """How long SSH is refused once the machine runs."""
    wrong_host_key: bool = False
    """The API shows another host key than the machine has."""
    preempt_seconds: float | None = None
    notice_seconds: float = 0.0
    vanish_seconds: float | None = None
    hang_seconds: float | None = None
    terminate_seconds: float = 0.0


class Faults:
    """The faults of one scenario, and how often each was drawn."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._drawn = [0] * len(scenario.faults)

    def of_request(self, operation: str, facts: Mapping[str, str]) -> list[Fault]:
        """What happens to this request."""
        return [fault for number, fault in self._at((operation, "any"), facts) if self._draw(number, fault)]

    def of_machine(self, facts: Mapping[str, str]) -> Fate:
        """What will happen to this machine."""
        fate = Fate(
            boot_seconds=self._scenario.boot_seconds, terminate_seconds=self._scenario.terminate_seconds
        )
        for number, fault in self._at(("vm",), facts):
            if self._draw(number, fault):
                befall(fate, fault)
        return fate

    def _at(self, places: tuple[str, ...], facts: Mapping[str, str]) -> list[tuple[int, Fault]]:
        return [
            (number, fault)
            for number, fault in enumerate(self._scenario.faults)
            if fault.at in places and fault.where.items() <= facts.items()
        ]

    def _draw(self, number: int, fault: Fault) -> bool:
        drawn = self._drawn[number]
        self._drawn[number] += 1
        if drawn < fault.skip or (fault.times is not None and drawn >= fault.skip + fault.times):
            return False
        seed = f"{self._scenario.seed}/{number}/{drawn}"
        return random.Random(seed).random() < fault.probability  # noqa: S311 - a script, not a secret


def befall(fate: Fate, fault: Fault) -> None:
    """Add a fault to a machine's fate."""
    match fault.effect:
        case "slow-boot":
            fate.boot_seconds = fault.seconds
        case "boot-never-ends":
            fate.boot_seconds = None
        case "ssh-refused":
            fate.ssh_seconds = fault.seconds
        case "wrong-host-key":
            fate.wrong_host_key = True
        case "preempt":
            fate.preempt_seconds, fate.notice_seconds = fault.seconds, fault.notice_seconds
        case "vanish":
            fate.vanish_seconds = fault.seconds
        case "hang":
            fate.hang_seconds = fault.seconds
        case "terminate-ignored":
            fate.terminate_seconds = fault.seconds
