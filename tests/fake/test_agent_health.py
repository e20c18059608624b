"""The checks of a node's health, beside its calls: programs and functions, failing, hanging, recovering."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fake.agent_process import AgentProcess, Operator, process_exists, running_agent, wait_until

from skyward.wire.codec import dumps_function
from skyward.wire.envelopes import ILLNESS
from skyward.wire.frames import FrameKind


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "agent", slots=1) as agent:
        yield agent


@pytest.fixture
def operator(agent: AgentProcess) -> Iterator[Operator]:
    operator = agent.connect()
    yield operator
    operator.close()


def watch(operator: Operator, *checks: dict[str, Any], body: bytes = b"", digest: str = "one") -> None:
    """Have the agent check this."""
    operator.send(FrameKind.WATCH, {"digest": digest, "checks": list(checks)}, body)


def probe(*argv: str, **terms: Any) -> dict[str, Any]:
    """A check by a program."""
    return {"name": "probe", "argv": list(argv), "period": 0.05, "timeout": 20, "threshold": 2, **terms}


def checker(**terms: Any) -> dict[str, Any]:
    """A check by the function in the body."""
    return {"name": "checker", "period": 0.05, "timeout": 20, "threshold": 2, **terms}


def illness(operator: Operator) -> str:
    """What the agent says next of the node."""
    return str(operator.expect(FrameKind.NOTICE, reason=ILLNESS).header["message"])


def until_file(path: Path) -> Callable[[], bool]:
    def well() -> bool:
        return path.exists()

    return well


def test_a_program_that_fails_makes_the_node_ill_until_it_succeeds(
    operator: Operator, tmp_path: Path
) -> None:
    well = tmp_path / "well"
    watch(operator, probe("sh", "-c", f"echo checking; test -e {well} || (echo no gpu >&2; exit 7)"))
    assert illness(operator) == "probe failed 2 times in a row: exit status 7: checking no gpu"
    well.touch()
    assert illness(operator) == ""


def test_a_function_that_fails_makes_the_node_ill_until_it_succeeds(
    operator: Operator, tmp_path: Path
) -> None:
    well = tmp_path / "well"
    watch(operator, checker(), body=dumps_function(until_file(well)))
    assert illness(operator) == "checker failed 2 times in a row: the health check returned a false value"
    well.touch()
    assert illness(operator) == ""


def raises() -> bool:
    print("x" * 1_000_000)
    raise SystemExit("no gpu")


def hangs() -> bool:
    time.sleep(1000)
    return True


def dies() -> bool:
    os._exit(0)


@pytest.mark.parametrize(
    ("function", "timeout", "why"),
    [
        (raises, 20, "the health check raised SystemExit: no gpu"),
        (hangs, 0.3, "it did not end within 0.3 s"),
        (dies, 20, "its process ended"),
    ],
)
def test_a_function_fails_in_every_way_and_calls_go_on(
    operator: Operator, function: Callable[[], bool], timeout: float, why: str
) -> None:
    watch(operator, checker(timeout=timeout), body=dumps_function(function))
    assert illness(operator) == f"checker failed 2 times in a row: {why}"
    assert operator.run("self.0.1", lambda: 1).value == 1


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("no-such-program",), "it cannot be run"),
        (("sh", "-c", "kill -9 $$"), "signal 9"),
        (("sleep", "1000"), "it did not end within 0.3 s"),
    ],
)
def test_a_program_fails_in_every_way(operator: Operator, argv: tuple[str, ...], why: str) -> None:
    watch(operator, probe(*argv, timeout=0.3 if argv[0] == "sleep" else 20))
    assert why in illness(operator)


def test_what_hangs_is_ended_with_what_it_started(operator: Operator, tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f"sleep 1000 & echo $! >>{started}; wait"
    watch(operator, probe("sh", "-c", script, timeout=0.3, threshold=1))
    assert illness(operator)
    first = int(started.read_text().split()[0])
    wait_until(lambda: not process_exists(first))


def test_a_function_that_cannot_be_loaded_says_so(operator: Operator) -> None:
    watch(operator, checker(), body=b"no pickle")
    assert "the health check cannot be loaded on the node" in illness(operator)


def test_one_failure_is_none_where_more_are_allowed(operator: Operator, tmp_path: Path) -> None:
    """Two fail, the third succeeds, for ever: three in a row never happen."""
    count = tmp_path / "count"
    script = f"n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) >{count}; test $((n % 3)) -eq 2"
    watch(operator, probe("sh", "-c", script, threshold=3))
    wait_until(lambda: count.exists() and int(count.read_text().strip() or 0) > 9)
    operator.ping()
    assert not [frame for frame in operator.frames if frame.kind is FrameKind.NOTICE]


def test_the_function_runs_in_one_process_of_its_own_that_goes_with_the_agent(
    agent: AgentProcess, operator: Operator, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"

    def note() -> bool:
        import os as system

        with seen.open("a") as file:
            file.write(f"{system.getpid()}\n")
        return True

    watch(operator, checker(), body=dumps_function(note))
    wait_until(lambda: seen.exists() and len(seen.read_text().split()) > 3)
    (pid,) = set(seen.read_text().split())
    worker = operator.run("self.0.1", os.getpid).value
    assert int(pid) not in (worker, agent.process.pid)
    agent.kill()
    wait_until(lambda: not process_exists(int(pid)))


def test_other_checks_take_the_place_of_those_before_and_the_same_change_nothing(
    operator: Operator, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    first = probe("sh", "-c", f"echo x >>{seen}; exit 1")
    watch(operator, first)
    assert illness(operator)
    watch(operator, first)
    watch(operator, probe("true"), digest="two")
    assert illness(operator) == ""
    runs = seen.read_text()
    watch(operator, digest="")
    operator.ping()
    assert seen.read_text() == runs


def test_a_new_operator_hears_of_checks_and_illness(agent: AgentProcess) -> None:
    operator = agent.connect()
    assert (operator.welcome["watch"], operator.welcome["ill"]) == ("", "")
    watch(operator, probe("false"))
    said = illness(operator)
    operator.close()
    again = agent.connect()
    assert (again.welcome["watch"], again.welcome["ill"]) == ("one", said)
    again.close()


def test_checks_that_make_no_sense_are_refused_and_the_others_stay(operator: Operator) -> None:
    watch(operator, probe("false"))
    said = illness(operator)
    for terms in (probe("x", period=0), {"name": "probe", "argv": ["x"]}, probe("x", timeout="soon")):
        watch(operator, terms, digest="bad")
        operator.expect(FrameKind.REFUSED, reason="Malformed")
    assert operator.run("self.0.1", lambda: 2).value == 2
    operator.close()
    assert said
