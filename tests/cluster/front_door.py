"""What a person has at hand: a folder, an environment of their own, and the commands of the README.

Everything here runs in child processes, so that a test sees what a person would: output and exit status.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 60.0


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a home for Skyward and a working folder."""

    home: Path
    folder: Path
    python: Path = Path(sys.executable)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables that this person has set."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this person's shell: no kubeconfig, and the machine's cache of binaries."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("SKYWARD_", "PYTEST"))}
        mine.pop("KUBECONFIG", None)
        path = f"{self.python.parent}{os.pathsep}{mine.get('PATH', '')}"
        home = {"SKYWARD_HOME": str(self.home), "PATH": path, "PYTHONWARNINGS": "default"}
        return mine | home | dict(self.settings)

    def run(
        self, *command: str | Path, timeout: float = 3 * MINUTES, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its output is text."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment | dict(env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def script(self, source: str, *arguments: str, timeout: float = 3 * MINUTES) -> str:
        """Run a Python script of this person's; returns what it printed. It must succeed."""
        file = self.folder / "script.py"
        file.write_text(source)
        done = self.run(self.python, file, *arguments, timeout=timeout)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def fails(self, source: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run a script that must end with an error; returns what was shown, output first."""
        file = self.folder / "script.py"
        file.write_text(source)
        done = self.run(self.python, file, *arguments, env=env)
        assert done.returncode == 1, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def starts(self, source: str, *arguments: str) -> Iterator[Running]:
        """Run a script in the background; it is killed when nobody wants it any more."""
        file = self.folder / f"script-{os.urandom(4).hex()}.py"
        file.write_text(source)
        with subprocess.Popen(
            [self.python, file, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield Running(process)
            finally:
                process.kill()

    def processes(self, *words: str) -> list[psutil.Process]:
        """This person's processes (their home is in the command line) that have all the words there too."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            if f"{self.home}/" in line and all(word in line for word in words):
                found.append(process)
        return found

    def kill(self, *words: str) -> None:
        """SIGKILL for those processes; they are gone when this returns. There must be one at least."""
        victims = self.processes(*words)
        assert victims, f"nothing runs with {words}"
        for process in victims:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(victims, timeout=MINUTES)

    def kubectl(self, *arguments: str | Path, timeout: float = 3 * MINUTES) -> str:
        """Run kubectl against this person's control plane. It must succeed."""
        done = self._kubectl(*arguments, timeout=timeout)
        assert done.returncode == 0, f"kubectl {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def refused(self, *arguments: str | Path) -> str:
        """Run kubectl with what the API server must not take; returns its words."""
        done = self._kubectl(*arguments)
        assert done.returncode != 0, f"kubectl {arguments}: {done.stdout}"
        return done.stderr

    def _kubectl(
        self, *arguments: str | Path, timeout: float = 3 * MINUTES
    ) -> subprocess.CompletedProcess[str]:
        kubeconfig = self.run("skyward", "local", "kubeconfig", "--path").stdout.strip()
        return self.run(kubectl_binary(), *arguments, timeout=timeout, env={"KUBECONFIG": kubeconfig})


@dataclass(slots=True)
class Running:
    """A program under way, and all that it has shown so far."""

    process: subprocess.Popen[str]
    shown: str = ""

    def until(self, words: str) -> str:
        """Wait for a line with these words, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.shown += line
            if words in line:
                return line
        raise AssertionError(f"it ended without {words!r}:\n{self.shown}")

    def end(self) -> str:
        """Wait for a good end and return everything that was shown."""
        assert self.process.stdout is not None
        self.shown += self.process.stdout.read()
        assert self.process.wait() == 0, self.shown
        return self.shown


@contextmanager
def newcomer(**settings: str) -> Iterator[Person]:
    """Somebody who has just installed Skyward; whatever they have started ends with them."""
    folder = Path(tempfile.mkdtemp(prefix="sky-"))
    somebody = Person(folder / "home", folder / "work", settings=settings)
    somebody.folder.mkdir()
    try:
        yield somebody
        down = somebody.run("skyward", "local", "down", "--force")
        assert down.returncode == 0, down.stdout + down.stderr
    finally:
        for process in somebody.processes():
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def report(file: Path) -> dict[str, Any]:
    """What a program has written down."""
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def kubectl_binary() -> Path:
    """The kubectl that was built beside the API server."""
    from skyward.local.binaries import ensure_binaries

    kubectl = ensure_binaries(lambda _: None).kubectl
    assert kubectl is not None, "no kubectl beside the API server"
    return kubectl


def blocks(document: Path, language: str) -> Sequence[str]:
    """The fenced blocks of one language in a document, as they are written."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def until(look: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something shows."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"not seen within {seconds} s"
        time.sleep(0.1)
