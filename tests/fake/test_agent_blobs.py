"""Large parts of arguments at the agent: awaited by their calls, taken in turn, refused with the reason."""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.fake.agent_process import AgentProcess, Operator, running_agent

from skyward.wire.apart import Apart
from skyward.wire.codec import dumps_apart, dumps_function
from skyward.wire.digest import digest
from skyward.wire.frames import CHUNK, FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skyward.wire.parts import Part


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path, slots=2) as agent:
        yield agent


def total(array: Any) -> int:
    return int(array.sum(dtype=np.int64))


def arguments(size: int) -> tuple[Any, bytes, list[Part]]:
    """An array, the arguments of a call with it, and what stands apart of them."""
    array = np.frombuffer(os.urandom(size), np.uint8)
    return array, *dumps_apart(((array,), {}), Apart())


def send(operator: Operator, attempt: str, body: bytes, parts: list[Part], function: Any = total) -> None:
    """A call whose large parts were sent, or are on their way."""
    data = dumps_function(function)
    operator.send(FrameKind.FUNCTION, {"digest": digest(data)}, data)
    header = {"attempt": attempt, "task": "default/t", "index": 0, "number": 1, "function": digest(data)}
    operator.send(FrameKind.CALL, header | {"blobs": [part.digest for part in parts]}, body)


def test_a_call_waits_for_its_parts_and_finds_them(agent: AgentProcess) -> None:
    operator = agent.connect()
    array, body, parts = arguments(12_000_000)
    operator.blob(b"".join(parts[0].pieces))
    send(operator, "parts.0.1", body, parts)
    assert operator.result("parts.0.1").value == total(array)
    send(operator, "parts.1.1", body, parts)  # it is there already
    assert operator.result("parts.1.1").value == total(array)
    ends = [frame.header for frame in operator.frames if frame.kind is FrameKind.TAKEN]
    assert ends[-1] == {"digest": parts[0].digest, "offset": parts[0].size}
    assert operator.ping()["running"] == 0
    operator.close()


def test_a_call_with_a_part_that_never_came_is_refused_and_names_it(agent: AgentProcess) -> None:
    operator = agent.connect()
    _, body, parts = arguments(100_000)
    send(operator, "never.0.1", body, parts)
    refused = operator.expect(FrameKind.REFUSED).header
    assert (refused["reason"], refused["digest"]) == ("BlobMissing", parts[0].digest)
    operator.close()


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_part_that_was_changed_on_the_node_is_sent_again_and_never_used(
    tmp_path: Path, harm: str, restart: bool
) -> None:
    array, body, parts = arguments(4_000_000)

    def spoil(agent: AgentProcess) -> None:
        path = agent.home / "blobs" / parts[0].digest
        if harm == "remove":
            path.unlink()
        elif harm == "cut":
            os.truncate(path, 4096)
        else:
            with path.open("r+b") as file:
                file.seek(2_000_000)
                file.write(bytes([array[2_000_000] ^ 255]))

    with running_agent(tmp_path, slots=1) as agent:
        operator = agent.connect()
        operator.blob(b"".join(parts[0].pieces))
        send(operator, "parts.0.1", body, parts)
        assert operator.result("parts.0.1").value == total(array)
        spoil(agent)
        if not restart:
            send(operator, "parts.1.1", body, parts)
            refused = operator.expect(FrameKind.REFUSED).header
            assert (refused["reason"], refused["digest"]) == ("BlobMissing", parts[0].digest)
            assert "was changed or removed on the node's disk" in refused["message"]
            operator.blob(b"".join(parts[0].pieces))
            send(operator, "parts.1.1", body, parts)
            assert operator.result("parts.1.1").value == total(array)
        operator.close()
    if restart:
        with running_agent(tmp_path, slots=1) as agent:
            operator = agent.connect(2)
            assert parts[0].digest not in operator.welcome["blobs"]
            operator.close()


def test_a_part_that_goes_while_its_call_waits_fails_it_with_the_right_words(
    agent: AgentProcess, tmp_path: Path
) -> None:
    operator = agent.connect()
    _, body, parts = arguments(1_000_000)
    (tmp_path / "hold").touch()

    def wait(path: str) -> None:
        while os.path.exists(path):
            time.sleep(0.01)

    operator.blob(b"".join(parts[0].pieces))
    for number in range(2):
        operator.call(f"wait.{number}.1", wait, str(tmp_path / "hold"))
        operator.expect(FrameKind.STARTED, attempt=f"wait.{number}.1")
    send(operator, "parts.0.1", body, parts)
    operator.ping()
    (agent.home / "blobs" / parts[0].digest).unlink()
    (tmp_path / "hold").unlink()
    error = operator.result("parts.0.1").error
    assert (error["kind"], error["reason"]) == ("System", "PayloadInvalid")
    assert "changed or removed on the disk" in error["message"]
    operator.close()


