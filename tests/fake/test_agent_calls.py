"""Calls through a real agent: what goes in, what comes back, in each form that a call has."""

import fcntl
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fake.agent_process import AgentProcess, Operator, running_agent, wait_until

from skyward.wire.codec import dumps
from skyward.wire.frames import FrameKind
from skyward.wire.raised import loads_error


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=2) as agent:
        yield agent


@pytest.fixture
def operator(agent: AgentProcess) -> Iterator[Operator]:
    operator = agent.connect()
    yield operator
    operator.close()


class Guest:
    def __init__(self, name: str) -> None:
        self.name = name


class Unwelcome(Exception):
    def __init__(self, guest: str, seats: int) -> None:
        super().__init__(f"{guest} takes {seats}")
        self.guest = guest


def kept_results(agent: AgentProcess) -> set[Path]:
    """The files of large results on the node."""
    return set((agent.home / "spool").glob("*.result"))


def test_welcome_says_what_the_node_is(operator: Operator) -> None:
    welcome = operator.welcome
    assert welcome["slots"] == 2
    assert welcome["facts"]["cpus"] >= 1
    assert welcome["facts"]["memory_bytes"] > 0
    assert len(welcome["bundle"]) == 64


def test_call_returns_its_value(operator: Operator) -> None:
    outcome = operator.run("value.0.1", lambda a, b: a + b, 2, 3)
    assert outcome.value == 5
    assert operator.expect(FrameKind.STARTED, attempt="value.0.1").header["pid"] > 0


def test_many_calls_all_return(operator: Operator) -> None:
    for i in range(200):
        operator.call(f"many.{i}.1", lambda n: n * n, i)
    assert [operator.result(f"many.{i}.1").value for i in range(200)] == [i * i for i in range(200)]


def test_instance_of_the_callers_class_is_still_one_after_the_round_trip(operator: Operator) -> None:
    outcome = operator.run("class.0.1", lambda guest: guest, Guest("cat"))
    assert type(outcome.value) is Guest
    assert outcome.value.name == "cat"


def test_exception_keeps_type_cause_and_notes(operator: Operator) -> None:
    def fail() -> None:
        try:
            raise Unwelcome("dog", 2)
        except Unwelcome as error:
            problem = ValueError("no room")
            problem.add_note("try the garden")
            raise problem from error

    outcome = operator.run("exception.0.1", fail)
    assert not outcome.header["ok"]
    assert outcome.error["type"] == "ValueError"
    assert outcome.error["kind"] == "User"
    assert __file__ in outcome.error["traceback"]
    assert "skyward/agent" not in outcome.error["traceback"]


def test_pickled_exception_is_raised_again_with_its_cause(operator: Operator) -> None:
    def fail() -> None:
        problem = KeyError("k")
        problem.add_note("a note")
        raise problem from OSError(2, "gone")

    error = loads_error(operator.run("pickled.0.1", fail).body)
    assert isinstance(error, KeyError)
    assert error.__notes__ == ["a note"]
    assert isinstance(error.__cause__, OSError)


def test_exception_whose_init_takes_other_arguments_is_raised_again_as_itself(operator: Operator) -> None:
    outcome = operator.run("unwelcome.0.1", lambda kind: (_ for _ in ()).throw(kind("cat", 3)), Unwelcome)
    error = loads_error(outcome.body)
    assert isinstance(error, Unwelcome)
    assert error.guest == "cat"
    assert outcome.error["type"] == "Unwelcome"
    assert outcome.error["message"] == "cat takes 3"


def test_system_exit_fails_the_call_and_not_the_worker(operator: Operator) -> None:
    def leave() -> None:
        raise SystemExit(3)

    assert operator.run("exit.0.1", leave).error["type"] == "SystemExit"
    assert operator.run("exit.1.1", lambda: 1).value == 1


def test_result_that_cannot_be_pickled_names_the_part(operator: Operator) -> None:
    outcome = operator.run("lock.0.1", lambda: {"a": [threading.Lock()]})
    assert outcome.error["reason"] == "ResultNotPicklable"
    assert "['a'][0]" in outcome.error["message"]


