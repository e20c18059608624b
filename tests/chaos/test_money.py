"""An unpleasant cloud and an operator that is killed: nothing is forgotten, and nothing is bought twice.

`make chaos SEEDS=300` plays that many rounds more; `python -m tests.chaos.money_campaign` plays them alone.
"""

from __future__ import annotations

import os
from decimal import Decimal

import pytest
from tests.chaos import money_campaign

from simcloud.bill import Audit

MORE = int(os.environ.get("SEEDS") or 0)


@pytest.mark.timeout(240 + 20 * MORE)
async def test_whatever_is_lost_refused_or_killed_the_ledger_is_clean_afterwards() -> None:
    summary = await money_campaign.run(range(12 + MORE), loud=MORE > 0)
    print(summary)
    assert summary.wrong == []
    assert summary.kills >= 24
    assert summary.bought >= 12
    assert summary.faults.total() >= 24


def test_an_oracle_that_sees_nothing_would_be_none() -> None:
    """What must not be in a ledger is told, each for itself."""
    audit = Audit(2, ["sim-1"], ["t"], ["uid"], ["ssh-key k"], 1.0, Decimal(1))
    assert money_campaign.judge(audit) == [
        "alive: sim-1",
        "two machines at once for node uid",
        "left behind: ssh-key k",
    ]
