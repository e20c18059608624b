"""A simulated cloud in a process of its own, as `simcloud up` starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.cluster.front_door import newcomer

from simcloud.ledger import read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.cluster.front_door import Person


@dataclass(frozen=True, slots=True)
class Cloud:
    """A simulated cloud in a process of its own."""

    folder: Path
    endpoint: str

    def key(self, account: str = "default") -> str:
        """The API key of an account."""
        accounts = json.loads((self.folder / "accounts.json").read_text())
        return str(next(each["key"] for each in accounts if each["name"] == account))

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the ledger says of one kind."""
        return [event for event in read(self.folder / "ledger.jsonl") if event["kind"] == kind]

    def audit(self) -> tuple[int, dict[str, Any]]:
        """What `simcloud audit` says: its exit status, and what was bought and is left."""
        command = [sys.executable, "-m", "simcloud", "audit", "--data", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)


@contextmanager
def cloud(scenario: Mapping[str, Any] | None = None) -> Iterator[Cloud]:
    """A cloud that serves; whatever is left of it is ended with it."""
    with TemporaryDirectory(prefix="sky-sim-") as folder:
        script = Path(folder) / "scenario.json"
        script.write_text(json.dumps(scenario or {}))
        command = [sys.executable, "-m", "simcloud", "up", "--data", folder, "--scenario", str(script)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                where = json.loads(process.stdout.readline())
                yield Cloud(Path(folder), where["endpoint"])
            finally:
                process.terminate()
                process.wait()
                clear = [sys.executable, "-m", "simcloud", "clear", "--data", folder]
                subprocess.run(clear, capture_output=True, check=True)


@contextmanager
def customer(seller: Cloud, **settings: str) -> Iterator[Person]:
    """Somebody with a control plane, whose operator has an account at that cloud by its environment."""
    account = {"SKYWARD_SIM_ENDPOINT": seller.endpoint, "SKYWARD_SIM_KEY": seller.key()}
    with newcomer(**account, **settings) as person:
        up = person.run("skyward", "local", "up")
        assert up.returncode == 0, up.stdout + up.stderr
        yield person
