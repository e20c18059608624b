"""Starting the agent from a shell: in the background, once, and again."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.fake.agent_process import AgentProcess, Operator, process_exists, running_agent, wait_until


def start(agent: AgentProcess, *options: str) -> tuple[int, dict[str, Any]]:
    command = [*agent.command(), "--detach", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    line: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, line


def test_detached_agent_outlives_its_starter_and_is_found_again(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    status, line = start(agent)
    try:
        assert (status, line["state"]) == (0, "listening")
        assert os.getsid(line["pid"]) not in (os.getsid(0), 0)
        operator = Operator(agent.socket)
        assert operator.run("bg.0.1", lambda: 1).value == 1
        again, second = start(agent)
        assert (again, second["state"], second["pid"]) == (0, "running", line["pid"])
        assert operator.run("bg.1.1", lambda: 2).value == 2
        os.kill(line["pid"], signal.SIGHUP)
        assert operator.run("bg.2.1", lambda: 3).value == 3
        operator.close()
    finally:
        os.kill(line["pid"], signal.SIGTERM)
        wait_until(lambda: not process_exists(line["pid"]))


def test_agent_with_other_slots_is_left_alone_unless_replaced(tmp_path: Path) -> None:
    with running_agent(tmp_path, slots=1) as running:
        other = AgentProcess(tmp_path, slots=2)
        status, line = start(other)
        assert (status, line["state"]) == (3, "conflict")
        status, line = start(other, "--replace")
        try:
            assert (status, line["state"]) == (0, "listening")
            assert running.process.wait(30) == 0
        finally:
            os.kill(line["pid"], signal.SIGTERM)
            wait_until(lambda: not process_exists(line["pid"]))


def test_agent_that_cannot_start_says_why(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    (tmp_path / "spool").write_text("in the way")
    status, line = start(agent)
    assert (status, line["state"]) == (1, "failed")
    assert "FileExistsError" in line["message"]


@pytest.mark.parametrize("slots", ["0", "many"])
def test_bad_option_is_refused(tmp_path: Path, slots: str) -> None:
    command = AgentProcess(tmp_path).command()
    command[command.index("--slots") + 1] = slots
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--slots" in done.stderr
