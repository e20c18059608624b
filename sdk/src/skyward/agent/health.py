"""Runs the checks of the node's health, each in its own time and in a process of its own, beside the calls.

A check that fails so often in a row as it says makes the node ill, and one that succeeds makes it well. Only
the change is told: what follows is the operator's, who sees all nodes of the pool.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

_SHOWN = 500
_FUNCTION = "checker"

log = logging.getLogger("skyward.agent")


class Check(Protocol):
    """Something that tells whether the node is well."""

    async def run(self) -> str:
        """Why the node is not well; empty if it is."""

    def kill(self) -> None:
        """End what runs."""


class Health:
    """All checks of the node. `told` hears why the node is ill, or nothing once it is well."""

    def __init__(self, folder: Path, told: Callable[[str], None]) -> None:
        self.digest = ""
        """Of the checks that run now; the operator knows them by it."""
        self.ill = ""
        self._folder = folder
        self._told = told
        self._failing: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, header: dict[str, Any], body: bytes) -> None:
        """Run these checks from now on and no others; the same again changes nothing."""
        digest = str(header["digest"])
        if digest == self.digest:
            return
        checks = [(each, _check(each, body, self._folder)) for each in header["checks"]]
        self.stop()
        self.digest = digest
        self._failing.clear()
        self._decide()
        self._tasks = [asyncio.create_task(self._keep(each, check)) for each, check in checks]

    def stop(self) -> None:
        """Run none."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _keep(self, terms: dict[str, Any], check: Check) -> None:
        name, limit, failed = str(terms["name"]), float(terms["timeout"]), 0
        try:
            await asyncio.sleep(float(terms.get("delay") or 0.0))
            while True:
                began = time.monotonic()
                try:
                    async with asyncio.timeout(limit):
                        why = await check.run()
                except TimeoutError:
                    check.kill()
                    why = f"it did not end within {limit:g} s"
                except OSError as error:
                    why = f"it cannot be run: {error}"
                failed = failed + 1 if why else 0
                if not why:
                    self._failing.pop(name, None)
                elif failed >= int(terms["threshold"]):
                    self._failing.setdefault(name, f"{name} failed {failed} times in a row: {why}")
                self._decide()
                await asyncio.sleep(max(0.0, float(terms["period"]) - (time.monotonic() - began)))
        finally:
            check.kill()

    def _decide(self) -> None:
        ill = next(iter(self._failing.values()), "")
        if ill != self.ill:
            self.ill = ill
            log.warning("the node is %s", ill or "well again")
            self._told(ill)


class Command:
    """A program of the node; its exit status tells."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self._argv = argv
        self._folder = folder
        self._process: Process | None = None

    async def run(self) -> str:
        """One run."""
        self._process = process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, cwd=self._folder, process_group=0
        )
        said = b""
        assert process.stdout is not None  # noqa: S101
        while data := await process.stdout.read(64 * 1024):
            said = (said + data)[-_SHOWN:]
        status = await process.wait()
        if status == 0:
            return ""
        ended = f"exit status {status}" if status > 0 else f"signal {-status}"
        words = " ".join(said.decode(errors="replace").split())
        return f"{ended}: {words}" if words else ended

    def kill(self) -> None:
        """End it with all that it started."""
        _kill(self._process)
        self._process = None


class Function:
    """A pickled function, called in one process again and again; a new one after it hung or died."""

    def __init__(self, pickled: bytes, folder: Path) -> None:
        self._pickled = pickled
        self._folder = folder
        self._process: Process | None = None

    async def run(self) -> str:
        """One call."""
        process = await self._start()
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except ConnectionError:
            line = b""
        if not line:
            self.kill()
            return "its process ended"
        return str(json.loads(line)["why"])

    def kill(self) -> None:
        """End its process."""
        _kill(self._process)
        self._process = None

    async def _start(self) -> Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "skyward.agent.checker"),
                stdin=PIPE,
                stdout=PIPE,
                cwd=self._folder,
                process_group=0,
            )
            assert self._process.stdin is not None  # noqa: S101
            self._process.stdin.write(base64.b64encode(self._pickled) + b"\n")
        return self._process


def _check(terms: dict[str, Any], body: bytes, folder: Path) -> Check:
    """Raises KeyError, TypeError or ValueError for terms that make no sense."""
    for name in ("period", "timeout", "threshold"):
        if not float(terms[name]) > 0:
            raise ValueError(f"{name} of a check is not above 0")
    if terms["name"] == _FUNCTION:
        return Function(body, folder)
    return Command([str(word) for word in terms["argv"]], folder)


def _kill(process: Process | None) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
