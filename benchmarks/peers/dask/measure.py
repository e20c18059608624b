"""Dask's scheduler with two workers, each a process with one thread, on loopback."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import distributed
from benchmarks.peers import workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Dask:
    """Its client. `pure=False`: each call is made, whatever was computed before."""

    def __init__(self) -> None:
        self._cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        )
        self._client = distributed.Client(self._cluster)

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """One submit."""
        return self._client.submit(function, argument, pure=False).result()

    def together(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Submits, then one gather."""
        return self._client.gather([self._client.submit(function, each, pure=False) for each in arguments])

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Its map."""
        return self._client.gather(self._client.map(function, items, pure=False))

    def close(self) -> None:
        """End scheduler and workers."""
        self._client.close()
        self._cluster.close()


def main() -> None:
    """Measure it; 100,000 items would take it minutes."""
    wanted = workload.sizes(maps=(2_000,))
    begin = time.perf_counter()
    system = Dask()
    system.call(workload.echo, 0)
    started = time.perf_counter() - begin
    try:
        workload.measure(system, wanted, start=started)
    finally:
        system.close()


if __name__ == "__main__":
    main()
