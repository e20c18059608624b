"""One process at a time, and the others are told what they wait for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from skyward.local.progress import Report, working


@contextmanager
def only_one(path: Path, report: Report, waiting_for: str) -> Iterator[None]:
    """Hold the lock file for the block. The system lets it go when its holder dies: it is never stale."""
    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with working(report, waiting_for):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
