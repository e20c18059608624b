"""Kills along the whole path: nothing is left, bought twice, lost, or run twice in silence.

`make chaos SEEDS=300` plays that many rounds more; `python -m tests.chaos.path_campaign` plays them alone.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections import Counter
from typing import Any

import pytest
from tests.chaos import path_campaign
from tests.chaos.paper_world import judge_task

from skyward.wire.outcomes import Outcome, pack_outcomes

MORE = int(os.environ.get("SEEDS") or 0)


@pytest.mark.timeout(300 + 60 * MORE)
async def test_whatever_is_killed_on_the_way_every_witness_agrees_afterwards() -> None:
    summary = await path_campaign.run(range(6 + MORE), loud=MORE > 0)
    print(summary)
    assert summary.wrong == []
    assert summary.kills.total() >= 40
    assert summary.bought >= 12
    assert summary.tasks.total() >= 40


def test_the_same_seed_is_the_same_round() -> None:
    assert path_campaign.Round.of(7) == path_campaign.Round.of(7) != path_campaign.Round.of(8)


def task(phase: str, total: int, *indices: int) -> dict[str, Any]:
    """A task as its status tells of it."""
    outcomes = [Outcome(index, True, b"", None, "n", 0, f"u.{index}.1", 0.0, 0.0) for index in indices]
    package = b64encode(pack_outcomes(outcomes)).decode()
    return {"status": {"phase": phase, "attempts": {"total": total}, "result": {"package": package}}}


@pytest.mark.parametrize(
    ("subject", "began", "told"),
    [
        (task("Succeeded", 2, 0), {"u.0.1": 1, "u.0.2": 1}, []),
        (task("Succeeded", 1, 0), {"u.0.1": 2}, ["u.0.1 began 2 times"]),
        (task("Succeeded", 1, 0), {"u.0.1": 1, "u.0.2": 1}, ["2 attempts began, and 1 are told"]),
        (task("Succeeded", 1), {"u.0.1": 1}, ["its result is lost"]),
        (task("Succeeded", 1, 0), {}, ["it succeeded and never began"]),
        (task("Running", 1), {"u.0.1": 1}, ["is Running in the end"]),
    ],
)
def test_an_oracle_tells_what_must_not_be(
    subject: dict[str, Any], began: dict[str, int], told: list[str]
) -> None:
    assert judge_task(subject, Counter(began)) == told
