"""Generators out and iterators in, as a user has them: on the real control plane and over real SSH."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.front_door import MINUTES, newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(6 * MINUTES)

PROGRAM = """
import asyncio, gc, json, os, signal, threading, time, traceback
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
import skyward as sky

class Odd(Exception):
    def __init__(self, number):
        super().__init__(number)
        self.number = number

@sky.function
def count(size: int) -> Iterator[int]:
    yield from range(size)
    return "all"
@sky.function
async def count_awaited(size: int) -> AsyncIterator[int]:
    for number in range(size):
        yield number
@sky.function
def fails() -> Iterator[int]:
    yield 1
    yield 2
    raise Odd(3)
@sky.function
def endless(path: str) -> Iterator[int]:
    try:
        while True:
            Path(path).write_text("runs")
            yield 1
    finally:
        Path(path).write_text("closed")
@sky.function
def sleeps() -> Iterator[int]:
    yield 1
    time.sleep(300)
@sky.function
def dies() -> Iterator[int]:
    yield 1
    time.sleep(0.2)
    os._exit(3)
@sky.function
def large(size: int) -> Iterator[bytes]:
    yield bytes(size)
@sky.function
def total(items: Iterable[int], start: int = 0) -> int:
    return sum(items, start)
@sky.function
def first(items: Iterator[int]) -> int:
    return next(items)
@sky.function
def double(items: "Iterator[int]") -> Iterator[int]:
    for item in items:
        yield item * 2
@sky.function
def both(left: Iterator[int], right: Iterator[int]) -> list[tuple[int, int]]:
    return list(zip(left, right))
@sky.function
def length(items: Iterable[int]) -> int:
    return len(items)

def square(number): return number**2

def until(look):
    end = time.monotonic() + 60
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)

def given(size, log):
    try:
        for number in range(size):
            log.append(number)
            yield number
    finally:
        log.append("closed")

def broken():
    yield 1
    raise Odd(2)

def says(path, word):
    return os.path.exists(path) and Path(path).read_text() == word

found = {}
with sky.Compute(provider=sky.Local(), nodes=2) as pool:
    items = count(3000) >> pool
    found["items"] = list(items) == list(range(3000))
    def delegating():
        found["returned"] = yield from count(2) >> pool
    found["delegated"] = list(delegating())
    async def awaited():
        return [item async for item in count_awaited(500) >> pool]
    found["awaited"] = asyncio.run(awaited()) == list(range(500))
    got = []
    try:
        for item in fails() >> pool:
            got.append(item)
    except Odd as error:
        frames = traceback.extract_tb(error.__traceback__)
        found["raised"] = got, error.number, "line" in str(error.__cause__), len(frames)
    for name, leave in {"closed": lambda items: items.close(), "dropped": None}.items():
        items = endless(os.path.abspath(name)) >> pool
        next(items)
        if leave:
            leave(items)
        del items
        gc.collect()
        until(lambda: says(name, "closed"))
        found[name] = True
    with endless(os.path.abspath("left")) >> pool as items:
        until(lambda: says("left", "runs"))
    until(lambda: says("left", "closed"))
    try:
        list(sleeps().with_timeout(1) >> pool)
    except sky.TaskTimeout as error:
        found["timeout"] = error.reason
    items = dies() >> pool
    found["before it died"] = next(items)
    try:
        next(items)
    except sky.WorkerDied as error:
        found["died"] = error.reason
    found["large"] = [len(item) for item in large(20_000_000) >> pool]
    items = sleeps() >> pool
    next(items)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        next(items)
    except KeyboardInterrupt:
        found["interrupted"] = True

    log = []
    found["total"] = total(given(2000, log), start=5) >> pool
    until(lambda: log[-1] == "closed")
    found["given once"] = log[:-1] == list(range(2000))
    log = []
    found["first"] = first(given(10**9, log)) >> pool
    until(lambda: log[-1] == "closed")
    found["ahead"] = len(log)
    found["doubled"] = list(double(iter(range(50))) >> pool)
    found["both"] = both(iter([1, 2]), right=iter([3, 4])) >> pool
    found["length"] = length([1, 2, 3]) >> pool
    try:
        total(broken()) >> pool
    except Odd as error:
        found["broken"] = error.number
    try:
        total(iter([1, threading.Lock()])) >> pool
    except TypeError as error:
        found["odd item"] = str(error)
    found["future"] = (total(iter([1, 2])) > pool).result()
    log = []
    found["mapped"] = pool.map(square, given(3000, log)) == [number**2 for number in range(3000)]
    found["mapped once"] = log == [*range(3000), "closed"]
    log = []
    with pool.map(square, given(10**9, log), stream=True, ordered=False) as results:
        found["some"] = sorted(next(results) for _ in range(5)) != []
    until(lambda: log[-1] == "closed")
    found["map ahead"] = len(log)
    got = []
    try:
        for result in pool.map(square, broken(), stream=True):
            got.append(result)
    except Odd as error:
        found["map broken"] = got, error.number, traceback.extract_tb(error.__traceback__)[-1].name
    refused = [
        lambda: count(1) @ pool, lambda: count(1) > pool, lambda: (count(1) & count(2)) >> pool,
        lambda: sky.gather(count(1), stream=True) >> pool, lambda: pool.map(count, [1]),
    ]
    found["refused"] = []
    for each in refused:
        try:
            each()
        except TypeError as error:
            found["refused"].append(str(error))
    with sky.Executor(pool) as executor:
        try:
            executor.submit(count, 1)
        except TypeError as error:
            found["refused"].append(str(error))
