"""`concurrent.futures.ProcessPoolExecutor` with two processes: no network, nothing durable."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from benchmarks.peers import workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Processes:
    """The executor."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(2)

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """One submit."""
        return self._pool.submit(function, argument).result()

    def together(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Submits, then results."""
        return [future.result() for future in [self._pool.submit(function, each) for each in arguments]]

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Item by item, as our map hands out calls."""
        return list(self._pool.map(function, items, chunksize=1))

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


def main() -> None:
    """Measure it."""
    wanted = workload.sizes()
    begin = time.perf_counter()
    system = Processes()
    system.call(workload.echo, 0)
    started = time.perf_counter() - begin
    try:
        workload.measure(system, wanted, start=started)
    finally:
        system.close()


if __name__ == "__main__":
    main()
