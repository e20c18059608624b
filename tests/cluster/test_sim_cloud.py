"""A pool on the simulated cloud, from a person's program to the ledger: what runs, and what is left."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, ROOT, Person, until
from tests.cluster.sim_process import Cloud, cloud, customer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(10 * MINUTES)

SECRET = """
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData: {{endpoint: "{endpoint}", key: "{key}", profile: "{profile}"}}
"""
POOL = """
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {{name: {name}}}
spec:
  candidates:
    - {{name: cloud, provider: sim, credentialsRef: {{name: {name}}}, regions: [sim-west], market: on-demand}}
  nodes: {{desired: 1}}
"""


LEASED = """
import sys, time, pathlib
import skyward as sky

options = sky.Options(console="log", lease_timeout=30)
with sky.Compute(provider=sky.Sim(region="sim-east"), nodes=1, name=sys.argv[1], options=options):
    print("working", flush=True)
    while not pathlib.Path("enough").exists():
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def sky() -> Iterator[Cloud]:
    """One cloud for the module."""
    with cloud() as made:
        yield made


@pytest.fixture(scope="module")
def person(sky: Cloud) -> Iterator[Person]:
    """Somebody whose operator has an account at that cloud by its environment."""
    with customer(sky, SKYWARD_SWEEP_SECONDS="1", SKYWARD_SWEEP_MARGIN_SECONDS="1") as somebody:
        yield somebody


def test_the_digits_example_runs_on_the_cloud_and_its_ledger_shows_nothing_left(
    person: Person, sky: Cloud
) -> None:
    """A map and a broadcast, with packages installed on machines that were bought and given back."""
    example = (ROOT / "examples" / "digits.py").read_text()
    assert "sky.Local()" in example
    (person.folder / "digits.py").write_text(example.replace("sky.Local()", "sky.Sim(region='sim-east')"))
    done = person.run(person.python, person.folder / "digits.py", timeout=8 * MINUTES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"shards merged\D+0\.9\d+", done.stdout)
    assert re.search(r"14 calls · 2 nodes · .* · nothing left running", done.stdout + done.stderr)
    status, audit = sky.audit()
    assert status == 0, audit
    assert audit["bought"] == 2
    assert audit["causes"] == {"terminated by its account": 2}
    assert float(audit["amount"]) > 0


@pytest.mark.parametrize("profile", ["full", "bare"])
def test_a_pool_in_yaml_buys_with_a_secret_and_gives_all_back(
    person: Person, sky: Cloud, profile: str
) -> None:
    """One account of each profile, by a Secret of the pool's namespace."""
    name, account = f"by-secret-{profile}", {"full": "default", "bare": "bare"}[profile]
    words = {"name": name, "endpoint": sky.endpoint, "key": sky.key(account), "profile": profile}
    manifest = person.folder / f"{name}.yaml"
    manifest.write_text(SECRET.format(**words) + "---" + POOL.format(**words))
    before = sky.audit()[1]["bought"]
    person.kubectl("apply", "-f", manifest)
    person.kubectl("wait", "--for=condition=Ready", f"skp/{name}", "--timeout=120s")
    node = json.loads(person.kubectl("get", "skn", "-o", "json"))["items"][0]
    assert node["status"]["providerId"].startswith("sim-")
    assert node["status"]["launch"]["offer"]["region"] == "sim-west"
    assert sky.audit()[1]["side"]
    person.kubectl("delete", "skp", name)
    status, audit = sky.audit()
    assert status == 0, audit
    assert audit["bought"] == before + 1


def test_a_wrong_key_is_told_and_buys_nothing(person: Person, sky: Cloud) -> None:
    """The pool says which credentials are refused; the key itself is nowhere."""
    words = {"name": "stranger", "endpoint": sky.endpoint, "key": "planted-wrong-key", "profile": "full"}
    manifest = person.folder / "stranger.yaml"
    manifest.write_text(SECRET.format(**words) + "---" + POOL.format(**words))
    before = sky.audit()[1]["bought"]
    person.kubectl("apply", "-f", manifest)
    waiting = "--for=condition=CredentialsValid=false"
    person.kubectl("wait", waiting, "skp/stranger", "--timeout=60s")
    shown = person.kubectl("get", "skp,skn", "-o", "yaml")
    assert "InvalidCredentials" in shown
    assert "planted-wrong-key" not in shown
    person.kubectl("delete", "skp", "stranger")
    assert sky.audit()[1]["bought"] == before


def test_a_machine_whose_node_lost_its_finalizer_is_found_and_ended(person: Person, sky: Cloud) -> None:
    """Somebody removes the finalizer and the node: the operator may read and write what the sweep needs."""
    words = {"name": "torn", "endpoint": sky.endpoint, "key": sky.key("bare"), "profile": "bare"}
    manifest = person.folder / "torn.yaml"
    manifest.write_text(SECRET.format(**words) + "---" + POOL.format(**words))
    person.kubectl("apply", "-f", manifest)
    person.kubectl("wait", "--for=condition=Ready", "skp/torn", "--timeout=120s")
    node = json.loads(person.kubectl("get", "skn", "-o", "json"))["items"][0]
    name, machine = node["metadata"]["name"], node["status"]["providerId"]
    person.kubectl("patch", "skn", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    person.kubectl("delete", "skn", name)
    telling = "{.items[?(@.reason=='OrphanEnded')].message}"
    events = ("get", "events", "-n", "skyward-system", "-o", f"jsonpath={telling}")
    until(lambda: machine in person.kubectl(*events))
    until(lambda: machine not in sky.audit()[1]["alive"])
    person.kubectl("delete", "skp", "torn")
    status, audit = sky.audit()
    assert status == 0, audit


def test_a_program_that_is_killed_loses_its_pool_and_machines_whatever_becomes_of_the_operator(
    person: Person, sky: Cloud
) -> None:
    """SIGKILL inside of its `with`; the operator is killed as well. Another program goes on."""
    before = sky.audit()[1]["bought"]
    with person.starts(LEASED, "lives") as lives, person.starts(LEASED, "dies") as dies:
        lives.until("working")
        dies.until("working")
        dies.process.kill()
        person.kill("skyward_operator run")
        up = person.run("skyward", "local", "up")
        assert up.returncode == 0, up.stdout + up.stderr
        assert "dies" in person.kubectl("get", "skp")
        until(lambda: "dies" not in person.kubectl("get", "skp,skn"), 180)
        assert "Ready" in person.kubectl("get", "skp", "lives")
        telling = "{.items[?(@.reason=='LeaseExpired')].involvedObject.name}"
        assert person.kubectl("get", "events", "-o", f"jsonpath={telling}") == "dies"
        (person.folder / "enough").touch()
        assert "nothing left running" in lives.end()
    status, audit = sky.audit()
    assert status == 0, audit
    assert audit["bought"] == before + 2
