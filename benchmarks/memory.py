"""How much processes grow while something happens: their resident memory, looked at many times a second."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil

from skyward.local.home import Home
from skyward.local.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOK_SECONDS: Final = 0.02
_MIB: Final = 1 << 20


@dataclass(slots=True)
class Growth:
    """MiB of each process: before, and at its largest."""

    before: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """MiB that it grew by at most."""
        return self.peak[name] - self.before[name]


@contextmanager
def growth(pids: Mapping[str, int]) -> Iterator[Growth]:
    """Watch processes, by names of one's own, for as long as the block lasts."""
    found, over = Growth(), threading.Event()
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    found.before = {name: process.memory_info().rss / _MIB for name, process in processes.items()}
    found.peak = dict(found.before)

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            for name, process in processes.items():
                if process.is_running():
                    found.peak[name] = max(found.peak[name], process.memory_info().rss / _MIB)

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def pid_of(component: str) -> int:
    """The process of a part of this process's control plane: etcd, kube-apiserver or operator."""
    status = read_status(Home.locate())
    known = status.component(component) if status is not None else None
    if known is None or known.identity is None:
        raise RuntimeError(f"{component} does not run")
    return known.identity.pid
