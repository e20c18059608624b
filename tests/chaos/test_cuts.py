"""Cuts at random bytes of the link and random kills: no result is lost, and nothing runs twice in silence.

`make chaos SEEDS=300` plays that many rounds more; `python -m tests.chaos.cut_campaign` plays them alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.chaos import cut_campaign, cut_scene

from skyward.wire.envelopes import parse_attempt
from skyward_operator.tasks.record import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WIDE = 10_000
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


@pytest.mark.timeout(300)
async def test_wide_map_with_failures_and_kills_accounts_for_every_attempt(tmp_path: Path) -> None:
    """Agent, worker, operator and link are hit in the middle of slices: each call returns once, no attempt
    runs twice, and the status counts exactly the attempts that the numbers of the last ones say."""
    with cut_campaign.impatient():
        async with cut_scene.scene(tmp_path) as scene:
            calls = [cut_scene.Call(10, 10, 0.0)] * WIDE

            def ran(share: float) -> Callable[[], bool]:
                return lambda: len(scene.ledger.runs("wide")) > share * WIDE

            await scene.submit("wide", calls, cut_scene.stumble, retry=cut_campaign.RETRY)
            await cut_scene.eventually(ran(0.1), lambda: "it runs")
            assert scene.kill("skyward.agent.worker")
            await cut_scene.eventually(ran(0.3), lambda: "it goes on after the worker")
            assert scene.kill("skyward.agent")
            await cut_scene.eventually(ran(0.5), lambda: "it goes on after the agent")
            await scene.restart_operator()
            scene.proxy.cut_now("reset")
            status = await scene.ends("wide")
            assert (status["phase"], status["succeededIndexes"]) == ("Succeeded", f"0-{WIDE - 1}")
            last = {each.index: parse_attempt(each.attempt)[2] for each in scene.outcomes("wide")}
            assert sorted(last) == list(range(WIDE))
            assert sum(last.values()) == status["attempts"]["total"]
            runs = scene.ledger.runs("wide")
            assert sorted(runs) == list(range(WIDE))
            for index, attempts in runs.items():
                assert max(attempts.values()) == 1, f"call {index}: an attempt ran twice: {attempts}"
                assert set(attempts) <= set(range(1, last[index] + 1))
                assert index % 50 != 7 or last[index] > 1
            print(
                f"{sum(map(len, runs.values()))} runs, {status['attempts']['total']} attempts of {WIDE} calls"
            )


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
