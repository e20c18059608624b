"""How calls end that do not end by themselves: cancelled, too long, killed, and what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fake.agent_process import AgentProcess, Operator, process_exists, running_agent, wait_until

from skyward.wire.frames import FrameKind


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=1) as agent:
        yield agent


@pytest.fixture
def operator(agent: AgentProcess) -> Iterator[Operator]:
    operator = agent.connect()
    yield operator
    operator.close()


def sleep_forever() -> None:
    print("asleep")
    time.sleep(1000)


def never_give_up() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            print("asleep")
            time.sleep(1000)
        except KeyboardInterrupt:
            print("not now")


def with_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    elsewhere = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print(f"children {child.pid} {elsewhere.pid} end")
    child.wait()


def test_cancel_interrupts_the_call_and_says_where_it_stood(operator: Operator) -> None:
    operator.call("cancel.0.1", sleep_forever)
    operator.output("cancel.0.1", "asleep")
    operator.send(FrameKind.CANCEL, {"attempt": "cancel.0.1", "grace": 20})
    outcome = operator.result("cancel.0.1")
    assert (outcome.error["reason"], outcome.error["kind"]) == ("Cancelled", "User")
    assert "in sleep_forever" in outcome.error["traceback"]
    assert operator.run("cancel.1.1", lambda: 1).value == 1


def test_cancel_of_a_waiting_call_ends_it_at_once(operator: Operator) -> None:
    operator.call("busy.0.1", sleep_forever)
    operator.call("waiting.0.1", sleep_forever)
    operator.send(FrameKind.CANCEL, {"attempt": "waiting.0.1"})
    assert operator.result("waiting.0.1").error["reason"] == "Cancelled"
    operator.send(FrameKind.CANCEL, {"attempt": "busy.0.1", "grace": 0})
    assert operator.result("busy.0.1").error["reason"] == "Cancelled"


def test_timeout_counts_from_the_start_and_stops_the_work(operator: Operator) -> None:
    operator.call("first.0.1", time.sleep, 0.6)
    operator.call("second.0.1", time.sleep, 0.1, timeout=0.5)  # waits longer than its timeout
    operator.call("third.0.1", sleep_forever, timeout=0.3, grace=20)
    assert operator.result("first.0.1").header["ok"]
    assert operator.result("second.0.1").header["ok"]
    outcome = operator.result("third.0.1")
    assert outcome.error["reason"] == "RunTimeout"
    assert "0.3 s" in outcome.error["message"]


def test_call_that_ignores_signals_is_killed_at_the_end_of_the_grace(operator: Operator) -> None:
    operator.call("stubborn.0.1", never_give_up)
    operator.output("stubborn.0.1", "asleep")
    operator.send(FrameKind.CANCEL, {"attempt": "stubborn.0.1", "grace": 0.5})
    outcome = operator.result("stubborn.0.1")
    assert outcome.error["reason"] == "Cancelled"
    assert b"not now" in operator.logs["stubborn.0.1"]


def test_children_of_a_cancelled_call_are_stopped_too(operator: Operator) -> None:
    operator.call("children.0.1", with_child)
    words = operator.output("children.0.1", "end").split()
    operator.send(FrameKind.CANCEL, {"attempt": "children.0.1", "grace": 5})
    operator.result("children.0.1")
    wait_until(lambda: not any(process_exists(int(pid)) for pid in words[1:3]))


def test_limit_that_is_changed_counts_from_the_start_of_the_call(operator: Operator) -> None:
    operator.call("raised.0.1", time.sleep, 1, timeout=0.5)
    operator.send(FrameKind.LIMIT, {"attempt": "raised.0.1", "timeout": 60})
    assert operator.result("raised.0.1").header["ok"]
    operator.call("lifted.0.1", time.sleep, 1, timeout=0.5)
    operator.send(FrameKind.LIMIT, {"attempt": "lifted.0.1", "timeout": None})
    assert operator.result("lifted.0.1").header["ok"]
    operator.call("lowered.0.1", sleep_forever, timeout=1000, grace=20)
    operator.output("lowered.0.1", "asleep")
    operator.send(FrameKind.LIMIT, {"attempt": "lowered.0.1", "timeout": 0.1})
    outcome = operator.result("lowered.0.1")
    assert outcome.error["reason"] == "RunTimeout"
    assert "its timeout of 0.1 s" in outcome.error["message"]


def test_command_is_stopped_by_its_timeout(operator: Operator, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    argv = ["sh", "-c", f"echo $$ > {mark}; exec sleep 1000"]
    outcome = operator.run("slow-command.0.1", entry={"argv": argv}, timeout=0.3, grace=5)
    assert outcome.error["reason"] == "RunTimeout"
    wait_until(lambda: not process_exists(int(mark.read_text())))


def test_os_exit_is_the_death_of_the_worker_and_not_of_the_agent(operator: Operator) -> None:
    def die() -> None:
        print("last words", end="", flush=True)
        os._exit(3)

    outcome = operator.run("dies.0.1", die)
    assert (outcome.error["reason"], outcome.error["kind"]) == ("WorkerDied", "System")
    assert "exit code 3" in outcome.error["message"]
    assert operator.logs["dies.0.1"] == b"last words"
    assert operator.run("dies.1.1", lambda: 1).value == 1


def test_worker_killed_by_the_kernel_is_told_with_the_likely_reason(operator: Operator) -> None:
    outcome = operator.run("killed.0.1", lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert "signal 9" in outcome.error["message"]
    assert "out of memory?" in outcome.error["message"]


def test_children_of_a_dead_worker_are_stopped(operator: Operator) -> None:
    def leave_child() -> None:
        child = subprocess.Popen(["sleep", "1000"])
        print(f"child {child.pid} end", flush=True)
        os._exit(1)

    operator.run("orphan.0.1", leave_child)
    pid = int(operator.logs["orphan.0.1"].split()[1])
    wait_until(lambda: not process_exists(pid))


def test_call_can_see_that_it_is_being_stopped_and_why(operator: Operator) -> None:
    def patient() -> str | None:
        from skyward.runtime import current

        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            print(f"why: {current().stopping}")
        return None

    operator.call("aware.0.1", patient, timeout=0.3, grace=10)
    assert operator.result("aware.0.1").error["reason"] == "RunTimeout"
    assert operator.logs["aware.0.1"] == b"why: timeout\n"


def test_workers_die_with_the_agent(tmp_path: Path) -> None:
    with running_agent(tmp_path / "doomed") as doomed:
        operator = doomed.connect()
        operator.call("doomed.0.1", with_child)
        operator.output("doomed.0.1", "end")
        worker = operator.expect(FrameKind.STARTED).header["pid"]
        child = int(operator.logs["doomed.0.1"].split()[1])
        doomed.kill()
        operator.close()
        wait_until(lambda: not process_exists(worker) and not process_exists(child))


def test_fresh_worker_for_every_call_if_asked_for(tmp_path: Path) -> None:
    with running_agent(tmp_path / "fresh", 1, "process", "--fresh") as fresh:
        operator = fresh.connect()
        pids = {operator.run(f"fresh.{i}.1", os.getpid).value for i in range(3)}
        operator.close()
        assert len(pids) == 3