def test_result_over_the_operators_limit_fails_the_call_before_a_byte_of_it_is_written(
    agent: AgentProcess,
) -> None:
    operator = agent.connect(largest_result=2_000_000)
    before = kept_results(agent)

    def returns(size: int) -> bytes:
        return os.urandom(size)

    outcome = operator.run("over.0.1", returns, 2_000_000)
    assert not outcome.header["ok"]
    assert outcome.error["reason"] == "ResultTooLarge"
    assert "2,000,0" in outcome.error["message"]
    assert "at most 2,000,000" in outcome.error["message"]
    assert kept_results(agent) == before
    assert len(operator.run("over.1.1", returns, 1_900_000).value) == 1_900_000
    operator.close()


def test_limit_of_results_is_the_newest_operators(agent: AgentProcess) -> None:
    first = agent.connect(largest_result=1000)
    assert first.run("limit.0.1", bytes, 2000).error["reason"] == "ResultTooLarge"
    second = agent.connect(largest_result=5000)
    assert len(second.run("limit.1.1", bytes, 2000).value) == 2000
    third = agent.connect()
    assert len(third.run("limit.2.1", bytes, 9000).value) == 9000
    for operator in (first, second, third):
        operator.close()


def test_exception_over_the_limit_of_results_comes_in_words(agent: AgentProcess) -> None:
    operator = agent.connect(largest_result=2000)

    def fail() -> None:
        raise ValueError("no", os.urandom(100_000))

    outcome = operator.run("words.0.1", fail)
    assert (outcome.error["type"], outcome.error["reason"]) == ("ValueError", "UserException")
    assert outcome.body == b""
    operator.close()


def test_full_disk_fails_the_call_that_returned_much_and_its_worker_lives_on(tmp_path: Path) -> None:
    def returns(size: int, room: int) -> bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        return os.urandom(size)

    def fails(size: int) -> None:
        raise ValueError(os.urandom(size))

    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        outcome = operator.run("full.0.1", returns, 5_000_000, 1_500_000)
        assert not outcome.header["ok"]
        assert (outcome.error["reason"], outcome.error["kind"]) == ("ResultNotStored", "System")
        assert re.search(r"5,000,\d+ bytes cannot be stored on the node", outcome.error["message"])
        assert re.search(r"[\d,]+ bytes are free there", outcome.error["message"])
        assert not kept_results(agent)

        words = operator.run("full.1.1", fails, 5_000_000)
        assert (words.error["type"], words.body) == ("ValueError", b"")
        assert not kept_results(agent)

        assert len(operator.run("full.2.1", returns, 5_000_000, resource.RLIM_INFINITY).value) == 5_000_000
        started = [operator.expect(FrameKind.STARTED, attempt=f"full.{n}.1").header["pid"] for n in range(3)]
        assert len(set(started)) == 1
        operator.close()


def test_missing_module_is_named_with_the_remedy(operator: Operator) -> None:
    payload = b"\x80\x05cno_such_module\nthing\n."
    name = operator.blob(payload)
    outcome = operator.run("missing.0.1", lambda thing: thing, args=name)
    assert outcome.error["reason"] == "NotDeserializable"
    assert "no_such_module" in outcome.error["message"]
    assert "Image(pip=" in outcome.error["message"]


def test_entrypoint_returns_json_beside_the_pickle(operator: Operator) -> None:
    outcome = operator.run("entry.0.1", entry={"entrypoint": "math:factorial", "args": [20]})
    assert outcome.header["value"] == outcome.value == 2432902008176640000


@pytest.mark.parametrize("entrypoint", ["no_such_module_here:f", "math:no_such", "math:pi"])
def test_entrypoint_that_does_not_exist_is_said(operator: Operator, entrypoint: str) -> None:
    outcome = operator.run(f"none-{entrypoint}.0.1", entry={"entrypoint": entrypoint})
    assert outcome.error["reason"] == "EntrypointNotFound"


