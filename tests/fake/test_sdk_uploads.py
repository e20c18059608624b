"""Arguments too large for an object: whole where the way was cut, each once, refused where they changed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from tests.fake.sdk_plane import TASKS

import skyward as sky
from skyward.cluster.upload import Upload
from skyward.console.plain import SilentConsole
from skyward.tasks import TaskHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.fake.sdk_plane import FakePlane

    from skyward.console.board import Subject
    from skyward.pools import Pool


@pytest.fixture
def pool(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.setattr("skyward.cluster.upload._PAUSE_SECONDS", 0.01)
    with sky.Compute(provider=sky.Local(), nodes=2, options=sky.Options(console="silent")) as pool:
        yield pool


@sky.function
def total(array: Any, factor: int = 1) -> int:
    return int(array.sum(dtype=np.int64)) * factor


def noise(size: int) -> Any:
    return np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)


def payload(plane: FakePlane) -> bytes:
    (found,) = plane.payloads.values()
    return found


def test_an_upload_that_is_cut_goes_on_from_there(plane: FakePlane, pool: Pool) -> None:
    dice = random.Random(7)
    cuts = [dice.randrange(1, 1_000_000) for _ in range(3)]
    plane.cut_uploads_after = list(cuts)
    array = noise(4_000_000)
    assert total(array) >> pool == int(array.sum(dtype=np.int64))
    assert plane.uploads == [0, cuts[0], cuts[0] + cuts[1], sum(cuts)]


def test_an_argument_that_many_calls_share_is_sent_once(plane: FakePlane, pool: Pool) -> None:
    array = noise(1_000_000)
    calls = sky.gather(*[total(array, factor) for factor in range(20)])
    assert calls >> pool == tuple(int(array.sum(dtype=np.int64)) * factor for factor in range(20))
    assert array.nbytes < len(payload(plane)) < 1.1 * array.nbytes


def test_what_the_function_of_a_map_refers_to_is_sent_once(plane: FakePlane, pool: Pool) -> None:
    array = noise(1_000_000)
    results = pool.map(lambda factor: int(array[0]) * factor, range(20))
    assert results == [int(array[0]) * factor for factor in range(20)]
    assert array.nbytes < len(payload(plane)) < 1.1 * array.nbytes


class Refilled:
    """Four items, all of them the same array, filled again and again."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Any]:
        array = noise(200_000)
        for _ in range(4):
            yield array
            array[:] = np.random.default_rng(int(array[0])).permutation(array)[::-1]
            array[0] += 1


def test_items_made_one_out_of_the_other_are_all_sent(pool: Pool) -> None:
    expected = [int(array.sum(dtype=np.int64)) for array in Refilled()]
    assert pool.map(total, Refilled()) == expected


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_arrive_as_what_they_were(kind: Any, pool: Pool) -> None:
    data = kind(noise(300_000).tobytes())
    assert sky.function(lambda value: (type(value).__name__, len(value), value[7]))(data) >> pool == (
        kind.__name__,
        300_000,
        data[7],
    )


def test_full_disk_of_the_operator_is_named_at_once(plane: FakePlane, pool: Pool) -> None:
    plane.refuse_payload = 507
    with pytest.raises(sky.PayloadError, match="HTTP 507") as caught:
        total(noise(200_000)) >> pool
    assert "free space" in str(caught.value)
    assert plane.only(TASKS)["spec"]["cancel"] is True


