"""The processes of one local machine: how they are marked, found, reaped and ended.

Each process started inside carries `SKYWARD_VM=<id>` in its environment. On Linux the machine's own process
adopts those whose parent is gone, so that even a process which dropped its environment stays in the tree.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from contextlib import suppress

import psutil

MARK = "SKYWARD_VM"
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def reap_orphans(period: float = 5.0) -> None:
    """Collect adopted children that have ended.

    Only those that were zombies one round ago: children of our own are collected by asyncio within
    milliseconds, and taking them away from it would lose their exit status.
    """
    seen: set[int] = set()
    while True:
        zombies = {child.pid for child in psutil.Process().children() if is_zombie(child)}
        for pid in zombies & seen:
            collect(pid)
        seen = zombies - seen
        await asyncio.sleep(period)


def collect(pid: int) -> None:
    """Take an ended child's exit status."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def is_zombie(process: psutil.Process) -> bool:
    """Whether a process has ended and waits to be collected."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_marked(process: psutil.Process, machine_id: str) -> bool:
    """Whether a process belongs to this machine by its environment."""
    try:
        return process.environ().get(MARK) == machine_id
    except (psutil.Error, OSError):
        return False


def find(machine_id: str, root_pid: int | None) -> list[psutil.Process]:
    """All living processes of a machine apart from its own process, `root_pid`."""
    found = {process for process in psutil.process_iter() if is_marked(process, machine_id)}
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(root_pid) if root_pid else None
        if root is not None and is_marked(root, machine_id):
            found.update(root.children(recursive=True))
    return [process for process in found if process.pid != root_pid and not is_zombie(process)]


def end_all(machine_id: str, root_pid: int | None, timeout: float = 5.0) -> bool:
    """Kill what a machine runs, then the machine's own process. True once nothing is left.

    The own process goes last: it keeps orphans findable while they are killed.
    """
    deadline = time.monotonic() + timeout
    while left := find(machine_id, root_pid):
        if time.monotonic() > deadline:
            return False
        kill(left, deadline)
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(root_pid) if root_pid else None
        if root is not None and is_marked(root, machine_id):
            kill([root], deadline)
    return not find(machine_id, None)


def kill(processes: list[psutil.Process], deadline: float) -> None:
    """Kill processes and wait until they are gone, or wait to be collected, or the time is up."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    while time.monotonic() < deadline and not all(map(is_zombie, processes)):
        time.sleep(0.005)
