"""`sky.Executor` as a user has it: on the real control plane, over the real gateway and real SSH."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, ROOT, Person, newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(6 * MINUTES)

PROGRAM = """
import asyncio, json, os, sys, time
from concurrent.futures import CancelledError
from pathlib import Path
import skyward as sky

class Odd(Exception):
    def __init__(self, number):
        super().__init__(number)
        self.number = number

def double(number): return number * 2
def refuse(number): raise Odd(number)
def where(): return os.getpid(), sky.current().task
def stay(path):
    Path(path).write_text(str(os.getpid()))
    try:
        time.sleep(300)
    except KeyboardInterrupt:
        Path(path).write_text("interrupted")
        raise
@sky.function
def named(a, *, b): return a - b
@sky.function(timeout=1)
def endless(): time.sleep(300)
@sky.function(retry=sky.Retry(on_exception=2, backoff=0))
def third_time(path):
    with open(path, "a") as file:
        print("tried", file=file)
    tries = len(Path(path).read_text().split())
    if tries < 3:
        raise Odd(tries)
    return tries

def until(look):
    end = time.monotonic() + 60
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)

found = {}
with sky.Compute(provider=sky.Local(), nodes=2) as pool:
    with sky.Executor(pool) as executor:
        found["task"] = executor.task
        found["pid"], inside = executor.submit(where).result()
        found["inside"] = inside.endswith(executor.task)
        found["map"] = list(executor.map(double, range(300)))
        found["bounded"] = list(executor.map(pow, range(20), range(20), buffersize=3))
        found["named"] = executor.submit(named, 5, b=3).result()
        found["third time"] = executor.submit(third_time, os.path.abspath("tries")).result()
        found["endless"] = executor.submit(endless).exception().reason
        try:
            executor.submit(refuse, 3).result()
        except Odd as error:
            found["odd"] = error.number, "RemoteTraceback" in repr(error.__cause__)
        assert isinstance(executor.submit(refuse, 4).exception(), Odd)
        place = os.path.abspath("stays")
        future = executor.submit(stay, place)
        until(lambda: os.path.exists(place) and Path(place).read_text())
        assert future.cancel() and future.cancelled()
        until(lambda: Path(place).read_text() == "interrupted")
        found["large"] = len(executor.submit(bytes, 5_000_000).result())
        data = os.urandom(20_000_000)
        found["large arguments"] = executor.submit(lambda given: given == data, data).result()
        async def both():
            return await asyncio.gather(executor.submit(double, 1), executor.submit(double, 2))
        found["awaited"] = asyncio.run(both())
        try:
            executor.submit(len, os.urandom(40_000_000))
        except sky.ArgumentTooLarge as error:
            found["too large"] = str(error)
    try:
        executor.submit(double, 1)
    except RuntimeError as error:
        found["after"] = str(error)
    second = sky.Executor(pool, timeout=1)
    try:
        second.submit(time.sleep, 60).result()
    except sky.TaskTimeout as error:
        found["timeout"] = error.reason
    kept = [second.submit(time.sleep, 60) for _ in range(10)]
    second.shutdown(cancel_futures=True)
    found["all cancelled"] = all(future.cancelled() for future in kept)
Path("found.json").write_text(json.dumps(found))
"""

DELETED = """
import subprocess, sys, time
import skyward as sky
with sky.Compute(provider=sky.Local(), nodes=1) as pool, sky.Executor(pool) as executor:
    future = executor.submit(time.sleep, 300)
    executor.submit(time.sleep, 0)
    print("task", executor.task, flush=True)
    try:
        future.result(60)
    except sky.TaskCancelled as error:
        print("ended:", error.reason)
    try:
        executor.submit(len, "x")
    except sky.TaskCancelled:
        print("refused")