def test_a_part_that_nobody_touched_is_there_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    array, body, parts = arguments(4_000_000)
    with running_agent(tmp_path, slots=1) as agent:
        operator = agent.connect()
        operator.blob(b"".join(parts[0].pieces))
        send(operator, "parts.0.1", body, parts)
        operator.result("parts.0.1")
        operator.close()
    with running_agent(tmp_path, slots=1) as agent:
        operator = agent.connect(2)
        assert operator.welcome["blobs"] == [parts[0].digest]
        send(operator, "parts.1.1", body, parts)
        assert operator.result("parts.1.1").value == total(array)
        operator.close()


def test_a_cancel_behind_a_call_that_still_waits_for_its_parts_ends_it(agent: AgentProcess) -> None:
    operator = agent.connect()
    _, body, parts = arguments(12_000_000)

    def forever(array: Any) -> None:
        while True:
            time.sleep(0.01)

    operator.blob(b"".join(parts[0].pieces))
    send(operator, "cancel.0.1", body, parts, forever)
    operator.send(FrameKind.CANCEL, {"attempt": "cancel.0.1", "grace": 5.0})
    assert operator.result("cancel.0.1").error["reason"] == "Cancelled"
    assert operator.run("after.0.1", lambda: 7).value == 7
    operator.close()


def test_parts_that_do_not_fit_the_disk_are_refused_once_and_all_else_goes_on(agent: AgentProcess) -> None:
    operator = agent.connect()
    array, body, parts = arguments(4 * CHUNK)
    pid = operator.ping()["pid"]
    room = resource.prlimit(pid, resource.RLIMIT_FSIZE, (2 * CHUNK, resource.RLIM_INFINITY))
    operator.blob(b"".join(parts[0].pieces))
    send(operator, "full.0.1", body, parts)
    refused = operator.expect(FrameKind.REFUSED, attempt="full.0.1").header
    assert refused["reason"] == "BlobNotStored"
    assert "cannot be stored on the node: File too large" in refused["message"]
    assert "bytes are free there" in refused["message"]
    assert operator.run("full.1.1", lambda: 7).value == 7
    notices = [frame.header for frame in operator.frames if frame.kind is FrameKind.NOTICE]
    assert [notice["digest"] for notice in notices] == [parts[0].digest]
    assert not list(agent.home.glob("blobs/*"))

    resource.prlimit(pid, resource.RLIMIT_FSIZE, room)
    operator.blob(b"".join(parts[0].pieces))
    send(operator, "full.0.1", body, parts)
    assert operator.result("full.0.1").value == total(array)
    operator.close()


def test_parts_of_an_operator_that_went_come_again_whole(agent: AgentProcess) -> None:
    array, body, parts = arguments(4 * CHUNK)
    whole = b"".join(parts[0].pieces)
    first = agent.connect()
    for offset in (0, CHUNK):
        header = {"digest": parts[0].digest, "offset": offset, "size": len(whole), "last": False}
        first.send(FrameKind.BLOB, header, whole[offset : offset + CHUNK])
    first.expect(FrameKind.TAKEN)
    second = agent.connect(2)
    second.blob(whole)
    send(second, "again.0.1", body, parts)
    assert second.result("again.0.1").value == total(array)
    first.close()
    second.close()


def test_an_operator_that_sends_ahead_of_the_disk_is_held_up_and_nothing_is_lost(agent: AgentProcess) -> None:
    """It pays no heed to what is taken."""
    operator = agent.connect()
    array, body, parts = arguments(40_000_000)
    operator.blob(b"".join(parts[0].pieces))
    send(operator, "ahead.0.1", body, parts)
    assert operator.result("ahead.0.1").value == total(array)
    operator.close()


@pytest.mark.parametrize(
    "wrong",
    [{"digest": "../../x"}, {"offset": -1}, {"offset": "0"}, {"size": None}, {"last": 1}, {"digest": 5}],
    ids=str,
)
def test_pieces_that_make_no_sense_are_refused_and_the_agent_lives_on(
    agent: AgentProcess, wrong: dict[str, Any]
) -> None:
    operator = agent.connect()
    header = {"digest": digest(b"x"), "offset": 0, "size": 1, "last": True} | wrong
    operator.send(FrameKind.BLOB, header, b"x")
    assert operator.expect(FrameKind.REFUSED).header["reason"] == "Malformed"
    assert operator.run("alive.0.1", lambda: 7).value == 7
    operator.close()