class Script:
    """A gateway that answers as it was told, and what it was sent."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.begun: list[int] = []
        self.asked = 0

    def put(self, offset: int, rest: Iterable[bytes | memoryview]) -> httpx.Response:
        self.begun.append(offset)
        for _ in rest:
            pass
        return self._answer()

    def ask(self) -> httpx.Response:
        self.asked += 1
        return self._answer()

    def _answer(self) -> httpx.Response:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def upload(self, patience: float = 60.0) -> Upload:
        return Upload("t", [b"a" * 600_000, b"b" * 7], self.put, self.ask, lambda *_: None, patience)


def there(offset: int, *, whole: bool = False) -> httpx.Response:
    return httpx.Response(200, headers={"Upload-Offset": str(offset), "Upload-Complete": f"?{int(whole)}"})


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyward.cluster.upload._PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("hurry")
def test_an_upload_whose_last_answer_was_lost_is_not_sent_again() -> None:
    script = Script(httpx.ReadError("cut"), there(600_007, whole=True))
    script.upload().send()
    assert script.begun == [0]


@pytest.mark.usefixtures("hurry")
def test_other_bytes_from_before_are_sent_anew_and_our_own_are_refused() -> None:
    wrong = httpx.Response(422, text="the SHA-256 is another")
    script = Script(httpx.ReadError("cut"), there(1000), wrong, there(0), httpx.Response(204))
    script.upload().send()
    assert script.begun == [0, 1000, 0]
    with pytest.raises(sky.PayloadError, match="another thread write to them"):
        Script(wrong).upload().send()


@pytest.mark.usefixtures("hurry")
def test_a_gateway_that_takes_nothing_is_not_asked_for_ever() -> None:
    with pytest.raises(sky.GatewayError, match="takes no arguments since 0 s: cut"):
        Script(*[httpx.ReadError("cut")] * 9).upload(patience=0.0).send()


def test_patience_with_a_slow_store_counts_what_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("skyward.cluster.upload.time.monotonic", lambda: now)
    begun: list[int] = []
    told: list[tuple[int, int]] = []

    def put(steps: list[int]) -> Callable[[int, Iterable[bytes | memoryview]], httpx.Response]:
        def answer(offset: int, rest: Iterable[bytes | memoryview]) -> httpx.Response:
            nonlocal now
            now += 50.0
            begun.append(offset)
            assert sum(memoryview(piece).nbytes for piece in rest) == 3 - offset
            if not steps:
                return httpx.Response(204)
            return httpx.Response(202, headers={"Upload-Offset": "3", "Upload-Kept": str(steps.pop(0))})

        return answer

    def upload(steps: list[int]) -> None:
        Upload(
            "t", [b"abc"], put(steps), lambda: there(3), lambda *_: None, stored=lambda *it: told.append(it)
        ).send()

    upload([0, 1, 1, 2, 2, 3])
    assert begun == [0, *[3] * 6]
    assert told[1:4] == [(1, 3), (1, 3), (2, 3)]
    with pytest.raises(sky.GatewayError, match="1 of 3 bytes are in its store"):
        upload([1] * 9)


@pytest.mark.usefixtures("hurry")
def test_progress_counts_every_byte_once() -> None:
    told: list[tuple[int, int]] = []
    script = Script(httpx.Response(204))
    Upload("t", [b"a" * 600_000, b"b" * 7], script.put, script.ask, lambda *it: told.append(it)).send()
    assert told == [(262_144, 600_007), (524_288, 600_007), (600_000, 600_007), (600_007, 600_007)]


def test_why_an_upload_waits_is_told() -> None:
    answers = [
        httpx.Response(503, text="the payload cannot be stored: s3://b does not answer"),
        httpx.Response(204),
    ]
    told: list[str] = []
    Upload(
        "t",
        [b"abc"],
        lambda offset, rest: answers.pop(0),
        lambda: httpx.Response(204),
        lambda sent, size: None,
        trouble=told.append,
    ).send()
    assert told == ["the payload cannot be stored: s3://b does not answer (HTTP 503)"]


def test_why_an_upload_waits_is_shown_in_place_of_what_the_task_says() -> None:
    shown: list[str] = []

    class Shown(SilentConsole):
        def update(self, subject: Subject, text: str, *, after: float = 0.0) -> None:
            shown.append(text)

    handle = TaskHandle("t", "pool", 1, Shown(), lambda *_: b"", lambda _: None, lambda *_: iter(()))
    waiting = {"phase": "Queued", "reason": "AwaitingPayload", "message": "not uploaded yet"}
    handle.on_object({"status": waiting})
    handle.upload_waits("s3://b does not answer")
    handle.on_object({"status": waiting})
    assert shown[0] == "Queued: not uploaded yet"
    assert shown[1:] == ["Queued: its arguments are not taken yet: s3://b does not answer"] * 2
