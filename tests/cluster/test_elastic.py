"""An elastic pool through the front door: it begins with the first call, grows, shrinks, obeys kubectl."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.front_door import Person

pytestmark = pytest.mark.timeout(10 * MINUTES)

PROGRAM = """
import pathlib
import time

import skyward as sky

FOLDER = pathlib.Path.cwd()


@sky.function
def hold(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.05)
    return sky.instance_info().rank


def until(nodes):
    while pool.current_nodes() != nodes:
        time.sleep(0.05)
    print(f"now {nodes} nodes", flush=True)


options = sky.Options(autoscale_idle_timeout=2, console="log")
with sky.Compute(provider=sky.Local(), nodes=(0, 3), name="elastic", options=options) as pool:
    print(f"begins with {pool.current_nodes()}", flush=True)
    print(f"first on rank {hold(str(FOLDER)) >> pool}", flush=True)
    futures = [hold(str(FOLDER / "go")) > pool for _ in range(6)]
    until(3)
    (FOLDER / "go").touch()
    print(f"ranks {sorted({future.result() for future in futures})}", flush=True)
    until(0)
    until(2)  # kubectl scale
    until(0)  # suspend
    until(1)  # resume, and scale again
    futures = [hold(str(FOLDER / "last")) > pool for _ in range(2)]
    until(2)
    pool.resize(1)  # no max: it is not elastic any more, and a node with a call goes with its call
    until(1)
    (FOLDER / "last").touch()
    print(f"{len([future.result() for future in futures])} results", flush=True)
"""


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody who has just installed Skyward."""
    with newcomer() as somebody:
        yield somebody


def test_an_elastic_pool_follows_its_calls_and_whoever_scales_it(person: Person) -> None:
    """Each decision is told where people look: console, status, events, `skyward pools`."""
    with person.starts(PROGRAM) as program:
        assert program.until("begins with") == "begins with 0\n"
        assert program.until("first on rank") == "first on rank 0\n"
        program.until("now 3 nodes")
        assert program.until("ranks") == "ranks [0, 1, 2]\n"
        program.until("now 0 nodes")
        idle = "fewer were enough for 2 s; spec.nodes.desired is 0"
        person.kubectl("wait", "skp/elastic", "--for=jsonpath={.status.reason}=AwaitingTasks")
        assert status(person)["scaling"]["message"].endswith(idle)
        assert "AwaitingTasks" in person.run("skyward", "pools").stdout

        person.kubectl("scale", "skp/elastic", "--replicas=2")
        program.until("now 2 nodes")
        refused = person.refused("scale", "skp/elastic", "--replicas=5")
        assert "desired is 5 but max is 3: desired must be at most max; raise max first" in refused
        person.kubectl("patch", "skp/elastic", "--type=merge", "-p", '{"spec": {"suspend": true}}')
        program.until("now 0 nodes")
        person.kubectl("scale", "skp/elastic", "--replicas=1")
        person.kubectl("patch", "skp/elastic", "--type=merge", "-p", '{"spec": {"suspend": false}}')
        program.until("now 1 nodes")
        program.until("now 2 nodes")
        program.until("now 1 nodes")
        assert program.until("results") == "2 results\n"
        shown = program.end()

    assert "ready: nodes start with the first call" in shown
    told = [line.partition(" scales ")[2] for line in shown.splitlines() if " scales " in line]
    assert told[0] == "from 0 to 1 node: 1 call could use 1"
    assert "from 1 to 3 nodes: 6 calls could use 6; spec.nodes.max is 3" in told
    assert "from 0 to 2 nodes: spec.nodes.desired is 2" in told
    assert "from 2 to 0 nodes: spec.suspend is true" in told
    while not set(told) <= scaling_events(person):  # they are written in the background
        time.sleep(0.2)
    assert "nothing left running" in shown.splitlines()[-1]


def status(person: Person) -> dict[str, dict[str, str]]:
    """The pool's own words."""
    found: dict[str, dict[str, str]] = json.loads(person.kubectl("get", "skp/elastic", "-o", "json"))[
        "status"
    ]
    return found


def scaling_events(person: Person) -> set[str]:
    """What `kubectl describe` shows of the pool's decisions."""
    events = json.loads(person.kubectl("get", "events", "-o", "json"))["items"]
    return {each["message"] for each in events if each["reason"] in ("ScalingUp", "ScalingDown")}
