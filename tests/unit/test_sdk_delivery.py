"""Outcomes on their way to who iterates: each once, in the order that was asked for, in bounded memory."""

from __future__ import annotations

import base64
import tempfile
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.cluster.route import GatewayRefused
from skyward.delivery import Delivery
from skyward.errors import GatewayError, TaskCancelled
from skyward.reorder import in_order
from skyward.wire.delivery import End, data_part, data_parts, end_part
from skyward.wire.outcomes import Outcome, pack_outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skyward.cluster.cutter import Cutter


PIECE = 50


def outcome(index: int, size: int = 100) -> Outcome:
    return Outcome(index, True, bytes([index % 256]) * size, node="n1", attempt=f"uid.{index}.1")


def records(*indexes: int) -> bytes:
    return pack_outcomes([outcome(index) for index in indexes])


# -- in order ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[BinaryIO]:
    """The temporary files that are made."""
    made: list[BinaryIO] = []
    make = tempfile.TemporaryFile

    def remember(**how: Any) -> BinaryIO:
        made.append(make(**how))
        return made[-1]

    monkeypatch.setattr("skyward.reorder.tempfile.TemporaryFile", remember)
    return made


@given(st.permutations(range(12)), st.integers(0, 8000))
def test_any_order_comes_out_in_order_whatever_fits_into_memory(order: list[int], window: int) -> None:
    arriving = [outcome(index, 50 * index) for index in order]
    assert list(in_order(arriving, window)) == [outcome(index, 50 * index) for index in range(12)]


def test_each_comes_out_as_soon_as_it_is_its_turn(files: list[BinaryIO]) -> None:
    arrived: list[int] = []

    def arriving() -> Iterator[Outcome]:
        for index in [0, 3, 2, 1, 5, 4]:
            arrived.append(index)
            yield outcome(index)

    ordered = in_order(arriving(), window=0)
    seen = [(each.index, len(arrived)) for each in ordered]
    assert seen == [(0, 1), (1, 4), (2, 4), (3, 4), (4, 6), (5, 6)]


def test_only_what_does_not_fit_waits_on_disk(files: list[BinaryIO]) -> None:
    arriving = [outcome(index, 10_000) for index in (1, 2, 3, 4, 0)]
    ordered = in_order(arriving, window=22_000)
    assert next(ordered).index == 0
    (file,) = files
    assert 20_000 < file.seek(0, 2) < 22_000  # two of the four
    assert [each.index for each in ordered] == [1, 2, 3, 4]
    assert file.closed


def test_room_that_is_free_again_is_used(files: list[BinaryIO]) -> None:
    arriving = [outcome(index, 10_000) for index in (1, 0, 3, 2, 5, 4)]
    assert [each.index for each in in_order(arriving, window=11_000)] == [0, 1, 2, 3, 4, 5]
    assert files == []


@pytest.mark.parametrize("window", [0, 700, 10_000], ids=["disk", "both", "memory"])
def test_calls_that_never_ran_leave_gaps(window: int) -> None:
    assert [each.index for each in in_order(map(outcome, [7, 1, 4]), window)] == [1, 4, 7]


def test_the_file_is_closed_when_its_reader_leaves(files: list[BinaryIO]) -> None:
    ordered = in_order(map(outcome, [1, 2, 0, 3]), window=0)
    assert next(ordered).index == 0
    assert not files[0].closed
    ordered.close()  # type: ignore[attr-defined]
    assert files[0].closed


# -- a delivery -------------------------------------------------------------------------------------------


class Gateway:
    """Gives what it holds from the byte asked for, over connections that break after `cuts` bytes each."""

    def __init__(self, held: bytes, cuts: list[int], end: End | None = None) -> None:
        self.asked: list[int] = []
        self._held = held
        self._cuts = iter(cuts)
        self._end = end_part(end or End(len(held)))

    def follow(self, start: int, _: Cutter) -> Iterator[bytes]:
        self.asked.append(start)
        pieces = (self._held[at : at + PIECE] for at in range(start, len(self._held), PIECE))
        sent = b"".join(map(data_part, pieces)) + self._end
        yield sent[: next(self._cuts, None)]


def running(_: float) -> None:
    """The Task goes on."""


def test_a_call_that_stands_twice_comes_once() -> None:
    """It was tried again after a restart: what the caller has got is never taken back."""
    twice = pack_outcomes([outcome(0), outcome(1), outcome(1, 7), outcome(20), outcome(0, 9), outcome(2)])
    got = list(Delivery("t", Gateway(twice, []).follow, running))
    assert got == [outcome(0), outcome(1), outcome(20), outcome(2)]


