"""The thread executor: calls beside each other in one process, told apart and stopped one by one."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fake.agent_process import AgentProcess, Operator, running_agent

from skyward.wire.frames import FrameKind


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=4, executor="thread") as agent:
        yield agent


@pytest.fixture
def operator(agent: AgentProcess) -> Iterator[Operator]:
    operator = agent.connect()
    yield operator
    operator.close()


def spin() -> None:
    print("spinning")
    while True:
        time.sleep(0.01)


def stuck() -> None:
    print("stuck")
    time.sleep(1000)


def meet(folder: str, name: str, others: int) -> int:
    """Return once `others` calls run at the same time."""
    (Path(folder) / name).touch()
    while len(os.listdir(folder)) < others:
        time.sleep(0.01)
    print(f"met {name}")
    return os.getpid()


def test_calls_run_beside_each_other_in_one_process(operator: Operator, tmp_path: Path) -> None:
    for i in range(4):
        operator.call(f"meet.{i}.1", meet, str(tmp_path), str(i), 4)
    assert len({operator.result(f"meet.{i}.1").value for i in range(4)}) == 1
    for i in range(4):
        assert operator.logs[f"meet.{i}.1"] == f"met {i}\n".encode()


def test_one_call_is_cancelled_and_the_others_go_on(operator: Operator) -> None:
    operator.call("spin.0.1", spin)
    operator.call("spin.1.1", spin)
    operator.output("spin.0.1", "spinning")
    operator.output("spin.1.1", "spinning")
    operator.send(FrameKind.CANCEL, {"attempt": "spin.0.1", "grace": 20})
    assert operator.result("spin.0.1").error["reason"] == "Cancelled"
    assert operator.ping()["running"] == 1
    operator.send(FrameKind.CANCEL, {"attempt": "spin.1.1", "grace": 20})
    operator.result("spin.1.1")


def test_call_that_cannot_be_interrupted_takes_the_process_with_it(operator: Operator) -> None:
    operator.call("stuck.0.1", stuck)
    operator.call("beside.0.1", spin)
    operator.output("stuck.0.1", "stuck")
    operator.output("beside.0.1", "spinning")
    operator.send(FrameKind.CANCEL, {"attempt": "stuck.0.1", "grace": 0.3})
    assert operator.result("stuck.0.1").error["reason"] == "Cancelled"
    beside = operator.result("beside.0.1").error
    assert (beside["reason"], beside["kind"]) == ("Interrupted", "System")
    assert "another call" in beside["message"]
    assert operator.run("next.0.1", lambda: 1).value == 1


def test_lines_are_not_cut_and_progress_is_shown_at_once(operator: Operator) -> None:
    def progress() -> None:
        print("one", "line", 3)
        print("\rhalf", end="")
        print(" done", end="")

    operator.run("lines.0.1", progress)
    assert operator.logs["lines.0.1"] == b"one line 3\n\rhalf done"


def test_command_output_belongs_to_its_call(operator: Operator) -> None:
    for i in range(3):
        operator.call(f"echo.{i}.1", entry={"argv": ["echo", f"word {i}"]})
    for i in range(3):
        operator.result(f"echo.{i}.1")
        assert operator.logs[f"echo.{i}.1"] == f"word {i}\n".encode()
