"""Packages of calls and streams of outcomes: round trips, slices, appends, and damage."""

import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.wire.digest import digest, digest_file, is_digest
from skyward.wire.envelopes import ErrorInfo, attempt_id, parse_attempt
from skyward.wire.outcomes import digest_outcomes
from skyward.wire.package import (
    CallOptions,
    CallPackage,
    Outcome,
    PackageError,
    PartsIndex,
    iter_outcomes,
    outcome_head,
    pack_calls,
    pack_outcomes,
    scan_outcomes,
    write_calls,
)
from skyward.wire.parts import Part
from skyward.wire.passing import PassingDigest

functions = st.lists(st.binary(max_size=40), min_size=1, max_size=4)
errors = st.builds(
    ErrorInfo,
    type=st.text(max_size=9),
    message=st.text(max_size=9),
    kind=st.sampled_from(["User", "System"]),
    reason=st.text(max_size=9),
)
options = st.builds(CallOptions, *[st.integers(0, 2**32 - 1)] * 5)
outcomes = st.builds(
    Outcome,
    index=st.integers(0, 2**31),
    ok=st.booleans(),
    body=st.binary(max_size=100),
    error=st.none() | errors,
    node=st.text(max_size=9),
    rank=st.integers(0, 1000),
    attempt=st.text(max_size=9),
    started=st.floats(0, 2e9),
    duration=st.floats(0, 1e6),
    value=st.none() | st.integers(0, 9) | st.text(max_size=5),
)


@given(functions, st.data())
def test_package_gives_back_every_call(functions: list[bytes], data: st.DataObject) -> None:
    which = st.integers(0, len(functions) - 1)
    calls = data.draw(st.lists(st.tuples(which, st.binary(max_size=60)), max_size=20))
    package = CallPackage(pack_calls(functions, calls))
    assert [(name, bytes(span)) for name, span in package.functions] == [(digest(f), f) for f in functions]
    assert [(which, bytes(span)) for which, span in map(package.call, range(package.count))] == calls


@given(st.lists(options, max_size=3), st.data())
def test_calls_keep_options_of_their_own(sets: list[CallOptions], data: st.DataObject) -> None:
    given = data.draw(st.lists(st.sampled_from(sets), max_size=9)) if sets else []
    package = CallPackage(pack_calls([b"f"], [(0, b"x")] * len(given), given))
    assert [package.options(i) for i in range(package.count)] == given
    plain = CallPackage(pack_calls([b"f"], [(0, b"x")] * 2))
    assert [plain.options(0), plain.options(1)] == [None, None]
    with pytest.raises(PackageError, match="options for 3 of 2"):
        pack_calls([b"f"], [(0, b"x")] * 2, [CallOptions()] * 3)


@given(functions, st.lists(st.binary(max_size=30), max_size=5), st.data())
def test_damaged_package_is_an_error_or_another_package(
    functions: list[bytes], calls: list[bytes], data: st.DataObject
) -> None:
    own = [CallOptions(run_seconds=number) for number in range(len(calls))]
    whole = bytearray(pack_calls(functions, [(0, call) for call in calls], own))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    try:
        package = CallPackage(whole)
        for i in range(package.count):
            package.call(i)
            package.options(i)
        assert len(package.functions) == len(functions)
    except PackageError:
        pass


