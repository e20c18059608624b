"""What stands apart from a pickle: nothing is copied, what is shared is one part, all of it comes back."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from skyward.wire.apart import LARGE, Apart
from skyward.wire.codec import dumps, dumps_apart, dumps_function_apart, loads
from skyward.wire.digest import digest
from skyward.wire.errors import Damaged, NotDeserializable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from skyward.wire.digest import BytesLike
    from skyward.wire.parts import Part

MANY = 300_000


def files(folder: Path, parts: list[Part]) -> dict[str, Path]:
    """The parts as files, as a node has them."""
    found = {}
    for part in parts:
        found[part.digest] = folder / part.digest
        found[part.digest].write_bytes(b"".join(part.pieces))
        assert digest(found[part.digest].read_bytes()) == part.digest
        assert found[part.digest].stat().st_size == part.size
    return found


NOISE = os.urandom(MANY)
VALUES: list[Any] = [
    NOISE,
    bytearray(NOISE),
    "ä" * MANY,
    b"\0" * MANY,
    [NOISE, b"small", bytearray(NOISE[1:])],
    {"key": (NOISE, NOISE)},
    list(range(MANY)),
    [str(number) * 20 for number in range(20_000)],
    {"text": "x" * LARGE, "more": [b"y" * (LARGE - 1), NOISE]},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_come_back_from_their_parts(value: Any, tmp_path: Path) -> None:
    data, parts = dumps_apart(value, Apart())
    assert len(data) < 2 * LARGE
    assert parts
    found = loads(data, files(tmp_path, parts))
    assert found == value
    assert type(found) is type(value)


def test_arrays_come_back_writable_and_each_reader_has_its_own(tmp_path: Path) -> None:
    value = np.random.default_rng(1).random((300, 400))
    data, parts = dumps_apart(([value, value.T, value[::2]],), Apart())
    there = files(tmp_path, parts)
    (first,), (second,) = loads(data, there), loads(data, there)
    for found, wanted in zip(first, [value, value.T, value[::2]], strict=True):
        np.testing.assert_array_equal(found, wanted)
    first[0][:] = 0
    np.testing.assert_array_equal(second[0], value)


def test_arrays_that_shrink_come_back(tmp_path: Path) -> None:
    value = np.zeros(1_000_000)
    data, (part,) = dumps_apart(value, Apart())
    assert part.size < value.nbytes // 50
    found = loads(data, files(tmp_path, [part]))
    found += 1
    np.testing.assert_array_equal(found, value + 1)


def test_small_values_stay_as_they_were() -> None:
    assert dumps_apart((1, "x"), Apart())[1] == []
    assert loads(dumps_apart((1, b"x" * (LARGE - 100)), Apart())[0]) == (1, b"x" * (LARGE - 100))


def test_nothing_large_is_copied() -> None:
    noise = os.urandom(1 << 20) * 32
    values = (noise, bytearray(noise), np.frombuffer(noise, np.uint8))
    tracemalloc.start()
    try:
        _, parts = dumps_apart(values, Apart())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert len(parts) == 3
    assert len({part.digest for part in parts}) == 1  # and the same bytes are one part


def test_shared_objects_are_read_once_and_are_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from skyward.wire import apart as module

    reads: list[int] = []
    real = module._digest

    def counted(pieces: Iterable[BytesLike]) -> str:
        reads.append(1)
        return real(pieces)

    monkeypatch.setattr(module, "_digest", counted)
    apart, noise, grid = Apart(), os.urandom(MANY), np.random.default_rng(2).random(100_000)
    found = [dumps_apart((number, noise, grid), apart)[1] for number in range(10)]
    assert len(reads) == 2
    assert {part.digest for parts in found for part in parts} == {part.digest for part in found[0]}


class Window:
    """A part of a buffer that others have parts of, too."""

    def __init__(self, buffer: bytearray, begin: int, end: int) -> None:
        self.view = memoryview(buffer)[begin:end]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self.view),)


def test_slices_of_one_buffer_are_parts_of_their_own(tmp_path: Path) -> None:
    """The same owner, the same size, other bytes: identity must not stand for them."""
    buffer, apart = bytearray(os.urandom(2 * MANY)), Apart()
    for begin in (0, MANY):
        data, parts = dumps_apart(Window(buffer, begin, begin + MANY), apart)
        assert loads(data, files(tmp_path, parts)) == buffer[begin : begin + MANY]


def test_buffers_that_change_are_copied_unless_they_are_steady(tmp_path: Path) -> None:
    grid, apart = np.zeros(100_000, np.float64), Apart(steady=False)
    grid[:] = np.random.default_rng(3).random(100_000)
    before = grid.copy()
    data, parts = dumps_apart(grid, apart)
    grid[:] = np.random.default_rng(4).random(100_000)
    more, others = dumps_apart(grid, apart)
    np.testing.assert_array_equal(loads(data, files(tmp_path, parts)), before)
    np.testing.assert_array_equal(loads(more, files(tmp_path, others)), grid)


def test_a_mapped_file_goes_as_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(NOISE)
    data, parts = dumps_apart(np.memmap(tmp_path / "file", mode="r"), Apart())
    assert [part.digest for part in parts] == [digest(NOISE)]
    found = loads(data, files(tmp_path, parts))
    assert bytes(found) == NOISE
    found[0] ^= 1


def private_bytes() -> int:
    """Memory of this process that no file stands behind."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("by_value", [False, True])
