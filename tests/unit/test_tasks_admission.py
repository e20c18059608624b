"""How long a task waits for its payload: as long as bytes of it come, and one patience more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from skyward.contract.reasons import TaskReason
from skyward_operator.tasks import decide
from skyward_operator.tasks.admission import Admission
from skyward_operator.tasks.ledger import LiveTask
from skyward_operator.tasks.results import ResultFile
from skyward_operator.tasks.work import Blob, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward_operator.tasks.decide import End

PATIENCE = decide.PAYLOAD_SECONDS


class Hall:
    """Time that only the test moves, and what became of a task."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.present = False
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.ends: list[End] = []
        clock = SimpleNamespace(monotonic=lambda: self.time)
        floor = SimpleNamespace(
            context=SimpleNamespace(clock=clock, supervisor=SimpleNamespace(spawn=lambda *_: None)),
            started=False,
            custody=SimpleNamespace(recall_payload=lambda *_: None),
            now=lambda: self.time,
            later=lambda _, delay, call: self.timers.append((self.time + delay, call)),
            payloads=SimpleNamespace(is_present=lambda _: self.present),
        )
        completion = SimpleNamespace(stop=lambda _, end: self.ends.append(end))
        self.admission = Admission(cast("Any", floor), cast("Any", completion), cast("Any", None))

    def task(self, age: float = 0.0) -> LiveTask:
        """A task that was created `age` seconds ago, whose payload is not there."""
        work = Work("default", "task", "uid", "pool", self.time - age, blob=Blob("00" * 32, 10))
        live = LiveTask(work, ResultFile(Path("unused")))
        self.admission.arm(live)
        return live

    def passes(self, seconds: float) -> None:
        """Let time pass, with every timer at its moment."""
        end = self.time + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.time = max(self.time, first[0])
            first[1]()
        self.time = end


@pytest.fixture
def hall() -> Hall:
    return Hall()


def test_a_payload_that_never_comes_ends_its_task(hall: Hall) -> None:
    hall.task()
    hall.passes(PATIENCE - 1)
    assert not hall.ends
    hall.passes(1)
    assert [end.reason for end in hall.ends] == [TaskReason.PAYLOAD_INVALID]
    assert "nothing of it came for 300 s" in hall.ends[0].message


def test_a_payload_that_still_comes_is_waited_for_however_long_it_takes(hall: Hall) -> None:
    live = hall.task()
    for _ in range(100):
        hall.passes(PATIENCE - 1)
        hall.admission.payload_progressed(live)
    assert not hall.ends
    hall.present = True
    hall.passes(10 * PATIENCE)
    assert not hall.ends
    assert not hall.timers


def test_an_upload_that_stops_half_way_ends_its_task_one_patience_later(hall: Hall) -> None:
    live = hall.task()
    hall.passes(PATIENCE - 1)
    hall.admission.payload_progressed(live)
    hall.passes(PATIENCE - 1)
    assert not hall.ends
    hall.passes(1)
    assert len(hall.ends) == 1


def test_an_operator_that_comes_back_gives_an_old_task_its_patience_again(hall: Hall) -> None:
    hall.task(age=10 * PATIENCE)
    hall.passes(PATIENCE - 1)
    assert not hall.ends
    hall.passes(1)
    assert len(hall.ends) == 1
