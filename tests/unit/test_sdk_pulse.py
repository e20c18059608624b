"""Whether the operator is alive, by its Lease and this process's clock."""

from __future__ import annotations

from typing import Any

from skyward.cluster.pulse import SILENT_SECONDS, Pulse


def lease(renewed: str | None, holder: str = "one") -> dict[str, Any]:
    return {"spec": {"holderIdentity": holder, "renewTime": renewed}}


def test_lease_that_does_not_change_is_reported_once_and_that_it_does_again() -> None:
    told: list[str | None] = []
    pulse = Pulse(None, lambda: True, told.append)  # type: ignore[arg-type]
    pulse.look(lease("1"), 0.0)
    pulse.look(lease("1"), SILENT_SECONDS - 0.1)
    assert told == []
    for late in (0.0, 1.0):
        pulse.look(lease("1"), SILENT_SECONDS + late)
    (since,) = told
    assert since is not None
    pulse.look(lease("1", "another"), 60.0)
    assert told == [since, None]


def test_lease_without_a_renewal_says_nothing() -> None:
    told: list[str | None] = []
    pulse = Pulse(None, lambda: True, told.append)  # type: ignore[arg-type]
    for seen, now in ((lease(None), 0.0), ({}, 100.0), (lease(None), 200.0)):
        pulse.look(seen, now)
    assert told == []
