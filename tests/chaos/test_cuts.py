"""Cuts at random bytes of the link and random kills: no result is lost, and nothing runs twice in silence.

`make chaos SEEDS=300` plays that many rounds more; `python -m tests.chaos.cut_campaign` plays them alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.chaos import cut_campaign, cut_scene

from skyward_operator.tasks.record import Pace

if TYPE_CHECKING:
    from pathlib import Path

MORE = int(os.environ.get("SEEDS") or 0)


async def test_cuts_alone_repeat_nothing(tmp_path: Path) -> None:
    """Agent and operator live on: each call runs exactly once, wherever its link breaks."""
    summary = await cut_campaign.run(tmp_path, range(12), kills=False)
    print(summary)
    assert summary.cases >= 20
    assert summary.repeated == 0


@pytest.mark.timeout(120 + 10 * MORE)
async def test_cuts_and_kills_repeat_only_what_is_on_record(tmp_path: Path) -> None:
    """A call runs again only where the status names the attempt that was lost."""
    summary = await cut_campaign.run(tmp_path, range(100, 112 + MORE), loud=MORE > 0)
    print(summary)
    assert summary.cases >= 20
    assert summary.kills.total() > 0


async def test_operator_and_agent_killed_together_repeat_only_what_is_on_record(tmp_path: Path) -> None:
    """Neither of them can tell the next operator what ran, and no status had said it yet."""
    with cut_campaign.impatient():
        async with cut_scene.scene(tmp_path, Pace(60, 60, 60)) as scene:
            calls = [cut_scene.Call(10, 10, 0.5)] * 2
            await scene.submit("task", calls, retry=cut_campaign.RETRY)
            await cut_scene.eventually(lambda: len(scene.ledger.runs("task")) == 2, lambda: "both run")
            assert scene.kill("skyward.agent")
            await scene.restart_operator()
            status = await scene.ends("task")
            assert status["phase"] == "Succeeded"
            assert scene.ledger.runs("task") == {0: {1: 1, 2: 1}, 1: {1: 1, 2: 1}}
            recent = status["attempts"]["recent"]
            assert {(each["index"], each["attempt"]) for each in recent} == {(0, 1), (1, 1)}
