"""Slices whose worker or agent dies at any line: nothing that ran comes back, nothing ends twice.

Each item leaves a line in a ledger before it does anything else, so what ran is known from elsewhere.
"""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fake.agent_process import AgentProcess, Ends, Operator, running_agent, wait_until

from skyward.wire.frames import FrameKind

CASES = int(os.environ.get("SLICE_KILLS", "25"))


@pytest.fixture(scope="module", params=["process", "thread"])
def agent(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=2, executor=request.param) as agent:
        yield agent


def behave(item: tuple[str, int, str]) -> object:
    ledger, index, what = item
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{index}\n".encode())
    os.close(descriptor)
    match what:
        case "raise":
            raise ValueError(index)
        case "lock":
            return threading.Lock()
        case "box":
            return bytes(100_000)
        case "large":
            return bytes(1_500_000)
        case "print":
            print(f"item {index}")
        case "exit":
            sys.exit(2)
        case "die":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "slow":
            time.sleep(0.03)
    return index


def ledger_of(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def judge(ends: Ends, ran: Counter[int], items: int) -> None:
    """Every item ended once or came back; what came back never ran, what ended well ran once."""
    assert sorted([*ends.outcomes, *ends.returned]) == list(range(items))
    assert max(ran.values(), default=1) == 1
    assert not set(ends.returned) & set(ran)
    assert {index for index, outcome in ends.outcomes.items() if outcome.ok} <= set(ran)


names = iter(range(10**9))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    behaviours=st.lists(
        st.sampled_from(["ok", "ok", "ok", "raise", "lock", "box", "large", "print", "exit", "slow"]),
        min_size=1,
        max_size=30,
    ),
    death=st.one_of(st.none(), st.tuples(st.integers(0, 29), st.sampled_from(["die", "kill"]))),
    word=st.sampled_from([None, {"rest": True}, {"grace": 5}]),
)
def test_every_item_ends_once_or_comes_back(
    agent: AgentProcess,
    tmp_path_factory: pytest.TempPathFactory,
    behaviours: list[str],
    death: tuple[int, str] | None,
    word: dict[str, object] | None,
) -> None:
    ledger = tmp_path_factory.mktemp("ledger") / "ran"
    if death is not None:
        behaviours[death[0] % len(behaviours)] = death[1]
    operator = agent.connect()
    name = f"random-{next(names)}.0.1"
    operator.slice(name, behave, [(str(ledger), n, what) for n, what in enumerate(behaviours)])
    if word is not None:
        operator.send(FrameKind.CANCEL, {"attempt": name, **word})
    ends = operator.ends(name, len(behaviours))
    judge(ends, ledger_of(ledger), len(behaviours))
    for index, outcome in ends.outcomes.items():
        if outcome.error is None or outcome.error.reason in ("Cancelled", "WorkerDied"):
            continue
        assert outcome.error.reason == {"lock": "ResultNotPicklable"}.get(behaviours[index], "UserException")
        assert behaviours[index] in ("raise", "exit", "lock")
    if word is None and death is None:
        assert not ends.returned
    acknowledge(operator, ends)
    operator.close()


def acknowledge(operator: Operator, ends: Ends) -> None:
    alone = [each.attempt for each in ends.outcomes.values()]
    operator.ack(*(batch["attempt"] for batch in ends.batches), *alone)


def test_worker_is_killed_from_outside_at_any_moment(agent: AgentProcess, tmp_path: Path) -> None:
    chance = random.Random(7)
    operator = agent.connect()
    for case in range(CASES):
        ledger = tmp_path / f"ran-{case}"
        items = chance.randint(1, 400)
        name = f"killed-{next(names)}.0.1"
        what = chance.choice(["ok", "box", "print"])
        operator.slice(name, behave, [(str(ledger), n, what) for n in range(items)])
        pid = operator.expect(FrameKind.STARTED, attempt=name).header["pid"]
        at = chance.randrange(items)
        wait_until(lambda: sum(ledger_of(ledger).values()) >= at, pause=0)  # noqa: B023
        os.kill(pid, signal.SIGKILL)
        ends = operator.ends(name, items)
        judge(ends, ledger_of(ledger), items)
        died = [index for index, reason in ends.reasons().items() if reason == "WorkerDied"]
        assert len(died) == len(ends.reasons()) <= 1
        assert set(ledger_of(ledger)) <= set(ends.outcomes)
        acknowledge(operator, ends)
        while not operator.run(f"probe-{next(names)}.0.1", os.getpid).header["ok"]:
            pass  # it was handed to a worker of which the agent had not heard yet that it is dead
    operator.close()


def test_only_an_item_whose_time_is_up_is_interrupted(agent: AgentProcess) -> None:
    """Items that take just as long as they may, between others that take no time."""
    limit = 0.1

    def about_as_long(n: int) -> int:
        end = time.monotonic() + limit * (n % 2)
        while time.monotonic() < end:
            time.sleep(0.002)
        return n

    operator = agent.connect()
    waiting, number, timeouts = list(range(40)), 0, 0
    while waiting:
        number += 1
        first, items = waiting[0], len(waiting)
        name = f"edge-{next(names)}.{first}.{number}"
        operator.slice(name, about_as_long, waiting, timeout=limit, grace=20)
        ends = operator.ends(name, items)
        for index, outcome in ends.outcomes.items():
            if outcome.error is not None:
                assert outcome.error.reason == "RunTimeout", outcome.error
                assert outcome.duration >= limit, index
                timeouts += 1
        waiting = ends.returned
        acknowledge(operator, ends)
    assert timeouts > 0
    operator.close()


def test_agent_is_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(11)
    agent = AgentProcess(tmp_path / "agent", slots=2).start()
    for case in range(max(CASES // 5, 3)):
        ledger = tmp_path / f"ran-{case}"
        items = chance.randint(50, 400)
        name = f"case-{case}.0.1"
        operator = agent.connect()
        operator.slice(name, behave, [(str(ledger), n, "ok") for n in range(items)])
        at = chance.randrange(items)
        wait_until(lambda: sum(ledger_of(ledger).values()) >= at, pause=0)  # noqa: B023
        agent.kill()
        operator.close()
        agent.start()
        operator = agent.connect()
        held = operator.welcome["held"]
        assert {each["state"] for each in held} <= {"done"}
        done = sum(each["count"] for each in held)
        ends = operator.ends(name, done)
        ran = ledger_of(ledger)
        assert set(ends.values()) <= set(ran)
        assert max(ran.values(), default=1) == 1
        acknowledge(operator, ends)
        operator.ping()
        operator.close()
    agent.stop()
