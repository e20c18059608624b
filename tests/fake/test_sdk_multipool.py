"""Several pools at once, and the names of the first generation, on a control plane in this process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.sdk_plane import NODES, POOLS, FakePlane, wait_until
from tests.fake.test_sdk_pools import SILENT, add

import skyward as sky
from skyward.pools import Pool

if TYPE_CHECKING:
    from collections.abc import Callable


def test_pools_are_made_side_by_side_and_ended_together(
    plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=20)
    opened = Pool.open

    def open_with_the_other(self: Pool, *given: Any) -> None:
        both.wait()
        opened(self, *given)

    monkeypatch.setattr(Pool, "open", open_with_the_other)
    first = sky.Compute(provider=sky.Local(), options=SILENT)
    second = sky.Compute(provider=sky.Local(), nodes=2, options=SILENT)
    with sky.MultiPool(first, second) as (one, two):
        assert (one, two) == (first, second)
        assert (add(1, 2) >> one, add(3, 4) >> two) == (3, 7)
        assert len(plane.names(NODES)) == 3
    assert (plane.names(POOLS), plane.names(NODES)) == ([], [])
    assert not first.is_open


def test_where_one_cannot_be_had_the_others_are_released(plane: FakePlane) -> None:
    good = [sky.Compute(provider=sky.Local(), options=SILENT) for _ in range(2)]
    with sky.Compute(provider=sky.Local(), name="taken", options=SILENT):
        bad = sky.Compute(provider=sky.Local(), name="taken", options=SILENT)
        with (
            pytest.raises(sky.PoolError, match="a pool named taken exists already"),
            sky.MultiPool(good[0], bad, good[1]),
        ):
            raise AssertionError("never entered")
        assert plane.names(POOLS) == ["taken"]
    with sky.MultiPool(*good) as (one, _):  # and they can be used again
        assert add(1, 1) >> one == 2


def test_an_exception_in_the_block_releases_all(plane: FakePlane) -> None:
    pools = [sky.Compute(provider=sky.Local(), options=SILENT) for _ in range(2)]
    with pytest.raises(LookupError), sky.MultiPool(*pools):
        raise LookupError
    assert plane.names(POOLS) == []


def test_ctrl_c_while_they_begin_deletes_them(plane: FakePlane) -> None:
    plane.pool_status = {"phase": "Provisioning"}
    program = (
        "import skyward as sky\n"
        "pools = [sky.Compute(provider=sky.Local(), name=name) for name in ('a', 'b')]\n"
        "with sky.MultiPool(*pools):\n    print('never')\n"
    )
    command = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_until(lambda: len(plane.names(POOLS)) == 2)
        wait_until(lambda: plane.count("GET", "computenodes?") >= 4)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert plane.names(POOLS) == []
    assert output.count("nothing left running") == 2
    assert "never" not in output


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sky.MultiPool(), "MultiPool\\(\\) needs pools"),
        (lambda: sky.MultiPool(3), "every argument of MultiPool"),  # type: ignore[arg-type]
        (
            lambda: sky.MultiPool(*[sky.Compute(provider=sky.Local(), name="same") for _ in range(2)]),
            "each pool of MultiPool\\(\\) is another one, got same, same",
        ),
    ],
)
def test_what_is_no_set_of_pools_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make()


def test_the_words_of_the_first_generation_make_the_same_pool(plane: FakePlane) -> None:
    pool = sky.ComputePool(
        provider=[sky.Local(), "aws"],
        name="older",
        nodes=(1, 2),
        machine="p4d.24xlarge",
        accelerator=sky.Accelerator.NVIDIA.H100(count=8, mig="3g.40gb"),
        architecture="x86_64",
        cpu=8,
        memory="32GB",
        volume=[sky.S3Volume(bucket="data", mount_path="/data", read_only=True)],
        allocation="always-spot",
        timeout=3600,
        image=sky.Image(pip=["numpy"], env={"A": "1"}),
        env={"B": "2"},
        max_hourly_cost=4,
        preemption="fail",
        concurrency=3,
        display="quiet",
    )
    with pool:
        spec = plane.only(POOLS)["spec"]
    first, second = spec["candidates"]
    assert (first["provider"], second["provider"]) == ("local", "aws")
    assert first["instanceTypes"] == ["p4d.24xlarge"]
    assert first["accelerator"] == {"name": "H100", "count": "8", "mig": "3g.40gb"}
    assert (first["vcpus"], first["memoryGiB"], first["maxHourlyPrice"]) == (8, 32, "4")
    assert (first["market"], spec["selection"]) == ("spot", "first")
    assert spec["volumes"] == [{"bucket": "data", "mountPath": "/data", "readOnly": True}]
    assert spec["lifetime"] == {"ttlSeconds": 600, "maxLifetimeSeconds": 3600}
    assert {each["name"]: each["value"] for each in spec["image"]["env"]} == {"A": "1", "B": "2"}
    assert spec["worker"]["concurrency"] == 3
    assert json.dumps(spec)


def test_a_function_with_a_pool_has_it_while_it_runs(plane: FakePlane) -> None:
    seen = []

    @sky.pool(provider=sky.Local(), nodes=2, display="quiet")
    def main(left: int, *, right: int) -> list[int]:
        """Adds on every node."""
        seen.append(len(plane.names(NODES)))
        return add(left, right) @ sky

    assert plane.names(POOLS) == []
    assert main.__doc__ == "Adds on every node."
    assert main(1, right=2) == [3, 3]
    assert main(2, right=2) == [4, 4]
    assert seen == [2, 2]
    assert plane.names(POOLS) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"provider": "awz"}, "provider='awz' is none of .*; did you mean 'aws'\\?"),
        ({"provider": []}, "provider is an empty list"),
        ({"provider": 3}, "provider must be like"),
        ({"memory": "lots"}, "memory='lots' is not valid; write it like '32GB'"),
        ({"display": "loud"}, "display='loud' is not one of"),
        ({"preemption": "hope"}, "preemption='hope' is not one of"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"timeout": 0}, "max_lifetime must be at least 1"),
    ],
)
def test_mistakes_are_told_where_they_are_written(fields: dict[str, Any], words: str) -> None:
    for make in (sky.ComputePool, sky.pool):
        with pytest.raises((TypeError, ValueError), match=words):
            make(**{"provider": sky.Local(), **fields})


def test_brackets_are_asked_for() -> None:
    with pytest.raises(TypeError, match=r"write @sky.pool\(provider=sky.Local\(\)\)"):
        sky.pool(lambda: 1)
