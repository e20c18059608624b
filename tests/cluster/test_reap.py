"""`skyward reap` as an administrator uses it: machines without a node are shown, and ended when asked."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, Person, until
from tests.cluster.sim_process import Cloud, cloud, customer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(10 * MINUTES)

NODES = 4
POOL = f"""
apiVersion: skyward.dev/v1alpha1
kind: ComputePool
metadata: {{name: torn}}
spec:
  candidates: [{{name: cloud, provider: sim, market: on-demand}}]
  nodes: {{desired: {NODES}}}
"""


@pytest.fixture(scope="module")
def sky() -> Iterator[Cloud]:
    """One cloud for the module."""
    with cloud() as made:
        yield made


@pytest.fixture(scope="module")
def person(sky: Cloud) -> Iterator[Person]:
    """Somebody whose operator looks through its accounts once an hour, unless it is asked to."""
    with customer(sky, SKYWARD_SWEEP_SECONDS="3600", SKYWARD_SWEEP_MARGIN_SECONDS="1") as somebody:
        yield somebody


def until_reaped(person: Person, state: str, *words: str) -> int:
    """Ask until all machines without a node are in a state; the exit status of that answer."""
    deadline = time.monotonic() + 3 * MINUTES
    while True:
        done = person.run("skyward", "reap", "-o", "json", *words)
        assert done.returncode in (0, 3), done.stderr
        (account,) = json.loads(done.stdout)["accounts"]
        states = {orphan["state"] for orphan in account["orphans"]}
        if states == {state}:
            return done.returncode
        assert time.monotonic() < deadline, done.stdout
        time.sleep(0.5)


def test_before_anything_was_bought_there_is_nothing_to_reap(person: Person) -> None:
    done = person.run("skyward", "reap")
    assert (done.returncode, done.stdout) == (0, "nothing was ever bought through this control plane\n")


def test_machines_without_a_node_are_shown_and_ended_when_a_person_says_how_many(
    person: Person, sky: Cloud
) -> None:
    manifest = person.folder / "torn.yaml"
    manifest.write_text(POOL)
    person.kubectl("apply", "-f", manifest)
    person.kubectl("wait", "--for=condition=Ready", "skp/torn", "--timeout=180s")
    clean = person.run("skyward", "reap", "--dry-run")
    assert (clean.returncode, clean.stdout) == (0, f"✔ sim: {NODES} machines, 0 without a node\n")
    # Somebody tears the nodes out by hand, finalizers and all; the pool makes others.
    torn = set(sky.audit()[1]["alive"])
    assert len(torn) == NODES
    for name in person.kubectl("get", "skn", "-o", "name").split():
        person.kubectl("patch", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        person.kubectl("delete", name, "--wait=false")

    assert until_reaped(person, "blocked") == 3
    shown = person.run("skyward", "reap", "--dry-run")
    assert shown.returncode == 3
    assert all(machine in shown.stdout for machine in torn)
    assert "its node does not exist" in shown.stdout
    assert f"skyward reap --end {NODES}" in shown.stdout
    assert torn <= set(sky.audit()[1]["alive"])

    done = person.run("skyward", "reap", "--end", str(NODES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is ended") == NODES
    until(lambda: not torn & set(sky.audit()[1]["alive"]), MINUTES)
    assert len(sky.audit()[1]["alive"]) == NODES  # those that the pool made since
    assert person.run("skyward", "reap", "--provider", "aws").stdout.startswith("nothing was ever bought")


def test_without_an_operator_it_says_so_and_ends_nothing(person: Person) -> None:
    person.run("skyward", "local", "down", "--force")
    done = person.run("skyward", "reap")
    assert done.returncode == 1
    assert "skyward local up" in done.stderr
