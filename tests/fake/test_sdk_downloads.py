"""Results too large for an object: whole where the way was cut, an error where other bytes came."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import skyward as sky
from skyward.console.plain import SilentConsole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fake.sdk_plane import FakePlane

    from skyward.pools import Pool

SILENT = sky.Options(console="silent")


@pytest.fixture
def pool(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.setattr("skyward.cluster.download._PAUSE_SECONDS", 0.01)
    with sky.Compute(provider=sky.Local(), options=SILENT) as pool:
        yield pool


@sky.function
def noise(size: int) -> Any:
    return np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)


def expected(size: int) -> Any:
    return np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)


def test_a_download_that_is_cut_goes_on_from_there(plane: FakePlane, pool: Pool) -> None:
    plane.cut_downloads_after = 1_000_000
    result = noise(3_500_000) >> pool
    assert (result == expected(3_500_000)).all()
    assert plane.downloads == [0, 1_000_000, 2_000_000, 3_000_000]


def test_a_large_result_says_how_much_of_it_has_come(
    plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("skyward.session.TOLD_BYTES", 1_000_000)
    monkeypatch.setattr(SilentConsole, "update", lambda self, subject, text, *, after=0.0: shown.append(text))
    with sky.Compute(provider=sky.Local(), options=SILENT) as pool:
        noise(3_500_000) >> pool
    come = [text for text in shown if text.endswith(" of 4 MB of its result have come")]
    assert len(come) >= 3
    assert come == sorted(come)


def test_a_large_array_lies_in_the_file_it_came_in_and_may_be_written_to(pool: Pool) -> None:
    result = noise(3_000_000) >> pool
    assert not result.flags.owndata
    assert result.flags.writeable
    result[:] = 7
    assert (result == 7).all()


def test_a_small_value_does_not_keep_those_that_came_with_it(pool: Pool) -> None:
    small, large = (noise(100_000) & noise(3_000_000)) >> pool
    assert (small == expected(100_000)).all()
    assert (large == expected(3_000_000)).all()
    assert isinstance(_root(small), bytearray)
    assert not isinstance(_root(large), bytearray)


def test_a_result_with_other_bytes_is_never_a_value(
    plane: FakePlane, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_to_it = plane._send_result

    async def damage(request: Any, data: bytes) -> Any:
        return await true_to_it(request, data[:-5] + b"wrong")

    monkeypatch.setattr(plane, "_send_result", damage)
    with pytest.raises(sky.GatewayError, match="is damaged: its digest is") as caught:
        noise(200_000) >> pool
    assert caught.value.task


def test_a_result_that_is_longer_than_its_task_says_is_refused(
    plane: FakePlane, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_to_it = plane._send_result

    async def lengthen(request: Any, data: bytes) -> Any:
        return await true_to_it(request, data + b"more")

    monkeypatch.setattr(plane, "_send_result", lengthen)
    with pytest.raises(sky.GatewayError, match="is larger than the"):
        noise(200_000) >> pool


def test_a_download_that_never_goes_on_ends_with_an_error(
    plane: FakePlane, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward.cluster.download.PATIENCE_SECONDS", 0.2)
    plane.cut_downloads_after = 0
    with pytest.raises(sky.GatewayError, match="could not be fetched") as caught:
        noise(200_000) >> pool
    assert "skyward local status" in str(caught.value)
    assert len(plane.downloads) > 1


def test_no_place_for_a_result_says_where_one_is_needed(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-such-folder"))
    with pytest.raises(sky.GatewayError, match="cannot be stored here") as caught:
        noise(200_000) >> pool
    assert "TMPDIR" in str(caught.value)


def _root(array: Any) -> Any:
    """What the memory of an array belongs to."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array
