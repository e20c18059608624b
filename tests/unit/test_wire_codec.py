"""Codec: values, functions and exceptions survive the journey to a process that has none of our modules."""

import ctypes
import mmap
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.wire.codec import dumps, dumps_arguments, dumps_function, dumps_parts, loads
from skyward.wire.errors import NotDeserializable, NotPicklable
from skyward.wire.raised import dumps_error, loads_error

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=99),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)
LOCK = threading.Lock()


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Holder:
    def __init__(self) -> None:
        self.parts = {"a": [1, threading.Lock()]}


class Needs(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


@given(values)
def test_values_come_back(value: Any) -> None:
    assert loads(dumps(value)) == value


@given(st.integers(0, 200_000), st.booleans())
def test_arrays_come_back_writable(size: int, random: bool) -> None:
    array = np.random.default_rng(0).integers(0, 255, size, dtype="u1") if random else np.zeros(size, "u1")
    back = loads(dumps([array, "beside"]))[0]
    assert np.array_equal(back, array)
    back += 1


def test_large_array_is_copied_once_and_not_compressed_for_nothing() -> None:
    array = np.random.default_rng(0).integers(0, 255, 1_000_000, dtype="u1")
    parts = dumps_parts(array)
    assert any(isinstance(part, memoryview) and part.nbytes == array.nbytes for part in parts)


def test_what_shrinks_is_compressed() -> None:
    assert len(dumps(np.zeros(1_000_000))) < 100_000
    assert len(dumps("words " * 100_000)) < 50_000


def test_array_in_a_writable_buffer_is_used_in_place_and_aligned() -> None:
    data = bytearray(dumps(np.random.default_rng(0).random(100_000)))
    back = loads(data)
    assert np.shares_memory(back, np.frombuffer(data, dtype="u1"))


def test_array_that_is_not_contiguous_comes_back() -> None:
    array = np.arange(100_000).reshape(100, 1000)[::2, ::3]
    assert np.array_equal(loads(dumps(array)), array)


def elsewhere(data: bytes, code: str) -> str:
    """Run `code` with `data` in a process that cannot import this test."""
    program = "import sys\nfrom skyward.wire.codec import *\ngot = loads(sys.stdin.buffer.read())\n"
    done = subprocess.run(
        [sys.executable, "-c", program + textwrap.dedent(code)], input=data, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_callers_own_class_goes_by_value_and_stays_the_same_class() -> None:
    sent = dumps(Point(4))
    assert elsewhere(sent, "print(got.x)") == "4"
    back = elsewhere(sent, "got.x = 5; print(dumps(got).hex())")
    assert type(loads(bytes.fromhex(back))) is Point


def test_function_of_the_callers_module_goes_with_what_it_uses() -> None:
    def use(x: int) -> int:
        return Point(x).x + 1

    assert elsewhere(dumps_function(use), "print(got(2))") == "3"


def test_callers_module_goes_along_without_what_cannot_be_pickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "callers_settings.py").write_text(
        "import threading\nRATE = 3\nLOCK = threading.Lock()\ndef double():\n    return RATE * 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import callers_settings  # type: ignore[import-not-found]

    def use() -> int:
        return int(callers_settings.double())

    def use_lock() -> object:
        return callers_settings.LOCK

    assert elsewhere(dumps_function(use), "print(got())") == "6"
    code = "try: got()\nexcept AttributeError as error: print(error)"
    assert "stayed behind" in elsewhere(dumps_function(use_lock), code)


def test_part_of_skyward_that_nodes_lack_is_refused_where_it_is_sent() -> None:
    from skyward.wire.origin import stays_here

    assert stays_here("skyward.pools")
    assert stays_here("skyward_operator.tasks")
    assert not stays_here("skyward")
    assert not stays_here("skyward.wire.frames")
    pool = type("Compute", (), {"__module__": "skyward.pools"})
    with pytest.raises(NotPicklable, match=r"argument 1 .*exists on the client only"):
        dumps_arguments((pool(),), {})


def test_registry_of_cloudpickle_is_left_as_it_was() -> None:
    import cloudpickle

    before = set(cloudpickle.list_registry_pickle_by_value())
    dumps_function(lambda: Point(1))
    assert set(cloudpickle.list_registry_pickle_by_value()) == before


def test_part_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(NotPicklable, match=r"argument 2\.parts\['a'\]\[1\] \(a _thread.lock\)"):
        dumps_arguments((1, Holder()), {})
    with pytest.raises(NotPicklable, match=r"argument 'holder'\.parts"):
        dumps_arguments((), {"holder": Holder()})


def test_variable_that_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()

    def closure() -> object:
        return lock

    def global_one() -> object:
        return LOCK

    with pytest.raises(NotPicklable, match="closure, its variable 'lock'"):
        dumps_function(closure)
    with pytest.raises(NotPicklable, match="global_one, its global 'LOCK'"):
        dumps_function(global_one)


def test_object_nested_too_deeply_is_said() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(NotPicklable, match="deep recursion"):
        dumps(nested)


def test_missing_module_is_named() -> None:
    with pytest.raises(NotDeserializable) as caught:
        loads(b"\x80\x05cno_such.module\nthing\n.")
    assert caught.value.missing == "no_such"


@given(st.binary(max_size=60))
def test_damaged_payload_is_an_error_in_words(noise: bytes) -> None:
    with pytest.raises(NotDeserializable):
        loads(b"\x01SKY" + noise[:6] + b"\xff" * 40)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_exception_comes_back_with_causes_contexts_and_notes() -> None:
    error = ValueError("outer")
    error.add_note("a note")
    error.__cause__ = KeyError("inner")
    error.__cause__.__context__ = OSError(2, "deepest")
    body, info = dumps_error(raised(error))
    back = loads_error(body)
    assert isinstance(back, ValueError)
    assert back.__notes__ == ["a note"]
    assert isinstance(back.__cause__, KeyError)
    assert isinstance(back.__cause__.__context__, OSError)
    assert (info.type, info.message, info.module) == ("ValueError", "outer", "builtins")
    assert "a note" in info.traceback


def test_exception_whose_init_takes_other_arguments_comes_back_as_itself() -> None:
    error = Needs(1, 2)
    error.add_note("a note")
    body, info = dumps_error(raised(error))
    back = loads_error(body)
    assert type(back) is Needs
    assert (str(back), back.args, back.__notes__) == ("1 and 2", ("1 and 2",), ["a note"])
    assert (info.type, info.message) == ("Needs", "1 and 2")


def test_exception_that_does_not_round_trip_is_told_in_words_only() -> None:
    error = ValueError("it holds a lock")
    error.lock = LOCK  # type: ignore[attr-defined]
    body, info = dumps_error(raised(error))
    assert body == b""
    assert (info.type, info.message) == ("ValueError", "it holds a lock")


def test_cause_that_does_not_round_trip_costs_the_exception_nothing() -> None:
    error = ValueError("outer")
    error.__cause__ = OSError("inner", LOCK)
    back = loads_error(dumps_error(raised(error))[0])
    assert isinstance(back, ValueError)
    assert str(back.__cause__).startswith("OSError: [Errno inner]")


def test_exception_that_is_its_own_cause_comes_back() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    back = loads_error(dumps_error(first)[0])
    assert back.__cause__ is not None
    assert back.__cause__.__cause__ is back


def test_exception_that_cannot_be_shown_is_still_an_error() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    _, info = dumps_error(raised(Broken()))
    assert info.type.endswith("Broken")


def test_endless_message_is_cut_in_the_middle() -> None:
    _, info = dumps_error(raised(ValueError("x" * 1_000_000)))
    assert len(info.message) < 40_000
    assert "left out" in info.message


def test_large_bytes_in_a_mapped_file_are_in_memory_once(tmp_path: Path) -> None:
    value = [os.urandom(1 << 20) * 24, "ä" * (8 << 20), np.arange(3_000_000), b"small"]
    path = tmp_path / "result"
    path.write_bytes(b"something before it" + dumps(value))
    with path.open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    found = loads(whole[19:])
    resident = _resident(whole)
    assert resident < 3 << 20  # but for the last pages of it, and the array that nobody has looked at
    assert found[:2] == value[:2]
    np.testing.assert_array_equal(found[2], value[2])
    assert found[3] == b"small"
    found[2][:] = 7
    assert (found[2] == 7).all()


def _resident(whole: memoryview) -> int:
    """Bytes of a mapping that are in this process's memory."""
    begin = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if line.startswith(f"{begin:x}-"))
    return int(next(line for line in lines if line.startswith("Rss:")).split()[1]) * 1024
