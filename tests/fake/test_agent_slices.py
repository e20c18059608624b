"""Slices through a real agent: every item ends exactly once, or comes back and did not run."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fake.agent_process import AgentProcess, Operator, running_agent, wait_until

from skyward.wire.frames import FrameKind
from skyward.wire.raised import loads_error


@pytest.fixture(scope="module", params=["process", "thread"])
def agent(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=2, executor=request.param) as agent:
        yield agent


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=1) as agent:
        yield agent


@pytest.fixture
def operator(agent: AgentProcess) -> Iterator[Operator]:
    operator = agent.connect()
    yield operator
    operator.close()


@pytest.fixture
def process_operator(processes: AgentProcess) -> Iterator[Operator]:
    operator = processes.connect()
    yield operator
    operator.close()


def until_told(item: tuple[str, int]) -> int:
    """Leave a trace, and wait for a file of the item's name if the folder has a `hold` for it."""
    folder, index = item
    with (Path(folder) / "ran").open("a") as ran:
        ran.write(f"{index}\n")
    while (Path(folder) / f"hold-{index}").exists():
        time.sleep(0.005)
    return index


class Held:
    """A folder in which items wait."""

    def __init__(self, folder: Path, *held: int) -> None:
        self.folder = folder
        for index in held:
            self._path(index).touch()

    def items(self, count: int) -> list[tuple[str, int]]:
        return [(str(self.folder), index) for index in range(count)]

    def wait_for(self, index: int) -> None:
        wait_until(lambda: index in self.ran())

    def ran(self) -> list[int]:
        path = self.folder / "ran"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def release(self, index: int) -> None:
        self._path(index).unlink()

    def _path(self, index: int) -> Path:
        return self.folder / f"hold-{index}"


def test_items_end_in_few_batches_with_whole_records(operator: Operator) -> None:
    operator.slice("square.40.2", lambda n: n * n, range(300))
    ends = operator.ends("square.40.2", 300)
    assert ends.values() == {40 + n: n * n for n in range(300)}
    assert len(ends.batches) < 100
    first = ends.outcomes[40]
    assert (first.node, first.rank, first.attempt) == ("node-a", 3, "square.40.2")
    assert abs(first.started - time.time()) < 600
    assert ends.outcomes[41].started >= first.started + first.duration - 0.001
    operator.expect(FrameKind.STARTED, attempt="square.40.2")


