"""Secrets that were planted wherever a person can put one are found where they belong, and nowhere else.

A whole run with failures on the simulated cloud, with everything logged as much as it can be. Then all that
was written is searched: files, objects, events, logs, the cloud's ledger with its user-data; and, while it
runs, the command lines and environments of all processes.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.cluster.front_door import MINUTES, newcomer
from tests.cluster.sim_process import Cloud, cloud

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.cluster.front_door import Person

pytestmark = pytest.mark.timeout(10 * MINUTES)

SEARCHED_BYTES = 64 * 1024 * 1024
KINDS = "skp,skn,skt,events,configmaps,leases.coordination.k8s.io,serviceaccounts,namespaces,services"

MANIFEST = """
apiVersion: v1
kind: Secret
metadata: {{name: cloud}}
stringData: {{endpoint: "{endpoint}", key: "{key}", profile: user-data}}
---
apiVersion: v1
kind: Secret
metadata: {{name: wrong}}
stringData: {{endpoint: "{endpoint}", key: "{wrong}"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: volume}}
stringData: {{accessKeyId: AKIAPLANTED, secretAccessKey: "{volume}"}}
---
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {{name: good}}
spec:
  candidates: [{{name: c, provider: sim, credentialsRef: {{name: cloud}}, market: on-demand}}]
  image: {{env: [{{name: PLANTED, value: "{image}"}}]}}
  volumes:
    - {{mountPath: /data, bucket: b, endpoint: "https://s3.example.org", credentialsRef: {{name: volume}}}}
---
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {{name: stranger}}
spec:
  candidates: [{{name: c, provider: sim, credentialsRef: {{name: wrong}}}}]
---
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {{name: broken}}
spec:
  candidates: [{{name: c, provider: sim, credentialsRef: {{name: cloud}}, market: on-demand}}]
  image: {{pip: ["no-such-package-anywhere-4711"], env: [{{name: PLANTED, value: "{image}"}}]}}
"""

PROGRAM = """
import logging, os, sys
from pathlib import Path
logging.basicConfig(level=logging.DEBUG)
import skyward as sky

@sky.function
def uses(secret, name):
    assert len(secret) == 32 and len(os.environ["PLANTED"]) == 32
    print("it was used")
    if name == "fails":
        raise ValueError("on purpose")
    return name

secret, image, out = Path(sys.argv[1]).read_text().split() + [sys.argv[2]]
options = sky.Options(console="log")
with sky.Compute(provider=sky.Local(), image=sky.Image(env={"PLANTED": image}), options=options) as pool:
    assert uses(secret, "well") >> pool == "well"
    try:
        uses(secret, "fails") >> pool
    except ValueError:
        pass
    from skyward.cluster import tickets
    Path(out).write_text(max(tickets._folder().iterdir(), key=lambda file: file.stat().st_mtime).read_text())
"""


@dataclass
class Planted:
    """Secrets by their names, and where each was found in the command lines and environments of processes."""

    words: dict[str, str] = field(default_factory=dict)
    seen: set[tuple[str, str, str]] = field(default_factory=set)

    def plant(self, *names: str) -> None:
        """Make secrets up."""
        self.words |= {name: secrets.token_hex(16) for name in names}

    def within(self, data: bytes) -> list[str]:
        """The names of those that are in there, as they are or in base64."""
        return [
            name
            for name, word in self.words.items()
            if word.encode() in data or base64.b64encode(word.encode()).rstrip(b"=") in data
        ]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at all processes again and again meanwhile."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.2):
                for process in psutil.process_iter():
                    self._look_at(process.pid)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look_at(self, pid: int) -> None:
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            inside = Path(f"/proc/{pid}/environ").read_bytes()
            command = line.replace(b"\0", b" ").decode(errors="replace")[:300]
            machine = "a machine's " if b"SKYWARD_VM=" in inside else ""
            self.seen |= {(name, f"{machine}command line", command) for name in self.within(line)}
            self.seen |= {(name, f"{machine}environment", command) for name in self.within(inside)}

    def files(self, *folders: Path) -> set[tuple[str, str]]:
        """The files below these folders that hold one, each with its name."""
        found = set()
        for folder in folders:
            for path in folder.rglob("*"):
                with suppress(OSError):
                    if path.is_file() and not path.is_symlink() and path.stat().st_size < SEARCHED_BYTES:
                        found |= {(name, str(path)) for name in self.within(path.read_bytes())}
        return found


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Person, Cloud, Planted]]:
    """Somebody with secrets in the environment, and a cloud."""
    planted = Planted()
    planted.plant("aws key", "function argument", "image variable", "volume key", "wrong key")
    with cloud({"faults": [{"at": "create", "effect": "lose-answer", "times": 1}]}) as sky:
        planted.words |= {"provider key": sky.key("user-data"), "operator's key": sky.key()}
        settings = {
            "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
            "AWS_SECRET_ACCESS_KEY": planted.words["aws key"],
            "SKYWARD_SIM_ENDPOINT": sky.endpoint,
            "SKYWARD_SIM_KEY": planted.words["operator's key"],
            "SKYWARD_LOG_LEVEL": "debug",
        }
        with newcomer(**settings) as somebody:
            yield somebody, sky, planted


def run_everything(person: Person, sky: Cloud, planted: Planted, beside: Path) -> str:
    """Pools that work, that are refused and that cannot be installed; returns all that was shown."""
    up = person.run("skyward", "local", "up")
    assert up.returncode == 0, up.stdout + up.stderr
    shown = up.stdout + up.stderr
    manifest, words = beside / "pools.yaml", planted.words
    manifest.write_text(
        MANIFEST.format(
            endpoint=sky.endpoint,
            key=words["provider key"],
            wrong=words["wrong key"],
            volume=words["volume key"],
            image=words["image variable"],
        )
    )
    person.kubectl("apply", "-f", manifest)
    (beside / "secrets").write_text(f"{words['function argument']} {words['image variable']}")
    (beside / "program.py").write_text(PROGRAM)
    done = person.run(person.python, beside / "program.py", beside / "secrets", beside / "ticket")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it was used" in done.stdout + done.stderr
    person.kubectl("wait", "--for=condition=Ready", "skp/good", "--timeout=180s")
    person.kubectl("wait", "--for=condition=Stalled", "skp/broken", "--timeout=180s")
    person.kubectl("wait", "--for=condition=CredentialsValid=false", "skp/stranger", "--timeout=60s")
    for command in (("status",), ("logs", "good"), ("local", "logs"), ("local", "status")):
        said = person.run("skyward", *command)
        shown += said.stdout + said.stderr
    return shown + done.stdout + done.stderr


def ssh_keys(person: Person) -> dict[str, str]:
    """A line out of the middle of each pool's private key, which no other key has."""
    found = {}
    for secret in json.loads(person.kubectl("get", "secrets", "-A", "-o", "json"))["items"]:
        if secret["type"] == "kubernetes.io/ssh-auth":
            private = base64.b64decode(secret["data"]["ssh-privatekey"]).decode()
            found[f"ssh key of {secret['metadata']['name']}"] = private.splitlines()[3]
    assert found
    return found


