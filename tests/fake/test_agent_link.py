"""The agent's socket under bad manners: garbage, rivals, floods, and control frames beside bulk."""

import json
import random
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fake.agent_process import AgentProcess, Operator, running_agent, wait_until

from skyward.agent import sockets
from skyward.wire.codec import dumps
from skyward.wire.envelopes import PROTOCOL
from skyward.wire.frames import MAX_FRAME, Frame, FrameKind, encode


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent"), slots=2) as agent:
        yield agent


def raw(agent: AgentProcess) -> socket.socket:
    return sockets.connect(agent.socket, 30)


def gone(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    connection.close()
    return True


GARBAGE = {
    "random": random.Random(1).randbytes(4096),
    "oversize": struct.pack("!IBI", MAX_FRAME + 1, FrameKind.HELLO, 2) + b"{}",
    "too short": struct.pack("!IBI", 1, FrameKind.HELLO, 0),
    "header past the end": struct.pack("!IBI", 7, FrameKind.HELLO, 1000) + b"{}",
    "no JSON": struct.pack("!IBI", 7, FrameKind.HELLO, 2) + b"}{",
    "no object": struct.pack("!IBI", 7, FrameKind.HELLO, 2) + b"[]",
    "unknown kind": struct.pack("!IBI", 7, 200, 2) + b"{}",
    "deep JSON": struct.pack("!IBI", 200_005, FrameKind.HELLO, 200_000) + b"[" * 200_000,
    "CALL before HELLO": encode(Frame(FrameKind.CALL, {"attempt": "x"})),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_closes_the_connection_and_the_agent_lives(agent: AgentProcess, garbage: bytes) -> None:
    lines = agent.log.count("is closed:")
    connection = raw(agent)
    connection.sendall(garbage)
    assert gone(connection)
    assert agent.log.count("is closed:") == lines + 1
    operator = agent.connect()
    assert operator.ping()["slots"] == 2
    operator.close()


def test_half_a_frame_and_silence_disturb_nobody(agent: AgentProcess) -> None:
    half = raw(agent)
    half.sendall(encode(Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "operator": "x", "epoch": 1}))[:11])
    operator = agent.connect()
    assert operator.run("beside.0.1", lambda: 1).value == 1
    half.close()
    operator.close()


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"attempt": 5},
        {"attempt": "m.0.1"},
        {"attempt": "m.0.1", "entry": "text"},
        {"attempt": "m.0.1", "entry": {"argv": ["true"]}, "context": [1]},
        {"attempt": "m.0.1", "entry": {"argv": ["true"]}, "timeout": "soon"},
        {"attempt": "m.0.1", "entry": {"argv": ["true"]}, "grace": -1},
        {"attempt": "m.0.1", "function": {"a": 1}},
    ],
    ids=json.dumps,
)
def test_call_that_makes_no_sense_is_refused(agent: AgentProcess, header: dict[str, object]) -> None:
    operator = agent.connect()
    operator.send(FrameKind.CALL, header)
    assert operator.expect(FrameKind.REFUSED).header["reason"] == "Malformed"
    assert operator.ping()
    operator.close()


@pytest.mark.parametrize("entry", [{"entrypoint": 5}, {"argv": []}, {"name": "f"}, {"argv": "ls"}, {"x": 1}])
def test_entry_that_makes_no_sense_fails_the_call_only(agent: AgentProcess, entry: dict[str, object]) -> None:
    operator = agent.connect()
    assert not operator.run(f"bad-{json.dumps(entry)}.0.1", entry=entry).header["ok"]
    assert operator.run(f"after-{json.dumps(entry)}.0.1", lambda: 1).value == 1
    operator.close()


def test_newest_operator_wins_and_the_old_one_is_closed(agent: AgentProcess) -> None:
    old = agent.connect(name="old")
    new = agent.connect(name="new")
    assert old.closed()
    assert new.run("new.0.1", lambda: 1).value == 1
    old.close()
    new.close()


def test_operator_of_an_earlier_epoch_is_refused(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        leader = agent.connect(epoch=7)
        stale = agent.connect(hello=False)
        stale.send(FrameKind.HELLO, {"protocol": PROTOCOL, "operator": "stale", "epoch": 6})
        assert stale.expect(FrameKind.REFUSED).header["reason"] == "StaleEpoch"
        assert stale.closed()
        assert leader.ping()
        agent.kill()
        agent.start()
        again = agent.connect(hello=False)
        again.send(FrameKind.HELLO, {"protocol": PROTOCOL, "operator": "stale", "epoch": 6})
        assert again.expect(FrameKind.REFUSED).header["reason"] == "StaleEpoch"
        for one in (leader, stale, again):
            one.close()


def test_other_protocol_is_refused(agent: AgentProcess) -> None:
    other = agent.connect(hello=False)
    other.send(FrameKind.HELLO, {"protocol": 99, "operator": "x", "epoch": 1})
    assert other.expect(FrameKind.REFUSED).header["reason"] == "Protocol"
    assert other.closed()
    other.close()


def test_ping_takes_nothing_over(agent: AgentProcess) -> None:
    operator = agent.connect()
    visitor = agent.connect(hello=False)
    assert visitor.ping()["pid"] == agent.process.pid
    assert operator.run("still.0.1", lambda: 1).value == 1
    visitor.close()
    operator.close()


def chatter(megabytes: int) -> None:
    line = "x" * 1023 + "\n"
    import sys

    for _ in range(megabytes * 16):
        sys.stdout.write(line * 64)
    print("the end")


def memory_of(pid: int) -> int:
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) * 1024


