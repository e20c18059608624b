"""Files of outcomes: durable in order, readable after any crash, hashed as they grow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from skyward.wire.digest import digest
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.outcomes import Outcome, iter_outcomes
from skyward_operator.tasks.results import ResultFile

if TYPE_CHECKING:
    from pathlib import Path

BAD = ErrorInfo("ValueError", "no")


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
    assert (file.digest, file.size) == (digest(data), len(data))


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
    assert again.digest == digest(data)


@pytest.mark.parametrize("cut", [1, 3, 20, 60])
async def test_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "results"
    await fill(ResultFile(path), 10)
    path.write_bytes(path.read_bytes()[:-cut])
    again = ResultFile(path)
    found = again.recover()
    assert len(found.succeeded) + len(found.failed) == 9
    assert len(list(iter_outcomes(path.read_bytes()))) == 9
    assert again.digest == digest(path.read_bytes())


async def test_batch_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward_operator.tasks.results._RETRY_SECONDS", 0.0)
    file = ResultFile(tmp_path / "results")
    await fill(file, 3)
    original, failures = file._append, [OSError(28, "No space left on device")]

    def failing(parts: list[bytes]) -> None:
        if failures:
            with file.path.open("ab") as torn:
                torn.write(b"half of a rec")
            raise failures.pop()
        original(parts)  # type: ignore[arg-type]

    monkeypatch.setattr(file, "_append", failing)
    assert await fill(file, 3, start=3) == [3, 4, 5]
    assert [outcome.index for outcome in iter_outcomes(file.path.read_bytes())] == list(range(6))
    assert file.trouble is None
