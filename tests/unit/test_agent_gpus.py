"""Each worker of a node sees its share of the GPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skyward.agent.facts import visible_gpus
from skyward.agent.process import WorkerPlan


@pytest.mark.parametrize(
    ("gpus", "workers", "shares"),
    [
        ("0123", 2, ["0,1", "2,3"]),
        ("0123", 4, ["0", "1", "2", "3"]),
        ("01234", 2, ["0,1", "2,3"]),
        ("01", 4, ["0", "1", "0", "1"]),
        ("01", 1, [None]),
        ("", 3, [None, None, None]),
    ],
)
def test_workers_share_the_gpus_of_a_node(gpus: str, workers: int, shares: list[str | None]) -> None:
    plan = WorkerPlan(Path(), Path(), 1, workers, tuple(gpus))
    environments = [plan.environment(index) for index in range(workers)]
    assert [env and env["CUDA_VISIBLE_DEVICES"] for env in environments] == shares
    assert [env and env["HIP_VISIBLE_DEVICES"] for env in environments] == shares
    assert all(env is None or env.keys() >= os.environ.keys() for env in environments)


def test_what_the_agent_was_limited_to_stays_the_limit() -> None:
    known = {"gpus": [{"index": 0}, {"index": 1}, {"index": 2}]}
    assert visible_gpus(known, {}) == ("0", "1", "2")
    assert visible_gpus(known, {"CUDA_VISIBLE_DEVICES": "2, GPU-1"}) == ("2", "GPU-1")
    assert visible_gpus(known, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus({"gpus": []}, {}) == ()