@given(functions, st.data())
def test_package_cut_short_is_an_error(functions: list[bytes], data: st.DataObject) -> None:
    whole = pack_calls(functions, [(0, b"x"), (0, b"y")])
    with pytest.raises(PackageError):
        CallPackage(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_package_in_a_file_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "package"
    with path.open("wb") as file:
        assert write_calls(file, [b"f"], ((0, bytes([i])) for i in range(100))) == 100
    with CallPackage(path) as package:
        assert package.count == 100
        which, payload = package.call(99)
        assert (which, bytes(payload)) == (0, b"\x63")
        payload.release()


def test_empty_file_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(PackageError, match="empty"):
        CallPackage(tmp_path / "empty")


@pytest.mark.parametrize("index", [-1, 2])
def test_call_outside_of_the_package_is_an_index_error(index: int) -> None:
    package = CallPackage(pack_calls([b"f"], [(0, b""), (0, b"")]))
    with pytest.raises(IndexError):
        package.call(index)


def test_call_of_a_function_that_is_not_there_is_refused() -> None:
    with pytest.raises(PackageError, match="names function 1"):
        pack_calls([b"f"], [(1, b"")])


@given(st.lists(outcomes, max_size=5), st.lists(outcomes, max_size=5))
def test_appended_streams_of_outcomes_are_a_stream(first: list[Outcome], second: list[Outcome]) -> None:
    stream = pack_outcomes(first) + pack_outcomes(second)
    assert list(iter_outcomes(stream)) == first + second
    assert list(iter_outcomes(BytesIO(stream))) == first + second


@given(st.lists(outcomes, min_size=1, max_size=3), st.data())
def test_stream_cut_short_gives_what_is_whole_and_then_an_error(
    sent: list[Outcome], data: st.DataObject
) -> None:
    stream = pack_outcomes(sent)
    last = len(pack_outcomes(sent[-1:]))
    cut = data.draw(st.integers(len(stream) - last + 1, len(stream) - 1))
    received = iter_outcomes(stream[:cut])
    got = [next(received) for _ in sent[:-1]]
    with pytest.raises(PackageError, match="cut off"):
        next(received)
    assert got == sent[:-1]


@given(st.lists(outcomes, min_size=1, max_size=3), st.data())
def test_damaged_outcome_is_an_error_or_another_outcome(sent: list[Outcome], data: st.DataObject) -> None:
    stream = bytearray(pack_outcomes(sent))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        for outcome in iter_outcomes(stream):
            assert isinstance(outcome.index, int)
    except PackageError:
        pass


def test_body_can_be_streamed_after_its_head() -> None:
    stream = outcome_head(Outcome(3, ok=True), 6) + b"abc" + b"def"
    (located,) = scan_outcomes(BytesIO(stream))
    assert stream[located.offset : located.offset + located.size] == b"abcdef"


@given(st.uuids().map(str), st.integers(0, 10**6), st.integers(1, 99))
def test_attempt_names_are_read_back(uid: str, index: int, number: int) -> None:
    assert parse_attempt(attempt_id(uid, index, number)) == (uid, index, number)


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert digest_file(tmp_path / "f") == digest(b"abc")


@pytest.mark.parametrize("text", ["", "../" + "a" * 61, "A" * 64, "a" * 63, "a" * 64 + "\n", 5, None])
def test_only_digests_are_digests(text: object) -> None:
    assert not is_digest(text)


def test_a_large_outcome_is_found_where_it_lies_without_a_copy() -> None:
    packed = memoryview(
        bytearray(pack_outcomes([Outcome(0, True, bytes(8_000_000)), Outcome(1, True, b"x")]))
    )
    tracemalloc.start()
    try:
        large, small = iter_outcomes(packed)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert (len(large.body), bytes(small.body)) == (8_000_000, b"x")


@given(st.lists(outcomes, max_size=5), st.data())
def test_digest_of_what_passes_is_that_of_the_whole(outcomes: list[Outcome], data: st.DataObject) -> None:
    packed = pack_outcomes(outcomes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=9)))
    passing = PassingDigest()
    for begin, end in zip([0, *cuts], [*cuts, len(packed)], strict=True):
        passing.feed(packed[begin:end])
    assert passing.hexdigest() == digest_outcomes(BytesIO(packed))
    passing.feed(b"S")
    with pytest.raises(PackageError):
        passing.hexdigest()
    with pytest.raises(PackageError):
        passing.feed(b"nothing that begins an outcome")


def test_calls_with_parts_of_their_own_are_no_slice_and_others_are() -> None:
    index, part = PartsIndex(), Part("ab" * 32, 9, (b"",))
    index.need(0, [part])  # the function's, which all calls share
    index.need(1 + 2, [part])
    index.need(1 + 3, [Part("cd" * 32, 7, (b"",))])
    package = CallPackage(pack_calls([b"f"], [(0, b"x")] * 7, parts=index))
    assert package.parts == {"ab" * 32: 9, "cd" * 32: 7}
    assert [package.alike(i, 7 - i, 1000) for i in range(7)] == [2, 1, 1, 1, 3, 2, 1]
    assert package.parts_of(0) == package.parts_of(2) == ["ab" * 32]
    assert package.parts_of(3) == ["ab" * 32, "cd" * 32]