def test_flood_of_output_arrives_whole_and_blocks_nobody_else(agent: AgentProcess) -> None:
    operator = agent.connect()
    before = memory_of(agent.process.pid)
    operator.call("flood.0.1", chatter, 32)
    answers = [operator.run(f"quiet.{i}.1", lambda: 1).value for i in range(20)]
    assert answers == [1] * 20
    operator.result("flood.0.1")
    output = operator.logs["flood.0.1"]
    assert output.endswith(b"the end\n")
    assert len(output) == 32 * 1024 * 1024 + len("the end\n")
    assert operator.lost["flood.0.1"] == 0
    assert memory_of(agent.process.pid) - before < 64 * 1024 * 1024
    operator.close()


def test_output_that_is_not_written_down_comes_again_and_holds_its_function(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        first = agent.connect()
        first.writes_down = False
        first.call("held.0.1", chatter, 4)
        first.output("held.0.1", "x" * 1023)
        first.close()
        second = agent.connect()
        second.result("held.0.1")
        output = second.logs["held.0.1"]
        assert output.endswith(b"the end\n")
        assert len(output) + second.lost["held.0.1"] == 4 * 1024 * 1024 + len("the end\n")
        third = agent.connect()
        assert third.ping()
        assert "held.0.1" not in third.logs
        second.close()
        third.close()


def test_output_of_a_call_that_nobody_listens_to_is_kept_within_a_bound(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        first = agent.connect()
        first.call("unheard.0.1", chatter, 64)
        first.expect(FrameKind.STARTED)
        first.close()
        wait_until(lambda: (tmp_path / "spool" / "journal").stat().st_size > 0)
        second = agent.connect()
        second.result("unheard.0.1")
        output = second.logs["unheard.0.1"]
        assert output.endswith(b"the end\n")
        assert len(output) < 3 * 1024 * 1024
        assert second.lost["unheard.0.1"] > 48 * 1024 * 1024
        assert output.startswith(b"x" * 1023 + b"\n")
        assert memory_of(agent.process.pid) < 256 * 1024 * 1024
        second.close()


def test_control_frames_pass_a_large_result(agent: AgentProcess) -> None:
    operator = agent.connect()
    operator.call("bulk.0.1", bytes, 64 * 1024 * 1024 + 1)
    random_bytes = "__import__('os').urandom(48 * 1024 * 1024)"
    operator.call("bulk.1.1", eval, random_bytes)
    operator.expect(FrameKind.RESULT, attempt="bulk.1.1")
    operator.fetch("bulk.1.1")
    operator.send(FrameKind.PING, {"t": 2})
    operator.expect(FrameKind.PONG)
    seen = sum(len(frame.body) for frame in operator.frames if frame.header.get("attempt") == "bulk.1.1")
    assert seen < 24 * 1024 * 1024
    operator.frames.insert(0, Frame(FrameKind.RESULT, {"attempt": "bulk.1.1", "chunked": False}))
    operator.result("bulk.0.1")
    operator.until(
        lambda frame: frame.header.get("attempt") == "bulk.1.1" and frame.header.get("last", False)
    )
    operator.close()


def test_a_fetch_begins_where_it_is_told_to_and_ends_the_one_before(agent: AgentProcess) -> None:
    operator = agent.connect()
    value = operator.run("again.0.1", eval, "__import__('os').urandom(16 * 1024 * 1024)").value
    size = len(dumps(value))
    operator.fetch("again.0.1", 0, 2)
    operator.fetch("again.0.1", size - 100_000, 3)
    last = operator.expect(FrameKind.RESULT_CHUNK, fetch=3)
    assert (last.header["offset"], last.header["last"]) == (size - 100_000, True)
    assert bytes(last.body) == dumps(value)[-100_000:]
    operator.ping()
    operator.ping()
    earlier = [frame for frame in operator.frames if frame.header.get("fetch") == 2]
    assert not any(frame.header["last"] for frame in earlier)
    operator.close()


def test_result_whose_file_is_gone_ends_as_a_failure_that_says_so(agent: AgentProcess) -> None:
    operator = agent.connect()
    operator.call("gone.0.1", eval, "__import__('os').urandom(3 * 1024 * 1024)")
    announced = operator.expect(FrameKind.RESULT, attempt="gone.0.1").header
    assert announced["chunked"]
    for file in (agent.home / "spool").glob("*.result"):
        file.unlink()
    operator.fetch("gone.0.1")
    lost = operator.expect(FrameKind.RESULT, attempt="gone.0.1").header
    assert not lost["ok"]
    assert "lost on the node" in lost["error"]["message"]
    operator.close()


def test_agent_does_not_read_a_large_result_into_memory(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        before = memory_of(agent.process.pid)
        operator.call("big.0.1", eval, "__import__('os').urandom(192 * 1024 * 1024)")
        operator.expect(FrameKind.RESULT, attempt="big.0.1")
        operator.fetch("big.0.1")  # and read no further: the link is slow
        visitor = Operator(agent.socket, hello=False)
        for _ in range(500):  # turns of the agent's loop, in which it could have read on
            visitor.ping()
        assert memory_of(agent.process.pid) - before < 32 * 1024 * 1024
        visitor.close()
        operator.close()


def test_socket_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / ("deeper" * 20)
    with running_agent(home) as agent:
        assert len(str(agent.socket)) > 200
        operator = agent.connect()
        assert operator.run("deep.0.1", lambda: 1).value == 1
        assert agent.socket.parent.stat().st_mode & 0o777 == 0o700
        operator.close()