def test_source_runs_and_its_traceback_shows_the_line(operator: Operator) -> None:
    source = "def half(n):\n    assert n % 2 == 0, 'odd'\n    return n // 2\n"
    good = operator.run("source.0.1", entry={"source": source, "name": "half", "args": [8]})
    assert good.header["value"] == 4
    bad = operator.run("source.1.1", entry={"source": source, "name": "half", "kwargs": {"n": 3}})
    assert "assert n % 2 == 0" in bad.error["traceback"]


def test_command_streams_its_output_and_its_status_counts(operator: Operator) -> None:
    argv = ["sh", "-c", "echo $GREETING; echo problem >&2"]
    good = operator.run("command.0.1", entry={"argv": argv, "env": {"GREETING": "hello"}})
    assert good.header["value"] == 0
    assert operator.logs["command.0.1"].split() == [b"hello", b"problem"]
    bad = operator.run("command.1.1", entry={"argv": ["sh", "-c", "exit 7"]})
    assert "exit status 7" in bad.error["message"]
    assert (bad.error["reason"], bad.error["kind"]) == ("CommandFailed", "User")
    none = operator.run("command.2.1", entry={"argv": ["/no/such/command"]})
    assert none.error["reason"] == "CommandNotFound"
    nowhere = operator.run("command.3.1", entry={"argv": ["true"], "working_directory": "/no/such/folder"})
    assert nowhere.error["reason"] == "CommandNotFound"
    assert "'/no/such/folder' is no folder on the node" in nowhere.error["message"]


def test_output_precedes_the_result_and_is_not_changed(operator: Operator) -> None:
    def progress() -> None:
        import sys

        for i in range(3):
            print(f"\r{i}/3", end="")
        print("error text", file=sys.stderr)

    operator.run("print.0.1", progress)
    assert bytes(operator.logs["print.0.1"]) in (
        b"\r0/3\r1/3\r2/3error text\n",
        b"error text\n\r0/3\r1/3\r2/3",
    )


def fill_the_pipe_of_a_stopped_agent(mark: Path) -> None:
    fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    os.kill(os.getppid(), signal.SIGSTOP)
    sys.stdout.write("x" * 200_000)
    sys.stdout.flush()
    mark.write_text(str(os.getpid()))


def test_whole_pipe_is_emptied_before_the_result(
    agent: AgentProcess, operator: Operator, tmp_path: Path
) -> None:
    operator.call("pipe.0.1", fill_the_pipe_of_a_stopped_agent, tmp_path / "mark")
    wait_until(lambda: (tmp_path / "mark").is_file() and (tmp_path / "mark").read_text() != "")
    worker = Path("/proc", (tmp_path / "mark").read_text(), "stat")
    wait_until(lambda: worker.read_text().rpartition(")")[2].split()[0] == "S")  # it has sent its result
    agent.process.send_signal(signal.SIGCONT)
    operator.result("pipe.0.1")
    assert len(operator.logs["pipe.0.1"]) == 200_000


def test_coroutine_function_is_awaited(operator: Operator) -> None:
    async def answer() -> int:
        return 42

    assert operator.run("coroutine.0.1", answer).value == 42


def test_large_argument_and_result_travel_in_pieces(operator: Operator) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.random.default_rng(1).random(1_000_000)
    name = operator.blob(dumps(((array,), {})))

    def double(array: Any) -> Any:
        array *= 2
        return array

    outcome = operator.run("large.0.1", double, args=name)
    assert outcome.header["chunked"]
    assert numpy.array_equal(outcome.value, array * 2)


def test_context_reaches_the_call(operator: Operator) -> None:
    def place() -> Any:
        from skyward.agent.runtime import current_context

        context = current_context()
        assert context is not None
        return context.node, context.total_nodes, context.workers_per_node, context.task, context.deadline

    context = {"node": 1, "total_nodes": 3, "provider": "local"}
    node, total, workers, task, deadline = operator.run("ctx.0.1", place, context=context, timeout=60).value
    assert (node, total, workers, task) == (1, 3, 2, "default/t")
    assert deadline > 0


