"""Each part on the way of a stream is killed or cut: no item is missing or doubled, or its reader is told."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.chaos.scene import Plane, Program, eventually, own_plane, programs

from skyward.contract.names import TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).with_name("items_program.py")


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    """A control plane with an operator, for all tests of this module."""
    with own_plane() as subject:
        yield subject


@pytest.fixture
def run(plane: Plane) -> Iterator[Callable[..., Program]]:
    """Starts the program; it ends with the test, and so does its pool."""
    plane.up()

    def make(calls: int = 60, seconds: float = 0.05, cuts: int = 0) -> Program:
        return Program(plane, calls, seconds, cuts, script=SCRIPT)

    with programs(make) as start:
        yield start
    assert not plane.left()


def breaks_off(program: Program) -> dict[str, Any]:
    """The program's answer: the items before the break, each once, and why there are no more."""
    assert program.end() == 0, program.output()
    answer: dict[str, Any] = json.loads(program.output().splitlines()[-1])
    found = answer["squares"]
    assert found == [index**2 for index in range(len(found))]
    assert len(found) < program.calls
    assert max(program.runs().values()) == 1
    return answer


def test_operator(plane: Plane, run: Callable[..., Program]) -> None:
    """Both ends say again to the next one what was on its way."""
    program = run().reaches(10)
    victim = plane.kill("operator")
    plane.comes_back("operator", victim)
    program.comes_right(repeated=0)
    assert program.task()["status"]["phase"] == "Succeeded"


def test_connection_is_cut_again_and_again(run: Callable[..., Program]) -> None:
    """Nothing is lost and nothing comes twice."""
    program = run(calls=2000, seconds=0.001, cuts=5)
    program.comes_right(repeated=0)


def test_agent(plane: Plane, run: Callable[..., Program]) -> None:
    """The generator is gone with it, and is not begun again: its reader is told."""
    program = run(calls=1000).reaches(10)
    for agent in plane.inside("skyward.agent"):
        os.kill(agent.pid, signal.SIGKILL)
    answer = breaks_off(program)
    assert answer["error"].startswith("NodeLost")
    assert "not tried again" in answer["error"]


def test_worker(plane: Plane, run: Callable[..., Program]) -> None:
    """What it had said before is read, and then its death."""
    program = run(calls=1000).reaches(10)
    os.kill(int(program.ledger.read_text().split()[-1]), signal.SIGKILL)
    assert breaks_off(program)["error"].startswith("WorkerDied")


def test_operator_and_agent_together(plane: Plane, run: Callable[..., Program]) -> None:
    """The next operator has never seen an item of it, and does not begin it again either."""
    program = run(calls=1000).reaches(10)
    victim = plane.kill("operator")
    for agent in plane.inside("skyward.agent"):
        os.kill(agent.pid, signal.SIGKILL)
    plane.comes_back("operator", victim)
    assert breaks_off(program)["error"].startswith("NodeLost")


def test_client(plane: Plane, run: Callable[..., Program]) -> None:
    """Its generator is stopped with its pool; nothing is left."""
    program = run(calls=1000).reaches(10)
    program.send(signal.SIGKILL)
    program.end()
    assert plane.person.run("skyward", "down", program.pool).returncode == 0
    eventually(
        lambda: all((task.get("status") or {}).get("completionTime") for task in plane.objects(TASK)),
        "every task has ended",
    )
