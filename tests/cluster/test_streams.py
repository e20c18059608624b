"""Results that come while their Task runs, on the real control plane: each expression is one Task."""

from __future__ import annotations

import json
import pickle
import shutil
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.front_door import MINUTES, Person, newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(5 * MINUTES)

PROGRAM = """
import hashlib, json, os, pathlib, sys, time
import skyward as sky

GATES = pathlib.Path(sys.argv[1])


def gate(name):
    return GATES / name


@sky.function
def behind(name, number):
    '''Negative numbers fail; 7 waits until the caller opens its gate, which it does once it has a result.'''
    while number == 7 and not gate(name).exists():
        time.sleep(0.01)
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * 10


@sky.function
def sleep(seconds):
    time.sleep(seconds)
    return seconds


@sky.function
def noise(size):
    return os.urandom(size)


def numbered(name):
    def call(number):
        return behind.local(name, number)
    return call


def received(name, results):
    got = []
    for result in results:
        gate(name).touch()
        got.append(result)
    return got


def tried(results):
    got = []
    try:
        for result in results:
            got.append(result)
    except ValueError as error:
        return [got, str(error), error.__notes__[-1]]


def told(values):
    return [value if not isinstance(value, Exception) else type(value).__name__ for value in values]


with sky.Compute(provider=sky.Local(), nodes=2, name="streams") as pool:
    answers = {}

    def group(name, numbers, **options):
        return sky.gather(*(behind(name, number) for number in numbers), stream=True, **options) >> pool

    answers["ordered"] = received("a", group("a", [1, 7, 2, 3]))
    answers["as they end"] = received("b", group("b", [7, 1, 2, 3], ordered=False))
    answers["map"] = received("c", pool.map(numbered("c"), [1, 7, 2, 3], stream=True))
    answers["returned"] = told(pool.map(numbered("d"), [1, -1, 3, -2], stream=True, on_error="return"))
    answers["raised"] = tried(pool.map(numbered("d"), [1, -1, 3, -2], stream=True))
    group_of_three = (sleep(0.1), sleep(600).with_timeout(1), sleep(0.2).with_timeout(60))
    answers["timeouts"] = told(sky.gather(*group_of_three, stream=True, on_error="return") >> pool)
    with pool.map(sleep, [0.1, 0.1, 600, 600, 600], stream=True) as results:
        answers["left"] = next(results)
    dropped = pool.map(sleep, [0.1, 0.1, 601, 601, 601], stream=True)
    answers["dropped"] = next(dropped)
    del dropped
    answers["large"] = hashlib.sha256(noise(200_000) >> pool).hexdigest()
    answers["afterwards"] = [sleep(0) >> pool for _ in range(2)]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody whose program has run; it must have succeeded."""
    with newcomer() as somebody:
        yield somebody


@pytest.fixture(scope="module")
def answers(person: Person) -> Any:
    """What the program got."""
    return json.loads(person.script(PROGRAM, str(person.folder)).splitlines()[-1])


def test_results_come_while_other_calls_wait_for_the_caller(answers: Any) -> None:
    """The caller opens the gate of a call once it has the result of another."""
    assert answers["ordered"] == answers["map"] == [10, 70, 20, 30]
    assert sorted(answers["as they end"]) == [10, 20, 30, 70]
    assert answers["as they end"][0] != 70


def test_a_call_that_fails_fails_only_itself(answers: Any) -> None:
    """Its exception stands in its place, or is raised when all others are there."""
    assert answers["returned"] == [10, "ValueError", 30, "ValueError"]
    assert answers["raised"] == [
        [10, 30],
        "-1 is negative",
        "2 of 4 calls failed (1,3); this is call 1",
    ]


def test_each_call_of_a_group_has_its_own_time_out(answers: Any) -> None:
    """One of three is stopped, and the others are not."""
    assert answers["timeouts"] == [0.1, "TaskTimeout", 0.2]


def test_leaving_early_makes_room_for_the_next_call(answers: Any) -> None:
    """Calls of ten minutes end at once."""
    assert answers["left"] == answers["dropped"] == 0.1
    assert answers["afterwards"] == [0, 0]


def test_each_expression_is_one_task(person: Person, answers: Any) -> None:
    """As kubectl and `skyward tasks` show them."""
    tasks = json.loads(person.kubectl("get", "tasks", "-o", "json"))["items"]
    assert len(tasks) == 11
    shown = person.run("skyward", "tasks").stdout
    assert all(task["metadata"]["name"] in shown for task in tasks)
    phases = [task["status"]["phase"] for task in tasks]
    assert phases.count("Cancelled") == 2
    assert phases.count("Failed") == 3
    assert phases.count("Succeeded") == 6


def test_results_are_there_for_other_processes_once_the_pool_is_gone(person: Person, answers: Any) -> None:
    """Small ones stand in the Task; for a large one a ticket is added by whoever may update it."""
    tasks = json.loads(person.kubectl("get", "tasks", "-o", "json"))["items"]
    shutil.rmtree(person.home / "tickets")
    (large,) = [each for each in tasks if "blob" in each["status"].get("result", {})]
    file = person.folder / "large"
    for _ in range(2):
        done = person.run("skyward", "result", large["metadata"]["name"], "-o", "pickle", "--to", file)
        assert done.returncode == 0, done.stderr
        assert sha256(pickle.loads(file.read_bytes())).hexdigest() == answers["large"]
        file.unlink()
    small = [
        each["metadata"]["name"]
        for each in tasks
        if each["status"]["phase"] == "Succeeded" and each["metadata"]["name"].startswith("behind-")
    ]
    shown = [json.loads(person.run("skyward", "result", name).stdout) for name in small]
    assert [10, 70, 20, 30] in shown