def without_image_variables(document: Any) -> Any:
    """An object without the one place where a variable's value has to be."""
    if isinstance(document, dict):
        return {
            key: without_image_variables(value)
            for key, value in document.items()
            if key != "env" and key != "kubectl.kubernetes.io/last-applied-configuration"
        }
    return [without_image_variables(each) for each in document] if isinstance(document, list) else document


def token_of(person: Person) -> str:
    """The administrator's token in the kubeconfig."""
    path = Path(person.run("skyward", "local", "kubeconfig", "--path").stdout.strip())
    found = re.search(r'token"?: *"?([A-Za-z0-9_-]{20,})', path.read_text())
    assert found is not None
    return found[1]


MAY_HOLD: Mapping[str, tuple[str, ...]] = {
    "kubeconfig token": ("/pki/", "kubeconfig"),
    "image variable": ("/etcd/", ".skyward/variables", ".skyward/inbox/"),
    "provider key": ("/etcd/", "accounts.json"),
    "operator's key": ("accounts.json",),
    "volume key": ("/etcd/",),
    "wrong key": ("/etcd/",),
    "ssh key": ("/etcd/",),
    "ticket": ("/tickets/",),
    "function argument": ("/etcd/", "/payloads/", "/blobs/"),
}
"""Files that are there to keep a secret, by parts of their paths. All are for their owner alone."""

MAY_BE_IN = (
    ("aws key", "environment"),
    ("operator's key", "environment"),
    ("image variable", "a machine's environment"),
)
"""Processes: a person's own variables are in what that person starts, those of the image in what runs on
it."""


def test_what_was_planted_is_where_it_belongs_and_nowhere_else(
    place: tuple[Person, Cloud, Planted], tmp_path: Path
) -> None:
    person, sky, planted = place
    with planted.watched():
        shown = run_everything(person, sky, planted, tmp_path)
        planted.words["kubeconfig token"] = token_of(person)
        planted.words["ticket"] = (tmp_path / "ticket").read_text()
        planted.words |= ssh_keys(person)
        for command in ("status", "logs good", "local logs"):
            person.run("skyward", *command.split())
    assert planted.within(b"".join(word.encode() + b" " for word in planted.words.values()))
    objects = json.loads(person.kubectl("get", KINDS, "-A", "-o", "json"))
    assert {each["kind"] for each in objects["items"]} >= {"ComputePool", "ComputeNode", "Task", "Event"}
    assert planted.within(json.dumps(without_image_variables(objects)).encode()) == []
    assert planted.within(shown.encode()) == []
    assert "DEBUG" in person.run("skyward", "local", "logs").stdout
    misplaced = {
        (name, path)
        for name, path in planted.files(person.home, person.folder, sky.folder)
        if not any(part in path for part in MAY_HOLD.get(kind(name), ()))
    }
    assert misplaced == set()
    told = {each for each in planted.seen if each[:2] not in MAY_BE_IN}
    assert told == set()


def kind(name: str) -> str:
    """What a secret is, where there are several of it."""
    return "ssh key" if name.startswith("ssh key") else name
