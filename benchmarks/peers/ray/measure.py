"""Ray on this computer with two CPUs: tasks, and `ray.util.multiprocessing.Pool` for the map."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING, Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would report home

import ray
from benchmarks.peers import workload
from ray.util.multiprocessing import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Ray:
    """Remote functions, each made once."""

    def __init__(self, folder: str) -> None:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            object_store_memory=1 << 30,
        )
        self._remote: dict[Callable[[Any], Any], Any] = {}
        self._pool: Any = None

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """One task."""
        return ray.get(self._of(function).remote(argument))

    def together(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Tasks, then results."""
        remote = self._of(function)
        return ray.get([remote.remote(each) for each in arguments])

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Its Pool, item by item, as our map hands out calls."""
        return self._pooled().map(function, items, chunksize=1)

    def map_in_chunks(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Its Pool as it is by default: eight chunks, each lost, repeated or late as a whole."""
        return self._pooled().map(function, items)

    def _pooled(self) -> Any:
        """The Pool, whose actors keep the two CPUs."""
        if self._pool is None:
            self._pool = Pool(2)
            self._pool.map(workload.echo, range(workload.WARM))
        return self._pool

    def free(self) -> None:
        """Give the CPUs back to tasks."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
            self._pool = None

    def _of(self, function: Callable[[Any], Any]) -> Any:
        self.free()
        if function not in self._remote:
            self._remote[function] = ray.remote(function)
        return self._remote[function]


def main() -> None:
    """Measure it, in a folder of its own."""
    wanted = workload.sizes()
    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        begin = time.perf_counter()
        system = Ray(folder)
        system.call(workload.echo, 0)
        start = time.perf_counter() - begin
        workload.measure(system, wanted, start=start, map_in_chunks=system.map_in_chunks)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
