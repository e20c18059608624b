"""The same calls from where an event loop runs already: a notebook, and an asyncio program."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.front_door import MINUTES, Person, newcomer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(4 * MINUTES)

CELLS = (
    """
import asyncio
import skyward as sky
asyncio.get_running_loop()  # a notebook has one
FACTOR = 3
def helper(x):
    return FACTOR * x
@sky.function
def times(x):
    print("got", x)
    return helper(x)
""",
    """
pool = sky.Compute(provider=sky.Local())
pool.__enter__()
times(2) >> pool
""",
    "FACTOR = 5\ntimes(2) >> sky",
    "await (times(3) > pool)",
    "pool.map(times, [1, 2])",
    """
@sky.function
def fails():
    raise LookupError("nothing under that name")
fails() >> pool
""",
    "pool.__exit__(None, None, None)",
    """
async with sky.Compute(provider=sky.Local()) as pool:
    found = await (times(4) > pool)
found
""",
)

PROGRAM = """
import asyncio
import skyward as sky

@sky.function
def square(x):
    return x * x

@sky.function
def fails():
    raise LookupError("nothing under that name")

async def main():
    beats = 0
    async def beat():
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)
    heart = asyncio.create_task(beat())
    async with sky.Compute(provider=sky.Local()) as pool:
        print("one:", await (square(3) > pool))
        print("many:", await asyncio.gather(*[square(n) > pool for n in range(4)]))
        try:
            await (fails() > pool)
        except LookupError as error:
            print("error:", error.args[0], type(error.__cause__).__name__)
        beats_before = beats
        await (square(2) > pool)
    heart.cancel()
    print("the loop went on:", beats > 20)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody with a control plane of their own."""
    with newcomer() as somebody:
        yield somebody


def test_a_notebook_calls_awaits_and_shows_errors(person: Person) -> None:
    """Cells run in a kernel, which has a running loop; a changed global counts at the next call."""
    file = person.folder / "notebook.ipynb"
    file.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": _cells()}))
    done = person.run("jupyter", "execute", "--allow-errors", "--inplace", file)
    assert done.returncode == 0, done.stderr
    outputs = [cell["outputs"] for cell in json.loads(file.read_text())["cells"]]
    assert [_value(output) for output in outputs] == [None, "6", "10", "15", "[5, 10]", None, None, "20"]
    errors = {
        position: (each["ename"], each["evalue"])
        for position, output in enumerate(outputs)
        for each in output
        if each["output_type"] == "error"
    }
    assert errors == {5: ("LookupError", "nothing under that name")}
    text = "".join("".join(each.get("text", "")) for output in outputs for each in output)
    assert "[node 0] got 2" in text
    assert text.count("nothing left running") == 2


def test_an_asyncio_program_goes_on_while_it_waits(person: Person) -> None:
    shown = person.script(PROGRAM)
    assert "one: 9\n" in shown
    assert "many: [0, 1, 4, 9]\n" in shown
    assert "error: nothing under that name RemoteTraceback\n" in shown
    assert "the loop went on: True" in shown


def _cells() -> list[dict[str, Any]]:
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    return [{**empty, "id": f"cell-{n}", "source": cell.strip()} for n, cell in enumerate(CELLS)]


def _value(outputs: list[dict[str, Any]]) -> str | None:
    shown = (each["data"]["text/plain"] for each in outputs if each["output_type"] == "execute_result")
    return next(("".join(each) for each in shown), None)