Path("found.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Any]]:
    """What the program of somebody with a control plane of their own has found."""
    with newcomer() as person:
        person.script(PROGRAM)
        yield json.loads((person.folder / "found.json").read_text())


def test_items_come_in_order_with_what_the_generator_returned(found: dict[str, Any]) -> None:
    assert found["items"]
    assert found["awaited"]
    assert (found["delegated"], found["returned"]) == ([0, 1], "all")
    assert found["large"] == [20_000_000]


def test_exception_is_raised_behind_the_items_before_it(found: dict[str, Any]) -> None:
    items, number, has_place, frames = found["raised"]
    assert (items, number, has_place) == ([1, 2], 3, True)
    assert frames <= 2  # none of ours, but the one that raises it


def test_generator_ends_where_it_yields_when_nobody_reads_on(found: dict[str, Any]) -> None:
    assert found["closed"]
    assert found["dropped"]


def test_broken_generator_is_an_error_at_its_reader(found: dict[str, Any]) -> None:
    assert found["timeout"] == "RunTimeout"
    assert (found["before it died"], found["died"]) == (1, "WorkerDied")
    assert found["interrupted"]


def test_iterator_is_pulled_from_the_caller_once_and_closed(found: dict[str, Any]) -> None:
    assert found["total"] == sum(range(2000)) + 5
    assert found["given once"]
    assert found["first"] == 0
    assert found["ahead"] < 600  # the window, and what was taken of it meanwhile
    assert found["doubled"] == [number * 2 for number in range(50)]
    assert found["both"] == [[1, 3], [2, 4]]
    assert found["future"] == 3
    assert found["length"] == 3


def test_iterator_that_breaks_raises_in_the_function_and_so_at_the_caller(found: dict[str, Any]) -> None:
    assert found["broken"] == 2
    assert "item 1 of an iterator that was given as an argument" in found["odd item"]


def test_map_takes_an_iterator_as_far_as_its_results_are_read(found: dict[str, Any]) -> None:
    assert found["mapped"]
    assert found["mapped once"]
    assert found["some"]
    assert found["map ahead"] < 1100  # a thousand, and those of the results that were read
    assert found["map broken"] == [[1], 2, "broken"]


def test_generator_is_refused_where_values_are_wanted(found: dict[str, Any]) -> None:
    assert len(found["refused"]) == 6
    assert all("for item in count(...) >> pool:" in words for words in found["refused"])
