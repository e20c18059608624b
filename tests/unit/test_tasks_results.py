"""Files of outcomes: durable in order, readable after any crash, hashed as they grow."""

from __future__ import annotations

import asyncio
import os
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from skyward.wire.envelopes import ErrorInfo
from skyward.wire.outcomes import Outcome, digest_outcomes, iter_outcomes, scan_outcomes
from skyward_operator.nodes.received import ROOM, Part
from skyward_operator.tasks.results import ResultFile

if TYPE_CHECKING:
    from pathlib import Path

BAD = ErrorInfo("ValueError", "no")


def digest_of(data: bytes) -> str:
    """The digest of a stream of outcomes, from its bytes alone."""
    return digest_outcomes(BytesIO(data))


async def fill(file: ResultFile, count: int, start: int = 0) -> list[int]:
    """Append outcomes; the indexes in the order in which they became durable."""
    durable: list[int] = []
    for index in range(start, start + count):
        outcome = Outcome(index, index % 5 != 3, error=BAD if index % 5 == 3 else None)
        if file.add(outcome, f"body {index}".encode(), lambda index=index: durable.append(index)):  # type: ignore[misc]
            drain = asyncio.create_task(file.drain())
    await file.flushed()
    await drain
    return durable


async def test_outcomes_become_durable_in_order(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "task" / "results")
    assert await fill(file, 100) == list(range(100))
    data = file.path.read_bytes()
    assert [outcome.index for outcome in iter_outcomes(data)] == list(range(100))
    assert (file.digest, file.size) == (digest_of(data), len(data))


async def test_recovered_file_says_what_ended_and_grows_on(tmp_path: Path) -> None:
    await fill(ResultFile(tmp_path / "results"), 10)
    again = ResultFile(tmp_path / "results")
    found = again.recover()
    assert str(found.succeeded) == "0-2,4-7,9"
    assert str(found.failed) == "3,8"
    assert found.first_failure is not None
    assert found.first_failure.index == 3
    await fill(again, 5, start=10)
    data = again.path.read_bytes()
    assert len(list(iter_outcomes(data))) == 15
    assert again.digest == digest_of(data)


@pytest.mark.parametrize("cut", [1, 3, 20, 60])
async def test_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "results"
    await fill(ResultFile(path), 10)
    path.write_bytes(path.read_bytes()[:-cut])
    again = ResultFile(path)
    found = again.recover()
    assert len(found.succeeded) + len(found.failed) == 9
    assert len(list(iter_outcomes(path.read_bytes()))) == 9
    assert again.digest == digest_of(path.read_bytes())


async def test_batch_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward_operator.tasks.results._RETRY_SECONDS", 0.0)
    file = ResultFile(tmp_path / "results")
    await fill(file, 3)
    original, failures = file._append, [OSError(28, "No space left on device")]

    def failing(batch: list[Any]) -> None:
        if failures:
            with file.path.open("ab") as torn:
                torn.write(b"half of a rec")
            raise failures.pop()
        original(batch)

    monkeypatch.setattr(file, "_append", failing)
    assert await fill(file, 3, start=3) == [3, 4, 5]
    assert [outcome.index for outcome in iter_outcomes(file.path.read_bytes())] == list(range(6))
    assert file.trouble is None


def received(folder: Path, data: bytes) -> Any:
    """A large result as a link leaves it."""
    part = Part(folder / "incoming" / f"{len(data)}.part", len(data))
    part.append([data[:1000], data[1000:]])
    return part.finish()


async def test_large_results_stand_among_others_and_leave_no_file_behind(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "task" / "results")
    bodies = [os.urandom(300_000), b"small", os.urandom(200_001), os.urandom(100_000)]
    for index, body in enumerate(bodies):
        given = body if len(body) < 1000 else received(tmp_path, body)
        if file.add(Outcome(index, True), given, lambda: None):
            drain = asyncio.create_task(file.drain())
        if index == 0:
            await drain
            assert file.path.stat().st_size == ROOM + 300_000  # it became the file itself
    await drain
    data = file.path.read_bytes()
    assert [bytes(outcome.body) for outcome in iter_outcomes(data)] == bodies
    large = [located for located in scan_outcomes(BytesIO(data)) if located.size > 1000]
    assert [located.offset % 64 for located in large] == [0, 0, 0]
    assert file.digest == digest_of(data)
    assert list((tmp_path / "incoming").iterdir()) == []
    again = ResultFile(file.path)
    assert str(again.recover().succeeded) == "0-3"
    assert (again.digest, again.size) == (file.digest, len(data))


async def test_batch_that_failed_behind_a_large_first_result_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward_operator.tasks.results._RETRY_SECONDS", 0.0)
    file = ResultFile(tmp_path / "task" / "results")
    original, failures = file._extend, [OSError(28, "No space left on device")]

    def failing(batch: list[Any], size: int) -> Any:
        if failures:
            raise failures.pop()
        return original(batch, size)

    monkeypatch.setattr(file, "_extend", failing)
    large = os.urandom(300_000)
    file.add(Outcome(0, True), received(tmp_path, large), lambda: None)
    file.add(Outcome(1, True), b"second", lambda: None)
    await file.drain()
    data = file.path.read_bytes()
    assert [bytes(outcome.body) for outcome in iter_outcomes(data)] == [large, b"second"]
    assert file.digest == digest_of(data)
