"""What a person has at hand: a folder, an environment of their own, and the commands of the README.

Everything here runs in child processes, so that a test sees what a person would: output and exit status.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 60.0


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a home for Skyward and a working folder."""

    home: Path
    folder: Path
    python: Path = Path(sys.executable)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of this person's shell: no kubeconfig, and the machine's cache of binaries."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("SKYWARD_", "PYTEST"))}
        mine.pop("KUBECONFIG", None)
        path = f"{self.python.parent}{os.pathsep}{mine.get('PATH', '')}"
        return mine | {"SKYWARD_HOME": str(self.home), "PATH": path, "PYTHONWARNINGS": "default"}

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

    def kubectl(self, *arguments: str | Path, timeout: float = 3 * MINUTES) -> str:
        """Run kubectl against this person's control plane. It must succeed."""
        kubeconfig = self.run("skyward", "local", "kubeconfig", "--path").stdout.strip()
        done = self.run(kubectl_binary(), *arguments, timeout=timeout, env={"KUBECONFIG": kubeconfig})
        assert done.returncode == 0, f"kubectl {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout


def kubectl_binary() -> Path:
    """The kubectl that was built beside the API server."""
    from skyward.local.binaries import ensure_binaries

    kubectl = ensure_binaries(lambda _: None).kubectl
    assert kubectl is not None, "no kubectl beside the API server"
    return kubectl


def blocks(document: Path, language: str) -> Sequence[str]:
    """The fenced blocks of one language in a document, as they are written."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
