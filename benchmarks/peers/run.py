"""Runs a peer's program in an environment of its own, or says why that cannot be had.

Environments are made by uv from each peer's `pyproject.toml`, with the Python that runs this, in the user's
cache folder: the next run finds them. Whatever a peer leaves running is ended by process id; its processes
are known by a mark in their environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs
import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
MARK: Final = "SKYWARD_BENCHMARK_PEER"
INSTALL_SECONDS: Final = 300
RUN_SECONDS: Final = 150
TITLES: Final = {
    "processes": "ProcessPoolExecutor",
    "ray": "Ray",
    "dask": "Dask",
    "upstream": "Skyward 0.12.1",
}
LEFT_OUT: Final = {
    "upstream": "on one computer it has its Container provider only, which needs a container runtime; "
    "its nodes turn off the machine that they are on, so that it is not run without one",
}
"""Peers that are compared with where somebody measured them elsewhere, and why they are not run here."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What a peer did, by the names of `workload`; or why it is not there."""

    name: str
    figures: Mapping[str, float] = field(default_factory=dict)
    skipped: str = ""

    @property
    def title(self) -> str:
        """What people call it."""
        return TITLES[self.name]


class Unavailable(Exception):
    """The peer cannot be had or did not work here; the message says why."""


def measure(name: str, *, quick: bool = False) -> Peer:
    """A peer's figures; never raises for what is the peer's own matter."""
    if name in LEFT_OUT:
        return Peer(name, skipped=LEFT_OUT[name])
    folder = Path(__file__).with_name(name)
    try:
        return Peer(name, _figures(_python(folder), folder / "measure.py", quick))
    except Unavailable as reason:
        return Peer(name, skipped=str(reason))


def _python(folder: Path) -> str:
    """The interpreter of the peer's environment, made where it is not there yet."""
    project = folder / "pyproject.toml"
    key = hashlib.sha256(project.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = platformdirs.user_cache_path("skyward") / "benchmarks" / f"{folder.name}-{key}"
    python = place / "bin" / "python"
    done = place / "installed"
    if not done.exists():
        uv = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".tools" / "bin"))
        if uv is None:
            raise Unavailable("uv is neither on the PATH nor in .tools/bin: run it with `make bench`")
        shutil.rmtree(place, ignore_errors=True)
        _install([uv, "venv", "--quiet", "--python", _base_python(), str(place)])
        _install([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(project)])
        done.touch()
    return str(python)


def _base_python() -> str:
    """The interpreter that our own environment was made from."""
    return str(Path(sys.executable).resolve())


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"its installation took more than {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        raise Unavailable(f"it does not install: {_last(done.stderr)}")


def _figures(python: str, script: Path, quick: bool) -> dict[str, float]:
    mark = secrets.token_hex(8)
    home = Path(python).parents[1] / "home"  # what a peer keeps for its user is not our user's
    home.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home), MARK: mark}
    command = [python, str(script), *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"it was not through within {RUN_SECONDS} s") from None
    finally:
        _end(mark)
    found = [
        line for line in done.stdout.splitlines() if line.startswith("{")
    ]  # beside what a peer says itself
    if done.returncode != 0 or len(found) != 1:
        raise Unavailable(f"it ended with status {done.returncode}: {_last(done.stderr)}")
    figures: dict[str, float] = json.loads(found[0])
    return figures


def _end(mark: str) -> None:
    """End, by process id, whatever carries the mark."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                process.kill()
                left.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(left, timeout=10)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
