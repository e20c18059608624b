"""The double in a process of its own, and what tests ask of it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
KEY, SECRET = "AKIADOUBLE", "planted-secret-access-key"
END_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Double:
    """A double that serves."""

    folder: Path
    endpoint: str

    def credentials(self, key: str = KEY, regions: str = "us-east-1") -> dict[str, str]:
        """A Secret's data for an account there."""
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "SKYWARD_AWS_REGIONS": regions,
        }

    def reset(self) -> None:
        """A fresh account that one key may use."""
        self.tell("POST", "reset")
        self.keys()

    def faults(self, *entries: Mapping[str, Any]) -> None:
        """Have this go wrong from now on, and nothing else."""
        self.tell("PUT", "faults", list(entries))

    def keys(self, **permissions: Sequence[str] | None) -> None:
        """The access keys there are."""
        self.tell("PUT", "keys", {KEY: None, **permissions})

    def spot(self, **prices: str) -> None:
        """Move spot prices."""
        self.tell("PUT", "spot", {name.replace("_", "."): price for name, price in prices.items()})

    def interrupt(self, machine_id: str, seconds: float) -> None:
        """Take a spot machine back."""
        wanted = {"instance": machine_id.rpartition("/")[2], "seconds": seconds}
        self.tell("POST", "interrupt", wanted)

    def audit(self) -> dict[str, Any]:
        """What was bought, is left, and costs."""
        found: dict[str, Any] = self.tell("GET", "audit")
        return found

    def calls(self) -> dict[str, int]:
        """How often each action was called."""
        found: dict[str, int] = self.tell("GET", "calls")
        return found

    def tell(self, method: str, what: str, given: Any = None) -> Any:
        """One request of whoever runs the double."""
        url = f"{self.endpoint}/double/{what}"
        answer = httpx.request(method, url, json=given, trust_env=False, timeout=30)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def double(*, on_paper: bool = False) -> Iterator[Double]:
    """A double of one's own; no machine of it is left afterwards."""
    with TemporaryDirectory(prefix="sky-aws-") as folder:
        command = [sys.executable, "-m", "tests.aws_double", "--data", folder]
        command += ["--on-paper"] if on_paper else []
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                made = Double(Path(folder), json.loads(process.stdout.readline())["endpoint"])
                made.keys()
                yield made
            finally:
                process.terminate()
                process.wait(END_SECONDS)
