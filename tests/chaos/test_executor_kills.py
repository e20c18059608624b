"""Each part on an executor's way is killed or cut: every outcome arrives, no call runs twice in silence."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.chaos.scene import Plane, Program, eventually, own_plane, programs

from skyward.contract.names import TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).with_name("executor_program.py")


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    """A control plane with an operator, for all tests of this module."""
    with own_plane() as subject:
        yield subject


@pytest.fixture
def run(plane: Plane) -> Iterator[Callable[..., Program]]:
    """Starts the program; it ends with the test, and so does its pool."""
    plane.up()

    def make(calls: int = 40, seconds: float = 0.1, cuts: int = 0) -> Program:
        return Program(plane, calls, seconds, cuts, script=SCRIPT)

    with programs(make) as start:
        yield start
    assert not plane.left()


def counts(program: Program) -> dict[str, int]:
    """What the Task of the executor says of its calls in the end."""
    task = program.task()
    assert task["spec"]["calls"]["open"] is True
    found: dict[str, int] = task["status"]["counts"]
    return found


def test_operator(plane: Plane, run: Callable[..., Program]) -> None:
    """The client comes back to the next one; calls on nodes go on, and all are counted."""
    program = run().reaches(8)
    victim = plane.kill("operator")
    plane.comes_back("operator", victim)
    program.comes_right(repeated=0)
    assert counts(program) == {"total": 40, "running": 0, "succeeded": 40, "failed": 0}
    print(f"the longest time in which no call began: {program.gap():.1f} s")


def test_connection_is_cut_again_and_again(run: Callable[..., Program]) -> None:
    """Nothing is lost and nothing runs twice."""
    program = run(calls=80, cuts=5)
    program.comes_right(repeated=0)
    assert counts(program)["succeeded"] == 80


def test_agent(plane: Plane, run: Callable[..., Program]) -> None:
    """The call that it ran is repeated, and the Task says so."""
    program = run().reaches(8)
    agents = plane.inside("skyward.agent")
    os.kill(min(process.pid for process in agents), signal.SIGKILL)
    # a call that waited on the node behind the running one may be repeated as well, without having begun
    program.comes_right(repeated=1)
    assert program.task()["status"]["attempts"]["interrupted"] >= 1


def test_client(plane: Plane, run: Callable[..., Program]) -> None:
    """Its calls are stopped with its pool; nothing is left."""
    program = run(calls=200).reaches(4)
    program.send(signal.SIGKILL)
    program.end()
    assert plane.person.run("skyward", "down", program.pool).returncode == 0
    eventually(
        lambda: all((task.get("status") or {}).get("completionTime") for task in plane.objects(TASK)),
        "every task has ended",
    )
