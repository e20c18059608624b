"""Results survive what happens to connections, operators and the agent itself."""

import os
import time
from pathlib import Path

import pytest
from tests.fake.agent_process import AgentProcess, running_agent, wait_until

from skyward.wire.frames import FrameKind

LARGE = 3_000_000


def slowly[T](value: T) -> T:
    time.sleep(0.4)
    print("done")
    return value


def test_result_waits_for_the_next_connection(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        first = agent.connect()
        first.call("later.0.1", slowly, 7)
        first.expect(FrameKind.STARTED)
        first.close()
        second = agent.connect()
        assert second.result("later.0.1").value == 7
        assert second.logs["later.0.1"] == b"done\n"
        second.close()


def test_results_survive_the_death_of_the_agent(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        small = operator.run("small.0.1", lambda: "small").value
        large = operator.run("large.0.1", os.urandom, LARGE).value
        operator.run("gone.0.1", lambda: 0)
        operator.ack("gone.0.1")
        operator.ping()
        agent.kill()
        operator.close()
        agent.start()
        operator = agent.connect()
        held = {one["attempt"]: one["state"] for one in operator.welcome["held"]}
        assert held == {"small.0.1": "done", "large.0.1": "done"}
        assert operator.result("small.0.1").value == small
        assert operator.result("large.0.1").value == large
        operator.call("small.0.1", lambda: "again")
        assert operator.expect(FrameKind.REFUSED).header["reason"] == "Duplicate"
        operator.close()


def test_acknowledged_results_leave_nothing_behind(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        operator.run("a.0.1", lambda: 1)
        operator.run("b.0.1", os.urandom, LARGE)
        operator.ack("a.0.1", "b.0.1", "never-heard-of.0.1")
        operator.ping()
        assert [path.name for path in (tmp_path / "spool").iterdir()] == ["journal"]
        operator.close()
        agent.stop()
        agent.start()
        operator = agent.connect()
        assert operator.welcome["held"] == []
        assert (tmp_path / "spool" / "journal").stat().st_size == 0
        operator.close()


def test_journal_does_not_grow_with_acknowledged_results(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        for i in range(30):
            operator.run(f"some.{i}.1", os.urandom, 50_000)
            operator.ack(f"some.{i}.1")
        operator.ping()
        assert (tmp_path / "spool" / "journal").stat().st_size < 500_000
        operator.close()


def test_torn_tail_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path).start()
    operator = agent.connect()
    operator.run("whole.0.1", lambda: "whole")
    agent.kill()
    operator.close()
    with (tmp_path / "spool" / "journal").open("ab") as journal:
        journal.write(b"\x00\x00\x01\x00\x43half a rec")
    agent.start()
    operator = agent.connect()
    assert [one["attempt"] for one in operator.welcome["held"]] == ["whole.0.1"]
    assert operator.run("next.0.1", lambda: "next").value == "next"
    operator.close()
    agent.stop()


def test_boot_id_tells_that_the_agent_is_another(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        first = agent.connect()
        agent.kill()
        first.close()
        agent.start()
        second = agent.connect()
        assert first.welcome["boot_id"] != second.welcome["boot_id"]
        second.close()


@pytest.mark.parametrize("drain", [True, False])
def test_stop_keeps_the_results(tmp_path: Path, drain: bool) -> None:
    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        operator.call("last.0.1", slowly, "finished")
        operator.expect(FrameKind.STARTED)
        operator.send(FrameKind.STOP, {"drain": drain, "grace": 5})
        outcome = operator.result("last.0.1")
        wait_until(lambda: agent.process.poll() is not None)
        if drain:
            assert outcome.value == "finished"
        else:
            assert outcome.error["reason"] == "WorkerDied"
        operator.close()
        agent.start()
        operator = agent.connect()
        assert operator.result("last.0.1").header == outcome.header
        operator.close()
