"""A health check of a person's own, from their program to a node that is replaced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, Person, newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import pathlib, sys, time
import skyward as sky

place = sys.argv[1]


def well():
    import os, pathlib

    home = os.path.basename(os.environ["HOME"]) + os.path.basename(os.path.dirname(os.environ["HOME"]))
    return not pathlib.Path(f"{place}/sick-{home}").exists()


@sky.function
def work(n):
    import os

    home = os.path.basename(os.environ["HOME"]) + os.path.basename(os.path.dirname(os.environ["HOME"]))
    call = sky.current()
    if n == 0 and call.attempt == 1:
        pathlib.Path(f"{place}/sick-{home}").touch()
        time.sleep(1000)
    return call.attempt


checker = sky.HealthChecker(well, interval=1, timeout=20, consecutive_failures=2)
options = sky.Options(console="log", health_checker=checker)
with sky.Compute(provider=sky.Local(), nodes=2, name="watched", options=options) as pool:
    print("attempts", pool.map(work, range(3)), flush=True)
    while not pathlib.Path(f"{place}/enough").exists():
        time.sleep(0.05)
"""


@pytest.fixture
def person() -> Iterator[Person]:
    """Somebody with a control plane that runs."""
    with newcomer() as somebody:
        up = somebody.run("skyward", "local", "up")
        assert up.returncode == 0, up.stdout + up.stderr
        yield somebody


@pytest.mark.timeout(6 * MINUTES)
def test_a_node_that_fails_the_check_is_replaced_and_its_call_runs_elsewhere(person: Person) -> None:
    """The call hangs on a node that says of itself that it is not well: after half a minute it is moved."""
    with person.starts(PROGRAM, str(person.folder)) as program:
        assert "attempts [2, 1, 1]" in program.until("attempts")
        (task,) = json.loads(person.kubectl("get", "skt", "-o", "json"))["items"]
        attempts = task["status"]["attempts"]
        assert [each["cause"] for each in attempts["recent"]] == ["Unhealthy"]
        assert (attempts["total"], attempts["interrupted"]) == (4, 1)
        person.kubectl("wait", "--for=jsonpath={.status.nodes.ready}=2", "skp/watched", "--timeout=120s")
        events = json.loads(person.kubectl("get", "events", "-o", "json"))["items"]
        told = "\n".join(each["message"] for each in events if each["reason"] == "Unhealthy")
        assert "checker failed 2 times in a row: the health check returned a false value" in told
        (person.folder / "enough").touch()
        assert "nothing left running" in program.end()
