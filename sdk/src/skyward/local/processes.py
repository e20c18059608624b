"""One child process: what it is, how it starts, how it ends, and where it logs.

The child writes straight into its log file, so that it neither stops nor dies with whoever started it. The
file is opened for appending, which makes it safe to cut it down while the child writes.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LOG_BYTES = 16 * 1024 * 1024
"""A log larger than this moves to `<name>.1`, of which there is one."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How to start one process."""

    name: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    grace_seconds: float = 10.0
    """How long it may take to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process id that cannot be mistaken for a later process with the same number."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Answer the identity of a process that runs, else None."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def process(self) -> psutil.Process | None:
        """Answer the process, or None when it ended or its id belongs to another one now."""
        try:
            process = psutil.Process(self.pid)
            # the system counts in ticks, and the clock may have been set since
            same = abs(process.create_time() - self.created) < 2.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


class Child:
    """A process that was started here."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        rotate(spec.log)
        handle = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._log_start = os.fstat(handle).st_size
        try:
            self._popen = subprocess.Popen(
                list(spec.arguments),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                env={**os.environ, **spec.environment},
                cwd=spec.log.parent,
                start_new_session=True,  # Ctrl-C in a terminal is for the client only
            )
        finally:
            os.close(handle)
        self.started = time.monotonic()
        self.identity = Identity.of(self._popen.pid) or Identity(self._popen.pid, 0.0)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """True until the process has ended."""
        return self._popen.poll() is None

    @property
    def exit_text(self) -> str:
        """How it ended, in words."""
        code = self._popen.poll()
        match code:
            case None:
                return "still running"
            case int() if code < 0:
                return f"killed by signal {-code}"
            case _:
                return f"exit status {code}"

    def tail(self) -> str:
        """The last lines that it wrote itself: the log also holds those of processes before it."""
        return tail(self.spec.log, start=self._log_start)

    def terminate(self) -> None:
        """Ask it to end; `wait` decides about the rest."""
        if self.is_running:
            self._popen.terminate()

    def kill(self) -> None:
        """End it at once and collect it."""
        if self.is_running:
            self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """Ask it to end, and kill it after its grace time."""
        self.terminate()
        try:
            self._popen.wait(self.spec.grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()


def stop_all(processes: Sequence[psutil.Process], grace_seconds: float) -> None:
    """End processes that somebody else started: ask, wait, kill. Gone ones are fine."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace_seconds)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_seconds)


def find_by_argument(argument: str, *, within: bool = False) -> list[psutil.Process]:
    """Answer this user's processes that were started with `argument`, or with it `within` an argument."""
    mine, me = os.getuid(), os.getpid()
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == me or process.uids().real != mine:
                continue
            line = process.cmdline()
            if argument in line or (within and any(argument in one for one in line)):
                found.append(process)
    return found


def rotate(log: Path, limit: int = LOG_BYTES) -> None:
    """Move a log that has grown too large aside, keeping the file that a process has open."""
    try:
        if log.stat().st_size <= limit:
            return
        previous = log.with_name(f"{log.name}.1")
        shutil.copyfile(log, previous)
        previous.chmod(0o600)
        os.truncate(log, 0)
    except FileNotFoundError:
        return


def tail(log: Path, lines: int = 12, *, start: int = 0) -> str:
    """Answer the last lines of a log from byte `start` on, or nothing when there is none."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = start if start <= size else 0  # it was cut down in the meantime
            file.seek(max(first, size - 64 * 1024))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
