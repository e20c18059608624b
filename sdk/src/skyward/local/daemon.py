"""The supervisor's own process: `python -m skyward.local.daemon`, started by `plane.ensure`.

It leaves the session of whoever started it, so that it outlives the client and its terminal, and holds a lock
for as long as it lives, so that there is never a second one in the same home.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from skyward.local.home import Home
from skyward.local.supervisor import Supervisor

LOCKED = 3
"""Exit status when another supervisor owns the home."""
_LOCK_SECONDS = 15.0
"""One that was killed holds its lock until the system has cleaned up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Detach, print the process id of the supervisor, and be it."""
    parser = argparse.ArgumentParser(prog="skyward.local.daemon")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--etcd", type=Path, required=True)
    parser.add_argument("--kube-apiserver", type=Path, required=True)
    parser.add_argument(
        "--operator", type=json.loads, default=[], help="command of the operator, as JSON list"
    )
    given = parser.parse_args(arguments)
    child = os.fork()
    if child:
        sys.stdout.write(f"{child}\n")
        return 0
    os.setsid()
    os.umask(0o077)
    home = Home(given.home)
    _log_to(home.log("supervisor"))
    lock = FileLock(home.supervisor_lock, mode=0o600)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        logging.getLogger("skyward.local").error("another supervisor owns %s", home.root)
        return LOCKED
    with lock:
        supervisor = Supervisor(home, (given.etcd, given.kube_apiserver), given.operator)
        return supervisor.run(_wake_on_signals(supervisor))


def _log_to(path: Path) -> None:
    """Send the log, and whatever else is written, to a file; the client's pipes are let go."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (handle, 1), (handle, 2)):
        os.dup2(source, target)
    os.close(handle)
    os.close(nothing)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


def _wake_on_signals(supervisor: Supervisor) -> int:
    """Make signals readable: SIGTERM and SIGINT stop, SIGCHLD only wakes, SIGHUP of a terminal is nothing."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: supervisor.stop_soon())
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return reader


if __name__ == "__main__":
    sys.exit(main())
