"""Parts of the agent that are hard to reach from outside: limits, compaction, what a machine says."""

import os
from pathlib import Path

import pytest
from tests.fake.agent_process import running_agent, wait_until

from skyward.agent import blobs as blobs_module
from skyward.agent import spool as spool_module
from skyward.agent.blobs import BlobRefused, Blobs
from skyward.agent.facts import facts, parse_gpu
from skyward.agent.spool import Spool
from skyward.wire.digest import digest
from skyward.wire.frames import FrameKind


def result(attempt: str, size: int) -> dict[str, object]:
    return {"attempt": attempt, "ok": True, "size": size}


def test_journal_is_compacted_and_keeps_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_COMPACT_ABOVE", 10_000)
    spool = Spool(tmp_path)
    spool.add(result("kept", 5), b"first")
    for i in range(100):
        spool.add(result(f"r{i}", 1000), bytes(1000))
        spool.acknowledge([f"r{i}"])
    assert (tmp_path / "journal").stat().st_size < 15_000
    spool.add(result("last", 4), b"last")
    assert [frame.body for name in ("kept", "last") for frame in spool.frames(name)] == [b"first", b"last"]
    spool.close()
    again = Spool(tmp_path)
    assert again.held() == ["kept", "last"]
    assert [frame.body for name in ("kept", "last") for frame in again.frames(name)] == [b"first", b"last"]
    again.close()


def test_result_stays_in_memory_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    spool.add(result("a", 4), b"body")
    assert [frame.body for frame in spool.frames("a")] == [b"body"]
    monkeypatch.undo()
    spool.close()


def test_what_a_dead_worker_left_is_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "77-1.result").write_bytes(b"whole")
    (tmp_path / "77-2.result").write_bytes(b"half")
    spool.add(result("a", 5), b"", tmp_path / "77-1.result")
    spool.remove_strays(77)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["77-1.result", "journal"]
    spool.close()


def put(blobs: Blobs, data: bytes, piece: int = 4) -> str:
    for offset in range(0, len(data), piece):
        last = offset + piece >= len(data)
        header = {"digest": digest(data), "offset": offset, "size": len(data), "last": last}
        blobs.receive(header, data[offset : offset + piece])
    return digest(data)


def test_blob_is_visible_when_whole_and_known_after_a_restart(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    half = {"digest": digest(b"abcdef"), "offset": 0, "size": 6, "last": False}
    blobs.receive(half, b"abc")
    assert blobs.path(digest(b"abcdef")) is None
    name = put(blobs, b"0123456789")
    path = blobs.path(name)
    assert path is not None
    assert path.read_bytes() == b"0123456789"
    blobs.drop_partial()
    assert Blobs(tmp_path).held() == [name]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_piece_out_of_order_is_refused_and_the_blob_starts_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    name = digest(b"abcdef")
    blobs.receive({"digest": name, "offset": 0, "size": 6, "last": False}, b"ab")
    with pytest.raises(BlobRefused, match="another was due"):
        blobs.receive({"digest": name, "offset": 4, "size": 6, "last": True}, b"ef")
    assert put(blobs, b"abcdef") == name
    assert blobs.held() == [name]


def test_digest_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlobRefused, match="not a digest"):
        Blobs(tmp_path).receive({"digest": "../../x", "offset": 0, "size": 1, "last": True}, b"x")


def test_longest_unused_blobs_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "_KEEP_BYTES", 20)
    blobs = Blobs(tmp_path)
    first, second, third = (put(blobs, bytes([i]) * 10) for i in range(3))
    blobs.path(first)
    blobs.evict(needed={third})
    assert blobs.held() == [third, first]
    assert blobs.path(second) is None


def test_gpu_line_is_read_and_an_error_is_not_a_gpu() -> None:
    line = "0, NVIDIA H200, GPU-5c3b8ae1, 143771, 565.57.01"
    gpu = parse_gpu(line)
    assert gpu is not None
    assert (gpu["index"], gpu["name"], gpu["memory_mib"]) == (0, "NVIDIA H200", 143771)
    assert parse_gpu("0, NVIDIA GB10, GPU-1, [N/A], 580.1") is not None
    assert parse_gpu("NVIDIA-SMI has failed because it could not communicate with the driver.") is None


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found; exit 6", "exec sleep 1000"])
def test_broken_nvidia_smi_means_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("skyward.agent.facts._GPU_TIMEOUT", 0.2)
    assert facts()["gpus"] == []


def test_workers_that_cannot_start_fail_the_calls_and_say_why(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "cloudpickle.py").write_text("raise ImportError('broken on purpose')\n")
    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        outcome = operator.run("never.0.1", lambda: 1)
        assert (outcome.error["reason"], outcome.error["kind"]) == ("WorkerDied", "System")
        assert "broken on purpose" in outcome.error["message"]
        operator.expect(FrameKind.NOTICE, reason="WorkerCannotStart")
        operator.slice("never.1.1", lambda n: n, range(3))
        assert operator.ends("never.1.1", 3).reasons() == dict.fromkeys((1, 2, 3), "WorkerDied")
        (tmp_path / "work" / "cloudpickle.py").unlink()
        wait_until(lambda: operator.run(f"now.{os.urandom(4).hex()}.1", lambda: 1).header["ok"])
        operator.close()


def test_function_larger_than_a_frame_travels_as_a_blob(tmp_path: Path) -> None:
    from skyward.wire.codec import dumps, dumps_function

    table = os.urandom(6_000_000)
    data = dumps_function(lambda i: table[i])
    with running_agent(tmp_path) as agent:
        operator = agent.connect()
        name = operator.blob(data)
        for i in (5, 6):
            header = {"attempt": f"f.{i}.1", "task": "t", "index": i, "number": 1, "function": name}
            operator.send(FrameKind.CALL, header, dumps(((i,), {})))
            assert operator.result(f"f.{i}.1").value == table[i]
        operator.close()