def test_public_runtime_sees_the_same_place(operator: Operator) -> None:
    def info() -> Any:
        from skyward.runtime import current, instance_info

        return instance_info().node, instance_info().total_nodes, current().task

    assert operator.run("info.0.1", info, context={"node": 2, "total_nodes": 4}).value == (2, 4, "default/t")


def test_call_that_forks_answers_once(operator: Operator, tmp_path: Path) -> None:
    def fork() -> bool:
        import os

        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return child != 0

    assert operator.run("fork.0.1", fork).value is True
    assert operator.run("fork.1.1", lambda: 1).value == 1


def test_function_that_was_not_sent_is_asked_for(operator: Operator) -> None:
    header = {"attempt": "unknown.0.1", "task": "t", "index": 0, "number": 1, "function": "0" * 64}
    operator.send(FrameKind.CALL, header)
    refused = operator.expect(FrameKind.REFUSED).header
    assert (refused["reason"], refused["digest"]) == ("FunctionMissing", "0" * 64)


def test_duplicate_attempt_is_refused_with_its_state(operator: Operator) -> None:
    operator.run("twice.0.1", lambda: 1)
    operator.call("twice.0.1", lambda: 1)
    assert operator.expect(FrameKind.REFUSED).header["state"] == "done"
    operator.ack("twice.0.1")
    operator.call("twice.0.1", lambda: 1)
    assert operator.expect(FrameKind.REFUSED).header["state"] == "acknowledged"


def test_blob_with_wrong_bytes_is_refused(operator: Operator) -> None:
    header = {"digest": "1" * 64, "offset": 0, "size": 3, "last": True}
    operator.send(FrameKind.BLOB, header, b"abc")
    assert operator.expect(FrameKind.NOTICE).header["digest"] == "1" * 64


def test_workers_are_ready_before_the_first_call(agent: AgentProcess, operator: Operator) -> None:
    wait_until(lambda: operator.ping()["running"] == 0)
    first = {operator.run(f"warm.{i}.1", lambda: __import__("os").getpid()).value for i in range(4)}
    assert first <= {operator.run(f"warm.{i}.2", lambda: __import__("os").getpid()).value for i in range(4)}


def close_object() -> None:
    print("before", flush=True)
    sys.stdout.close()


def close_descriptors() -> None:
    print("before", flush=True)
    os.close(1)
    os.close(2)


def replace_object() -> None:
    print("before", flush=True)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, the called code leaves it
    print("into the void")


def take_the_descriptor() -> None:
    print("before", flush=True)
    sys.stdout = os.fdopen(1, "w")


def redirect_descriptor() -> None:
    print("before", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print("into the void", flush=True)


def detach_object() -> None:
    print("before", flush=True)
    sys.stdout.detach()  # type: ignore[union-attr]


SPOILERS = [
    close_object,
    close_descriptors,
    replace_object,
    take_the_descriptor,
    redirect_descriptor,
    detach_object,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_call_that_spoils_the_streams_silences_no_other_and_says_so(
    tmp_path: Path, spoil: Callable[[], None]
) -> None:
    def say(word: str) -> None:
        print(word)
        sys.stdout.flush()
        os.write(1, b"below\n")
        os.write(2, b"")

    def say_or_spoil(number: int) -> None:
        spoil() if number == 1 else print(f"item {number}")

    with running_agent(tmp_path, slots=1) as agent:
        operator = agent.connect()
        for turn in range(2):
            assert operator.run(f"spoil{turn}.0.1", spoil).header["ok"]
            assert operator.run(f"say{turn}.0.1", say, "hello").header["ok"]
            spoilt = operator.logs[f"spoil{turn}.0.1"].decode()
            assert spoilt.startswith("before\n")
            assert "skyward: this call closed or replaced sys.stdout" in spoilt
            assert operator.logs[f"say{turn}.0.1"] == b"hello\nbelow\n"
        operator.slice("items.0.1", say_or_spoil, range(4))
        operator.ends("items.0.1", 4)
        assert "skyward: this call" in operator.logs["items.1.1"].decode()
        assert [operator.logs[f"items.{number}.1"] for number in (0, 2, 3)] == [
            f"item {number}\n".encode() for number in (0, 2, 3)
        ]
        operator.close()