"""

LEFT = """
import sys, threading, time
from concurrent.futures import as_completed, wait
import skyward as sky
@sky.function
def double(number): return number * 2
@sky.function
def stop(number): return next(iter(()))
sys.stderr = sys.stdout
with sky.Compute(provider=sky.Local(), nodes=1) as pool:
    print("map", sum(pool.map(double, iter(range(600)))))
    for send in (lambda: stop(1) >> pool, lambda: pool.map(stop, iter([1])), lambda: pool.map(stop, [1])):
        try:
            send()
        except RuntimeError as error:
            print("stopped:", error)
    found = pool.map(double, iter([1, threading.Lock(), 3]), on_error="return")
    print("alone", found[0], type(found[1]).__name__, found[2])
    begun = double(1) > pool
    cancelled = [sky.function(time.sleep)(300) > pool for _ in range(2)]
    executor = sky.Executor(pool)
    cancelled += [executor.submit(time.sleep, 300) for _ in range(3)]
    for each in cancelled:
        each.cancel()
    print("waited", len(wait(cancelled, 30).done), len(list(as_completed(cancelled, 30))), flush=True)
    begun.result(60)
    executor.shutdown()
with sky.Compute(provider=sky.Local(), nodes=1) as pool:
    executor = sky.Executor(pool)
    pending = executor.submit(time.sleep, 300)
    print("leaving", flush=True)
try:
    pending.result(5)
except sky.SkywardError as error:
    print("settled:", error.reason)
try:
    executor.submit(len, "x")
except RuntimeError as error:
    print("refused:", error)
"""


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody with a control plane of their own."""
    with newcomer() as somebody:
        yield somebody


def test_executor_does_what_concurrent_futures_promises(person: Person) -> None:
    person.script(PROGRAM)
    found = json.loads((person.folder / "found.json").read_text())
    assert found["inside"]
    assert found["map"] == [number * 2 for number in range(300)]
    assert found["bounded"] == [number**number for number in range(20)]
    assert found["named"] == 2
    assert found["third time"] == 3
    assert found["endless"] == "RunTimeout"
    assert found["odd"] == [3, True]
    assert found["large"] == 5_000_000
    assert found["awaited"] == [2, 4]
    assert found["large arguments"]  # and a large function, which holds the same bytes
    assert "→ send it with >>" in found["too large"]
    assert found["after"] == "cannot schedule new futures after shutdown"
    assert found["timeout"] == "RunTimeout"
    assert found["all cancelled"]
    task = json.loads(person.kubectl("get", "task", found["task"], "-o", "json"))
    assert task["spec"]["calls"] == {"python": task["spec"]["calls"]["python"], "open": True, "count": 1}
    counts = task["status"]["counts"]
    # where, 300 of a map, 20, named, one at its third try, one that timed out, two that raise, one cancelled,
    # two large, two awaited
    assert (counts["total"], counts["failed"], counts["running"]) == (331, 4, 0)
    assert counts["succeeded"] == 327
    assert "call 323" in task["status"]["message"]
    assert "result" not in task["status"]


def test_deleted_task_ends_its_executor(person: Person) -> None:
    with person.starts(DELETED) as program:
        task = program.until("task executor").split()[1]
        person.kubectl("delete", "task", task, "--wait=false")
        shown = program.end()
    assert "ended: Cancelled" in shown
    assert "refused" in shown


def test_what_was_cancelled_is_done_and_the_end_of_the_block_is_the_end_of_its_tasks(person: Person) -> None:
    shown = person.script(LEFT)
    assert "map 359400" in shown
    assert shown.count("stopped: the call raised StopIteration") == 3
    assert "alone 2 NotPicklable 6" in shown
    assert "waited 5 5" in shown
    first, last = shown.split("leaving")
    assert "cancelling" not in first
    assert "the block has ended: cancelling 1 call that nobody has waited for" in last
    assert "settled: Cancelled" in shown
    assert "refused: cannot schedule new futures: the block of pool" in shown
    assert "Traceback" not in shown


def test_the_example_estimates_pi(person: Person) -> None:
    done = person.run(person.python, ROOT / "examples" / "executor.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"120 calls: pi is about 3\.1[34]", done.stdout)
    assert "nothing left running" in done.stdout + done.stderr