def test_a_mapped_file_is_not_copied_and_is_read_once_for_all_calls(tmp_path: Path, by_value: bool) -> None:
    size = 64 << 20
    with (tmp_path / "file").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    mapped = np.memmap(tmp_path / "file", dtype=np.float32, mode="r").reshape(-1, 1024)
    apart, before = Apart(), private_bytes()
    found = [dumps_apart((mapped, (lambda: 1) if by_value else 1), apart) for _ in range(2)]
    assert private_bytes() - before < size // 4
    (one,), (other,) = (parts for _, parts in found)
    assert one is other
    assert one.size == size
    value, _ = loads(found[0][0], files(tmp_path, [one]))
    assert type(value) is np.ndarray
    assert value.shape == mapped.shape
    assert value.tobytes() == (tmp_path / "file").read_bytes()


def test_mapped_files_of_other_shapes_arrive_as_the_same_arrays(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(NOISE)
    whole = np.memmap(tmp_path / "file", dtype=np.uint8, mode="r", shape=(len(NOISE) // 4, 4), order="F")
    for view in (whole, whole[:3], whole[::2], whole.T, whole[5:], whole[:, 1], whole[:, 1][:50]):
        data, parts = dumps_apart([b"before", view, view], Apart())
        for back in (
            loads(data, files(tmp_path, parts))[1],
            loads(dumps(view)),
            loads(bytearray(dumps(view))),
        ):
            assert type(back) is np.ndarray
            np.testing.assert_array_equal(back, view)
            back[...] = 7
    assert (tmp_path / "file").read_bytes() == NOISE


def test_what_a_function_refers_to_stands_apart(tmp_path: Path) -> None:
    noise = os.urandom(MANY)
    data, parts = dumps_function_apart(lambda: len(noise), Apart())
    assert len(data) < 4096
    assert [part.size for part in parts] == [MANY]
    assert loads(data, files(tmp_path, parts))() == MANY


def test_arrays_of_the_standard_library_come_back(tmp_path: Path) -> None:
    value = array("d", [float(number) for number in range(MANY)])
    data, parts = dumps_apart(value, Apart())
    assert loads(data, files(tmp_path, parts)) == value


def test_missing_and_damaged_parts_are_errors(tmp_path: Path) -> None:
    data, parts = dumps_apart((NOISE, np.frombuffer(os.urandom(MANY), np.uint8)), Apart())
    there = files(tmp_path, parts)
    with pytest.raises(NotDeserializable):
        loads(data)
    for part in parts:
        path = there[part.digest]
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(NotDeserializable):
            loads(data, there)
        path.unlink()
        with pytest.raises(Damaged, match="changed or removed on the disk"):
            loads(data, there)
        path.write_bytes(whole)
    for size in range(0, len(data), 7):
        with pytest.raises(NotDeserializable):
            loads(data[:size], there)
