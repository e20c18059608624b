"""Frames that are damaged, out of order, doubled or absurd, against the real link and the real agent."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.agent_process import AgentProcess, Operator, running_agent, wait_until
from tests.fake.test_link import Recorder

from skyward.agent import sockets
from skyward.wire.codec import dumps, dumps_function
from skyward.wire.digest import digest
from skyward.wire.envelopes import PROTOCOL
from skyward.wire.frames import CHUNK, Frame, FrameKind, encode
from skyward_operator.nodes.link import AgentLink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESULT = {"attempt": "u.0.1", "ok": True, "started": 1.0, "duration": 0.1, "size": 4, "chunked": False}


def fed(*frames: Frame) -> tuple[AgentLink, Recorder]:
    """A link that received these frames, and what it handed on."""
    recorder = Recorder()
    link = AgentLink(recorder)
    link.data_received(b"".join(map(encode, frames)), None)
    return link, recorder


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (FrameKind.RESULT, {}),
        (FrameKind.RESULT, RESULT | {"attempt": 7}),
        (FrameKind.RESULT, {key: value for key, value in RESULT.items() if key != "ok"}),
        (FrameKind.RESULT, RESULT | {"duration": "long"}),
        (FrameKind.RESULT, RESULT | {"duration": float("inf")}),
        (FrameKind.RESULT, RESULT | {"started": float("nan")}),
        (FrameKind.RESULT, RESULT | {"started": -1e30}),
        (FrameKind.RESULT, RESULT | {"ok": False, "error": "text"}),
        (FrameKind.STARTED, {"attempt": "u.0.1"}),
        (FrameKind.STARTED, {"attempt": "u.0.1", "time": 1e300}),
        (FrameKind.LOG, {"stream": "stdout"}),
        (FrameKind.PONG, {"t": []}),
        (FrameKind.RESULT_CHUNK, {"attempt": "u.0.1", "offset": "0", "last": True}),
        (FrameKind.REFUSED, {"attempt": "u.0.1"}),
        (FrameKind.WELCOME, {"boot_id": "b", "python": "3.13", "agent": "a", "slots": 10**9}),
        (FrameKind.WELCOME, {"boot_id": "b", "python": "3.13", "agent": "a", "slots": 1, "held": [1]}),
    ],
)
async def test_header_that_makes_no_sense_closes_the_link_and_reaches_nobody(
    kind: FrameKind, header: dict[str, Any]
) -> None:
    link, recorder = fed(Frame(kind, header))
    assert link.closed.done()
    assert kind.name in link.closed.result()
    assert not recorder.results
    assert not recorder.running


async def test_nothing_is_taken_after_a_frame_that_makes_no_sense() -> None:
    link, recorder = fed(Frame(FrameKind.RESULT, {}), Frame(FrameKind.RESULT, RESULT, b"body"))
    link.data_received(encode(Frame(FrameKind.RESULT, RESULT, b"body")), None)
    assert not recorder.results


async def test_frames_before_the_damage_arrive_as_they_were_sent_and_after_it_nothing_is_raised() -> None:
    dice = random.Random(5)
    results = [Frame(FrameKind.RESULT, RESULT | {"attempt": f"u.{n}.1"}, bytes([n]) * 1000) for n in range(4)]
    others = [
        Frame(FrameKind.STARTED, {"attempt": "u.0.1", "time": 1.0}),
        Frame(FrameKind.LOG, {"attempt": "u.0.1", "stream": "stdout", "time": 1.0}, b"text"),
        Frame(FrameKind.PONG, {"t": 1.0}),
    ]
    for _ in range(500):
        frames = dice.sample(results + others, len(results + others))
        stream = bytearray(b"".join(map(encode, frames)))
        damage = dice.randrange(len(stream))
        del stream[damage : damage + dice.randint(1, 9)]
        recorder = Recorder()
        link = AgentLink(recorder)
        while stream:
            size = dice.randint(1, 2000)
            link.data_received(bytes(stream[:size]), None)
            del stream[:size]
        end = 0
        for frame in frames:
            end += len(encode(frame))
            if frame.kind is FrameKind.RESULT and end <= damage:
                assert recorder.results[frame.header["attempt"]][1] == frame.body


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("frames"), slots=2) as made:
        yield made


def append(path: str, word: str) -> str:
    with open(path, "a") as file:
        file.write(f"{word}\n")
    return word


def script(ledger: Path, number: int) -> list[Frame]:
    """What an operator says for two calls, one of them with large arguments."""
    function = dumps_function(append)
    small, large = (dumps(((str(ledger), f"{number}.{n}"), {})) for n in range(2))
    names = digest(function), digest(large)
    call = {"task": "ns/t", "index": 0, "number": 1, "function": names[0]}
    half = len(large) // 2
    return [
        Frame(FrameKind.FUNCTION, {"digest": names[0]}, function),
        Frame(FrameKind.CALL, call | {"attempt": f"{number}.0.1"}, small),
        Frame(
            FrameKind.BLOB, {"digest": names[1], "offset": 0, "size": len(large), "last": False}, large[:half]
        ),
        Frame(
            FrameKind.BLOB,
            {"digest": names[1], "offset": half, "size": len(large), "last": True},
            large[half:],
        ),
        Frame(FrameKind.CALL, call | {"attempt": f"{number}.1.1", "args": names[1]}),
        Frame(FrameKind.CANCEL, {"attempt": "no such attempt"}),
        Frame(FrameKind.ACK, {"attempts": ["no such attempt"]}),
    ]


def holds_nothing(agent: AgentProcess) -> bool:
    """Whether the agent has forgotten everything; acknowledges what it has."""
    operator = Operator(agent.socket)
    held = [each["attempt"] for each in operator.welcome["held"]]
    operator.ack(*held)
    operator.ping()
    operator.close()
    return not held


def test_agent_that_hears_frames_shuffled_doubled_and_cut_runs_each_attempt_at_most_once(
    agent: AgentProcess, tmp_path: Path
) -> None:
    dice = random.Random(6)
    ledger = tmp_path / "ledger"
    rounds = 60
    for number in range(rounds):
        frames = script(ledger, number)
        for _ in range(dice.randint(0, 3)):
            frames.insert(dice.randrange(len(frames)), dice.choice(frames))
            frames.insert(dice.randrange(len(frames)), frames.pop(dice.randrange(len(frames))))
        stream = bytearray(b"".join(map(encode, frames)))
        match dice.randrange(3):
            case 0:
                del stream[dice.randrange(len(stream)) :]
            case 1:
                place = dice.randrange(len(stream))
                stream[place : place + 4] = dice.randbytes(4)
        with sockets.connect(agent.socket, 30) as connection:
            hello = {"protocol": PROTOCOL, "operator": "rough", "epoch": 1}
            connection.sendall(encode(Frame(FrameKind.HELLO, hello)))
            try:
                connection.sendall(stream)
            except ConnectionError:
                continue  # it had enough of us
    operator = Operator(agent.socket)
    assert operator.run("after.0.1", append, str(ledger), "after").value == "after"
    lines = ledger.read_text().splitlines()
    assert len(set(lines)) == len(lines), "an attempt ran twice"
    assert rounds // 2 < len(lines) <= 2 * rounds + 1
    operator.close()
    wait_until(lambda: holds_nothing(agent))


def test_agent_that_hears_an_unfinished_frame_lets_others_in(agent: AgentProcess) -> None:
    with sockets.connect(agent.socket, 30) as slow:
        slow.sendall(encode(Frame(FrameKind.HELLO, {"protocol": PROTOCOL, "operator": "slow", "epoch": 1})))
        slow.sendall(encode(Frame(FrameKind.BLOB, {"digest": "a" * 64}, bytes(CHUNK)))[:1000])
        operator = Operator(agent.socket)
        assert operator.ping()["running"] == 0
        operator.close()
