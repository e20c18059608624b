"""A function that prints much: nobody waits for it, nothing is lost on the way, and the disk stays small."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.front_door import Person

KEPT = 1024 * 1024
LINES = 120_000
PROGRAM = """
import os
import sys
from pathlib import Path

import skyward as sky


@sky.function
def chatty(lines):
    for number in range(lines):
        print(f"line {number} {'x' * 80}")


@sky.function
def same(value):
    return value


options = sky.Options(worker=sky.Worker(concurrency=2), console="log")
with sky.Compute(name="chatty", provider=sky.Local(), nodes=1, options=options) as pool:
    future = chatty(int(sys.argv[1])) > pool
    calls = 0
    while not future.done():
        assert same(calls) >> pool == calls
        calls += 1
    future.result()
    kept = Path(os.environ["SKYWARD_HOME"]).rglob("output/*/*/*")
    size = sum(path.stat().st_size for path in kept)
# after the block all output is shown: what two threads print at once may be torn
print("calls", calls)
print("kept", size)
"""


@pytest.fixture
def person() -> Iterator[Person]:
    """Somebody whose operator keeps little of the output of one task."""
    with newcomer(SKYWARD_TASK_OUTPUT_BYTES=str(KEPT)) as somebody:
        yield somebody


def test_a_chatty_function_holds_nobody_up_and_fills_no_disk(person: Person) -> None:
    shown = person.script(PROGRAM, str(LINES))
    numbers = [int(number) for number in re.findall(r"^\[node 0\] line (\d+) x{80}$", shown, re.MULTILINE)]
    assert numbers == list(range(LINES))
    calls, kept = (int(re.findall(rf"^{word} (\d+)$", shown, re.MULTILINE)[0]) for word in ("calls", "kept"))
    assert calls > 0
    assert 0 < kept <= KEPT
    tasks = person.run("skyward", "tasks", "--json").stdout
    (task,) = set(re.findall(r'"name": "(chatty-[0-9a-f]+)"', tasks))
    first, *_, last = person.run("skyward", "logs", task).stdout.splitlines()
    assert (first, last) == (f"[node 0] line 0 {'x' * 80}", f"[node 0] line {LINES - 1} {'x' * 80}")
    assert person.run("skyward", "logs", f"task/{task}", "--tail", "1").stdout == f"{last}\n"
