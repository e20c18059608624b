"""What something costs the processes of one control plane, by what they are: growth of memory, and CPU."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 0.02
_KINDS = {
    "worker": "skyward.agent.worker",
    "agent": "skyward.agent",
    "machine": "providers.local",
    "API server": "kube-apiserver",
    "operator": "skyward_operator",
}
"""A process is the first of these whose words stand in its command line."""


@dataclass(slots=True)
class Cost:
    """By kind of process: MB by which the fastest growing one grew at most, and seconds of CPU of all."""

    grown: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)


@contextmanager
def cost(home: str) -> Iterator[Cost]:
    """What the block costs the processes that are there when it begins."""
    found = Cost()
    watched = _processes(home)
    begun = {pid: _resident(pid) for pid, _ in watched}
    spent = {pid: _cpu(pid) for pid, _ in watched}
    peak = dict(begun)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SECONDS):
            for pid, _ in watched:
                peak[pid] = max(peak[pid], _resident(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        for pid, kind in watched:
            grown = round((peak[pid] - begun[pid]) / 1e6, 1)
            found.grown[kind] = max(found.grown.get(kind, 0.0), grown)
            found.cpu[kind] = round(found.cpu.get(kind, 0.0) + max(0.0, _cpu(pid) - spent[pid]), 3)


def _processes(home: str) -> list[tuple[int, str]]:
    found = [(os.getpid(), "caller")]
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = " ".join(process.info["cmdline"] or ())
        if home in line or home in (process.info["cwd"] or ""):
            kind = next((kind for kind, words in _KINDS.items() if words in line), None)
            if kind is not None:
                found.append((process.pid, kind))
    return found


def _resident(pid: int) -> float:
    """Bytes of memory that only this process has, and of files that it has mapped and used."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0.0


def _cpu(pid: int) -> float:
    """Seconds of CPU so far."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