def test_item_that_raises_fails_only_itself(operator: Operator) -> None:
    operator.slice("half.0.1", lambda n: 10 // n, [2, 0, 5])
    ends = operator.ends("half.0.1", 3)
    assert ends.values() == {0: 5, 2: 2}
    bad = ends.outcomes[1]
    assert bad.error is not None
    assert (bad.error.type, bad.error.reason) == ("ZeroDivisionError", "UserException")
    assert __file__ in bad.error.traceback
    assert isinstance(loads_error(bad.body), ZeroDivisionError)


def test_unpicklable_result_exit_and_missing_module_fail_only_their_items(operator: Operator) -> None:
    def one(kind: str) -> object:
        if kind == "lock":
            return threading.Lock()
        if kind == "exit":
            raise SystemExit(3)
        return kind

    operator.slice("mixed.0.1", one, ["a", "lock", "b", "exit", "c"])
    ends = operator.ends("mixed.0.1", 5)
    assert ends.values() == {0: "a", 2: "b", 4: "c"}
    assert ends.reasons() == {1: "ResultNotPicklable", 3: "UserException"}


def test_function_that_cannot_be_unpickled_fails_each_item_with_the_reason(operator: Operator) -> None:
    operator.slice("import.0.1", b"\x80\x05cno_such_module\nthing\n.", [1, 2])
    assert operator.ends("import.0.1", 2).reasons() == {0: "NotDeserializable", 1: "NotDeserializable"}


@pytest.mark.parametrize("size", [100_000, 300_000, 3_000_000])
def test_large_result_in_the_middle_goes_its_own_way(operator: Operator, size: int) -> None:
    operator.slice(f"large-{size}.0.1", lambda n: bytes(size) if n == 2 else n, range(5))
    ends = operator.ends(f"large-{size}.0.1", 5)
    assert ends.values() == {0: 0, 1: 1, 2: bytes(size), 3: 3, 4: 4}


def test_full_box_is_sent_and_filled_again(operator: Operator) -> None:
    operator.slice("full.0.1", lambda n: bytes([n]) * 50_000, range(40))
    assert operator.ends("full.0.1", 40).values() == {n: bytes([n]) * 50_000 for n in range(40)}


def test_result_over_the_limit_fails_only_its_item(agent: AgentProcess) -> None:
    operator = agent.connect(largest_result=2000)
    operator.slice("limit.0.1", bytes, [10, 5000, 20])
    ends = operator.ends("limit.0.1", 3)
    assert ends.reasons() == {1: "ResultTooLarge"}
    assert sorted(ends.values()) == [0, 2]
    operator.close()


def test_outcomes_do_not_wait_for_the_item_after_them(operator: Operator, tmp_path: Path) -> None:
    held = Held(tmp_path, 3)
    operator.slice("early.0.1", until_told, held.items(5))
    assert operator.ends("early.0.1", 3).values() == {0: 0, 1: 1, 2: 2}
    held.release(3)
    assert operator.ends("early.3.1", 2).values() == {3: 3, 4: 4}


def test_rest_comes_back_at_once_and_the_running_item_ends(operator: Operator, tmp_path: Path) -> None:
    held = Held(tmp_path, 2)
    operator.slice("steal.0.1", until_told, held.items(50))
    held.wait_for(2)
    operator.send(FrameKind.CANCEL, {"attempt": "steal.30.1", "rest": True})
    refused = operator.expect(FrameKind.REFUSED).header
    assert (refused["reason"], refused["attempt"], refused["count"]) == ("Returned", "steal.3.1", 47)
    operator.slice("steal.3.1", lambda n: -n, range(10))  # the same agent may get them again
    assert operator.ends("steal.3.1", 10).values() == {3 + n: -n for n in range(10)}
    held.release(2)
    assert operator.ends("steal.0.1", 3).values() == {0: 0, 1: 1, 2: 2}
    assert held.ran() == [0, 1, 2]


def test_rest_of_a_waiting_slice_is_all_of_it(process_operator: Operator, tmp_path: Path) -> None:
    operator = process_operator
    held = Held(tmp_path, 0)
    operator.slice("first.0.1", until_told, held.items(1))
    operator.slice("second.0.1", until_told, held.items(7))
    held.wait_for(0)
    operator.send(FrameKind.CANCEL, {"attempt": "second.0.1", "rest": True})
    assert operator.ends("second.0.1", 7).returned == list(range(7))
    held.release(0)
    operator.ends("first.0.1", 1)


def test_rest_of_a_waiting_call_is_the_call(process_operator: Operator, tmp_path: Path) -> None:
    operator = process_operator
    held = Held(tmp_path, 0)
    operator.slice("busy.0.1", until_told, held.items(1))
    operator.call("call.5.1", lambda: 1)
    operator.send(FrameKind.CANCEL, {"attempt": "call.5.1", "rest": True})
    assert operator.ends("call.5.1", 1).returned == [5]
    held.release(0)
    operator.ends("busy.0.1", 1)


def test_cancel_ends_the_running_item_and_the_rest_comes_back(operator: Operator, tmp_path: Path) -> None:
    held = Held(tmp_path, 2)
    operator.slice("cancel.0.1", until_told, held.items(6))
    held.wait_for(2)
    operator.send(FrameKind.CANCEL, {"attempt": "cancel.4.1", "grace": 20})
    ends = operator.ends("cancel.0.1", 6)
    assert ends.values() == {0: 0, 1: 1}
    assert ends.reasons() == {2: "Cancelled"}
    assert ends.returned == [3, 4, 5]
    error = ends.outcomes[2].error
    assert error is not None
    assert "in until_told" in error.traceback
    assert held.ran() == [0, 1, 2]


def test_cancel_of_a_waiting_slice_returns_it(process_operator: Operator, tmp_path: Path) -> None:
    operator = process_operator
    held = Held(tmp_path, 0)
    operator.slice("ahead.0.1", until_told, held.items(1))
    operator.slice("behind.0.1", until_told, held.items(3))
    operator.send(FrameKind.CANCEL, {"attempt": "behind.0.1"})
    assert operator.ends("behind.0.1", 3).returned == [0, 1, 2]
    held.release(0)
    operator.ends("ahead.0.1", 1)


def test_timeout_is_that_of_each_item(operator: Operator, tmp_path: Path) -> None:
    def slow(n: int) -> int:
        for _ in range(1000 if n == 4 else 3):
            time.sleep(0.1)
        return n

    operator.slice("slow.0.1", slow, range(7), timeout=1.2, grace=20)
    ends = operator.ends("slow.0.1", 7)
    assert ends.values() == {n: n for n in range(4)}
    assert ends.reasons() == {4: "RunTimeout"}
    assert ends.returned == [5, 6]
    assert operator.run("after.0.1", lambda: 1).value == 1


def test_stubborn_item_is_killed_and_the_rest_comes_back(process_operator: Operator) -> None:
    def never_give_up(n: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while n == 1:
            try:
                time.sleep(1000)
            except KeyboardInterrupt:
                print("not now")
        return n

    process_operator.slice("stubborn.0.1", never_give_up, range(4), timeout=0.5, grace=0.5)
    ends = process_operator.ends("stubborn.0.1", 4)
    assert (ends.values(), ends.reasons(), ends.returned) == ({0: 0}, {1: "RunTimeout"}, [2, 3])


@pytest.mark.parametrize("death", ["kill", "exit"])
def test_death_of_the_worker_costs_the_item_that_ran(process_operator: Operator, death: str) -> None:
    def die(n: int) -> int:
        if n == 5:
            if death == "exit":
                os._exit(7)
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    process_operator.slice(f"dies-{death}.0.1", die, range(9))
    ends = process_operator.ends(f"dies-{death}.0.1", 9)
    assert ends.values() == {n: n for n in range(5)}
    assert ends.reasons() == {5: "WorkerDied"}
    assert ends.returned == [6, 7, 8]
    assert process_operator.run("alive.0.1", lambda: 1).value == 1


def test_prints_are_told_apart_at_the_borders_of_items(operator: Operator) -> None:
    def say(n: int) -> None:
        if n % 3 == 0:
            print(f"item {n}")
            print(f"problem {n}", file=sys.stderr)
        elif n % 3 == 1:
            print(f"no end {n}", end="")

    operator.slice("say.0.1", say, range(60))
    operator.ends("say.0.1", 60)
    for n in range(60):
        got = bytes(operator.logs.get(f"say.{n}.1", b"")).decode()
        if n % 3 == 0:
            assert sorted(got.splitlines()) == [f"item {n}", f"problem {n}"]
        else:
            assert got == (f"no end {n}" if n % 3 == 1 else "")


def test_children_print_for_their_item(process_operator: Operator) -> None:
    def run(n: int) -> int:
        return subprocess.call(["echo", f"child of {n}"])

    process_operator.slice("child.0.1", run, range(5))
    process_operator.ends("child.0.1", 5)
    for n in range(5):
        assert process_operator.logs[f"child.{n}.1"] == f"child of {n}\n".encode()


def test_item_that_prints_much_waits_and_nothing_is_lost(process_operator: Operator) -> None:
    def flood(n: int) -> None:
        for line in range(40_000):
            print(f"{n} {line:060}")

    process_operator.slice("flood.0.1", flood, range(2))
    process_operator.ends("flood.0.1", 2)
    for n in range(2):
        lines = process_operator.logs[f"flood.{n}.1"].decode().splitlines()
        assert lines == [f"{n} {line:060}" for line in range(40_000)]


def test_item_sees_its_own_place_and_deadline(operator: Operator) -> None:
    def place(n: int) -> tuple[int, int, int]:
        from skyward.agent.runtime import current_context

        context = current_context()
        assert context is not None
        assert context.deadline is not None
        assert context.deadline - time.time() < 61
        return n, context.index, context.attempt

    operator.slice("place.7.3", place, range(4), timeout=60)
    assert operator.ends("place.7.3", 4).values() == {7 + n: (n, 7 + n, 3) for n in range(4)}


def test_item_that_interrupts_itself_fails_and_the_others_run(process_operator: Operator) -> None:
    def interrupt(n: int) -> int:
        if n == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        return n

    process_operator.slice("self.0.1", interrupt, range(3))
    ends = process_operator.ends("self.0.1", 3)
    assert ends.values() == {0: 0, 2: 2}
    assert ends.reasons() == {1: "UserException"}


def test_item_that_forks_ends_once(process_operator: Operator) -> None:
    def fork(n: int) -> int:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return n

    process_operator.slice("fork.0.1", fork, range(5))
    assert process_operator.ends("fork.0.1", 5).values() == {n: n for n in range(5)}


def test_overlapping_slice_is_a_duplicate(operator: Operator, tmp_path: Path) -> None:
    held = Held(tmp_path, 4)
    operator.slice("twice.0.1", until_told, held.items(8))
    held.wait_for(4)
    operator.slice("twice.5.1", until_told, held.items(10))
    refused = operator.expect(FrameKind.REFUSED).header
    assert (refused["reason"], refused["state"]) == ("Duplicate", "running")
    held.release(4)
    ends = operator.ends("twice.0.1", 8)
    operator.call("twice.3.1", lambda: 1)
    assert operator.expect(FrameKind.REFUSED).header["state"] == "done"
    operator.ack(*(batch["attempt"] for batch in ends.batches))
    operator.slice("twice.7.1", until_told, held.items(10))
    assert operator.expect(FrameKind.REFUSED).header["state"] == "acknowledged"
    operator.slice("twice.5.2", lambda n: n, range(2))
    assert operator.ends("twice.5.2", 2).values() == {5: 0, 6: 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": []},
        {"sizes": [1, 2]},
        {"sizes": "ab"},
        {"sizes": [0] * 1025},
        {"sizes": [10**6, -(10**6)]},
        {"index": 1},
        {"number": 2},
        {"attempt": 'a"b.0.1'},
        {"attempt": "nonsense"},
        {"args": "0" * 64},
    ],
)
def test_slice_that_makes_no_sense_is_refused(operator: Operator, wrong: dict[str, object]) -> None:
    header = {
        "attempt": "wrong.0.9",
        "index": 0,
        "number": 9,
        "task": "t",
        "function": "0" * 64,
        "sizes": [1],
    }
    operator.send(FrameKind.CALL, header | wrong, b"x")
    assert operator.expect(FrameKind.REFUSED).header["reason"] == "Malformed"


def test_slice_with_too_many_bytes_is_refused(operator: Operator) -> None:
    operator.slice("heavy.0.1", len, [os.urandom(100_000)] * 3)
    assert operator.expect(FrameKind.REFUSED).header["reason"] == "Malformed"


def test_batches_survive_the_agent_and_the_rest_of_the_slice_does_not(tmp_path: Path) -> None:
    held = Held(tmp_path, 3)
    with running_agent(tmp_path / "agent") as agent:
        operator = agent.connect()
        operator.slice("lost.0.1", until_told, held.items(6))
        operator.ends("lost.0.1", 3)
        operator.close()
        operator = agent.connect()
        assert operator.welcome["held"] == [
            {"attempt": "lost.3.1", "state": "running", "count": 3},
            {"attempt": "lost.0.1", "state": "done", "count": 3},
        ]
        agent.kill()
        operator.close()
        agent.start()
        operator = agent.connect()
        assert operator.welcome["held"] == [{"attempt": "lost.0.1", "state": "done", "count": 3}]
        assert operator.ends("lost.0.1", 3).values() == {0: 0, 1: 1, 2: 2}
        operator.slice("lost.2.1", until_told, held.items(2))
        assert operator.expect(FrameKind.REFUSED).header["reason"] == "Duplicate"
        operator.ack("lost.0.1")
        operator.ping()
        assert [path.name for path in (tmp_path / "agent" / "spool").iterdir()] == ["journal"]
        operator.slice("lost.3.1", lambda n: n, range(3))
        assert operator.ends("lost.3.1", 3).values() == {3: 0, 4: 1, 5: 2}
        operator.close()


def test_slice_goes_on_without_a_connection(tmp_path: Path) -> None:
    held = Held(tmp_path, 1)
    with running_agent(tmp_path / "agent") as agent:
        first = agent.connect()
        first.slice("alone.0.1", until_told, held.items(4))
        held.wait_for(1)
        first.close()
        held.release(1)
        second = agent.connect()
        assert second.ends("alone.0.1", 4).values() == {n: n for n in range(4)}
        second.close()


def test_each_item_gets_a_fresh_worker_if_asked_for(tmp_path: Path) -> None:
    with running_agent(tmp_path, 1, "process", "--fresh") as fresh:
        operator = fresh.connect()
        operator.slice("fresh.0.1", lambda n: os.getpid(), range(4))
        assert len(set(operator.ends("fresh.0.1", 4).values().values())) == 4
        started = [frame for frame in operator.frames if frame.kind is FrameKind.STARTED]
        assert len(started) == 1
        operator.close()


@pytest.mark.parametrize("drain", [True, False])
def test_stop_ends_slices(tmp_path: Path, drain: bool) -> None:
    held = Held(tmp_path, 1)
    with running_agent(tmp_path / "agent") as agent:
        operator = agent.connect()
        operator.slice("stop.0.1", until_told, held.items(3))
        held.wait_for(1)
        operator.send(FrameKind.STOP, {"drain": drain, "grace": 5})
        if drain:
            held.release(1)
        ends = operator.ends("stop.0.1", 3)
        if drain:
            assert ends.values() == {0: 0, 1: 1, 2: 2}
        else:
            assert (ends.values(), ends.reasons(), ends.returned) == ({0: 0}, {1: "WorkerDied"}, [2])
        wait_until(lambda: agent.process.poll() is not None)
        operator.close()