def test_a_call_that_stands_twice_with_a_break_in_between_comes_once() -> None:
    held = records(0, 1) + records(1, 0, 2)
    gateway = Gateway(held, [len(records(0, 1)), 3, len(records(1))])
    assert [each.index for each in Delivery("t", gateway.follow, running)] == [0, 1, 2]
    first, second, third, fourth = gateway.asked
    assert first == 0 < second == third < fourth < len(held)


def test_what_the_ended_task_carries_is_taken_from_it_and_not_given_again() -> None:
    held = records(0, 1, 1, 2)
    task: list[dict[str, Any] | None] = [None]
    gateway = Gateway(held, [])

    def first_part(start: int, _: Cutter) -> Iterator[bytes]:
        yield data_part(held[: len(records(0)) + 10])

    delivery = iter(Delivery("t", first_part, lambda _: task[0]))
    assert next(delivery).index == 0
    package = base64.b64encode(held).decode()
    task[0] = {"status": {"phase": "Succeeded", "result": {"package": package}}}
    assert [each.index for each in delivery] == [1, 2]
    assert gateway.asked == []


def test_a_connection_that_breaks_after_hours_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for a gateway that does not answer, and this one has."""
    now = 0.0
    monkeypatch.setattr("skyward.delivery.time.monotonic", lambda: now)
    held = records(0, 1)
    asked: list[int] = []

    def follow(start: int, _: Cutter) -> Iterator[bytes]:
        nonlocal now
        asked.append(start)
        if len(asked) == 1:
            yield data_part(b"")  # a sign of life: no call has ended for hours
            now += 10_000
            raise GatewayError("the connection broke")
        if len(asked) == 2:
            now += 60
            raise GatewayError("nobody is there for a minute")
        yield data_part(held[start:])
        yield end_part(End(len(held)))

    assert [each.index for each in Delivery("t", follow, running)] == [0, 1]
    assert asked == [0, 0, 0]


def test_connections_that_all_break_before_anything_is_through_are_said_and_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the gateway answers is no progress: it went on for ever, in silence."""
    now = 0.0
    monkeypatch.setattr("skyward.delivery.time.monotonic", lambda: now)
    held, said = records(0, 1), list[str]()

    def follow(start: int, _: Cutter) -> Iterator[bytes]:
        nonlocal now
        now += 2.0
        yield data_part(records(0)) if not start else data_part(held[start:])[:20]
        raise GatewayError("the connection broke")

    delivery = iter(Delivery("t", follow, running, said.append))
    assert next(delivery) == outcome(0)
    with pytest.raises(GatewayError, match="connections in a row broke before anything of them") as caught:
        next(delivery)
    assert said == ["the connection broke"]
    assert "sky.task('t').results()" in str(caught.value)
    assert 120 < now < 130


def test_connections_that_carry_little_each_bring_all_of_it_together() -> None:
    held = pack_outcomes([outcome(index, 30_000) for index in range(20)])
    asked: list[int] = []

    def follow(start: int, _: Cutter) -> Iterator[bytes]:
        asked.append(start)
        yield (data_parts(held[start : start + (1 << 18)]) + end_part(End(len(held))))[:50_000]

    assert list(Delivery("t", follow, running)) == [outcome(index, 30_000) for index in range(20)]
    assert asked == sorted(set(asked))


def test_what_is_refused_is_not_asked_for_again() -> None:
    asked: list[int] = []

    def refuse(start: int, _: Cutter) -> Iterator[bytes]:
        asked.append(start)
        raise GatewayRefused("no such task")
        yield b""

    with pytest.raises(GatewayRefused, match="no such task"):
        list(Delivery("t", refuse, running))
    assert asked == [0]


def test_damage_is_no_result() -> None:
    gateway = Gateway(records(0, 1), [], End(len(records(0, 1)), "0" * 64))
    delivery = iter(Delivery("t", gateway.follow, running))
    assert [each.index for each in islice(delivery, 2)] == [0, 1]
    with pytest.raises(GatewayError, match="the results of task t are damaged"):
        next(delivery)


def test_a_task_that_is_gone_ends_the_wait_for_a_gateway() -> None:
    def gone(seconds: float) -> None:
        if seconds:
            raise TaskCancelled("task t was deleted", task="t")

    with pytest.raises(TaskCancelled, match="was deleted"):
        list(Delivery("t", Gateway(records(0), [3]).follow, gone))
