"""`make bench`: start-up, one call, a map, each beside its limit measured in the same run on the same machine.

It uses a control plane of its own in a temporary folder and leaves nothing running.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import floor
from benchmarks.figures import Latency, header, row, times

if TYPE_CHECKING:
    import skyward as sky

CALLS = 300
ITEMS = 2000


def main() -> None:
    """Run all measurements, one after the other."""
    folder = Path(tempfile.mkdtemp(prefix="skyward-bench-"))
    os.environ["SKYWARD_HOME"] = str(folder)
    os.environ["SKYWARD_CONTROL_PLANE"] = "local"
    try:
        header()
        _start_up()
        _calls_and_maps()
    finally:
        subprocess.run([sys.executable, "-m", "skyward", "local", "down", "--force"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _start_up() -> None:
    from skyward import local

    begin = time.perf_counter()
    local.ensure(lambda _: None)
    row(
        "control plane and operator, cold",
        f"{time.perf_counter() - begin:.2f} s",
        "2.7 s (etcd + API server)",
    )


def _calls_and_maps() -> None:
    import skyward as sky
    from skyward import local

    endpoint = local.find()
    assert endpoint is not None
    begin = time.perf_counter()
    with sky.Compute(provider=sky.Local(), nodes=1, options=sky.Options(console="silent")) as pool:
        _nothing(0) >> pool
        row("pool creation to first result", f"{time.perf_counter() - begin:.2f} s")
        calls = _time_calls(pool)
        api, ssh = floor.api_round_trips(endpoint, CALLS), floor.ssh_round_trips(CALLS)
        limit = Latency([a + s for a, s in zip(sorted(api.samples), sorted(ssh.samples), strict=True)])
        row("one call, p50", f"{calls.p50:.2f} ms", f"{limit.p50:.2f} ms", times(calls.p50, limit.p50))
        row("one call, p99", f"{calls.p99:.2f} ms", f"{limit.p99:.2f} ms", times(calls.p99, limit.p99))
        mapped, peer = _map_rate(pool), _executor_rate()
        row("map of 2,000 no-ops", f"{mapped:.0f} /s", f"{peer:.0f} /s (ProcessPool)", times(peer, mapped))


def _time_calls(pool: sky.Pool) -> Latency:
    samples = []
    for number in range(CALLS):
        begin = time.perf_counter()
        assert _nothing(number) >> pool == number
        samples.append(time.perf_counter() - begin)
    return Latency(samples[10:] + samples[:10])


def _map_rate(pool: sky.Pool) -> float:
    begin = time.perf_counter()
    assert pool.map(_nothing, range(ITEMS)) == list(range(ITEMS))
    return ITEMS / (time.perf_counter() - begin)


def _executor_rate() -> float:
    with ProcessPoolExecutor(1) as executor:
        executor.submit(abs, 1).result()
        begin = time.perf_counter()
        assert list(executor.map(abs, range(ITEMS))) == list(range(ITEMS))
        return ITEMS / (time.perf_counter() - begin)


def _nothing(number: int) -> int:
    return number


if __name__ == "__main__":
    main()
