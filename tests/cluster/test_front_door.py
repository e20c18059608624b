"""The README's own commands and the examples, run as written, on the real control plane and over real SSH."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cluster.front_door import MINUTES, ROOT, Person, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(10 * MINUTES)


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    """Somebody who has just installed Skyward; their control plane ends with the module."""
    folder = Path(tempfile.mkdtemp(prefix="sky-"))
    somebody = Person(folder / "home", folder / "work")
    somebody.folder.mkdir()
    try:
        yield somebody
        down = somebody.run("skyward", "local", "down", "--force")
        assert down.returncode == 0, down.stdout + down.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_readme_s_first_program_prints_its_results(person: Person) -> None:
    """The first Python block of the README runs as it is written."""
    program, *_ = blocks(ROOT / "README.md", "python")
    assert person.script(program).splitlines()[-1] == "0.3 0.1 2"


def test_the_digits_example_ends_with_a_table_and_nothing_left_running(person: Person) -> None:
    """`make hello`: a map and a broadcast over two nodes, then the summary line."""
    done = person.run(person.python, ROOT / "examples" / "digits.py", timeout=8 * MINUTES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"shards merged\D+0\.9\d+", done.stdout)
    # 12 calls of the map, 2 of the broadcast
    assert re.search(r"14 calls · 2 nodes · .* · \$0\.00 · nothing left running", done.stdout + done.stderr)
    assert person.kubectl("get", "skp,skn", "--all-namespaces", "-o", "name").strip() == ""


def _runs(person: Person, example: str) -> list[str]:
    """An example's output, line by line, and the last line of what it says; the README lists it."""
    assert f"(examples/{example})" in (ROOT / "README.md").read_text()
    done = person.run(person.python, ROOT / "examples" / example)
    assert done.returncode == 0, done.stdout + done.stderr
    return [*done.stdout.splitlines(), done.stderr.splitlines()[-1]]


def test_the_map_example_has_a_better_estimate_with_each_result(person: Person) -> None:
    """One line for each of 20 results."""
    *lines, last = _runs(person, "map.py")
    assert [line.split()[1] for line in lines] == [f"{done * 200_000:,}" for done in range(1, 21)]
    assert lines[-1].endswith("π ≈ 3.14158")  # the seeds are fixed
    assert re.search(r"20 calls · 2 nodes · .* · nothing left running", last)


def test_the_large_arrays_example_blurs_its_image(person: Person) -> None:
    """64 MB to two nodes and back; the deviation of the mean of three is that of one by the root of three."""
    line, last = _runs(person, "large_arrays.py")
    assert line == "67 MB: deviation 0.289 before, 0.167 after"
    assert re.search(r"4 calls · 2 nodes · .* · nothing left running", last)


def test_the_elastic_example_begins_and_ends_without_a_machine(person: Person) -> None:
    """How many it has in between depends on how fast this computer makes them."""
    before, between, after, last = _runs(person, "elastic.py")
    assert (before, after) == ("before: 0 nodes", "after: 0 nodes")
    assert re.fullmatch(r"at most [123] nodes: \[0, 1, 4, 9, 16, 25, 36, 49, 64\]", between)
    assert re.search(r"9 calls · [123] nodes? · .* · nothing left running", last)


def test_the_cancel_example_stops_a_search_a_call_and_a_slow_one(person: Person) -> None:
    """All of it would take hours; the call after it runs at once."""
    found, cancelled, slow, after, last = _runs(person, "cancel.py")
    assert re.fullmatch(r"999,985,999,949 can be divided by (999,983|1,000,003)", found)
    assert cancelled == "cancelled: True"
    assert "ran longer than its timeout of 1 s and was stopped" in slow
    assert after == "waited for 0 s"
    assert "nothing left running" in last


def test_the_stream_out_example_stops_when_it_is_good_enough(person: Person) -> None:
    """An endless search; its lines come while it runs."""
    *lines, last = _runs(person, "stream_out.py")
    values = [float(line.split()[0]) for line in lines]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.001 <= values[-2]
    assert "nothing left running" in last


def test_the_stream_in_example_sums_up_what_is_only_being_made(person: Person) -> None:
    """Three sensors, whose readings differ by one each."""
    *lines, last = _runs(person, "stream_in.py")
    assert lines == ["sensor 0: 4.80", "sensor 1: 5.80", "sensor 2: 6.80"]
    assert re.search(r"1 call · 1 node · .* · nothing left running", last)


def test_the_readme_s_kubectl_commands_compute_a_factorial(person: Person) -> None:
    """The YAML example, applied, waited for, shown and deleted with kubectl."""
    examples = ROOT / "examples"
    person.kubectl("apply", "-f", examples / "pool.yaml", "-f", examples / "factorial.yaml")
    person.kubectl("wait", "--for=condition=Succeeded", "task/factorial", "--timeout=120s")
    shown = person.kubectl("get", "skp,skn,skt")
    assert "2/2" in shown
    assert "Succeeded" in shown
    value = person.kubectl("get", "task", "factorial", "-o", "jsonpath={.status.result.value}")
    assert json.loads(value) == 2432902008176640000
    person.kubectl("delete", "-f", examples / "pool.yaml", "-f", examples / "factorial.yaml")
    assert person.kubectl("get", "skn", "-o", "name").strip() == ""


def test_the_readme_s_yaml_is_the_yaml_of_the_examples() -> None:
    """What the README shows is what its kubectl commands apply."""
    shown = blocks(ROOT / "README.md", "yaml")[0]
    pool, task = shown.split("---\n")
    assert (ROOT / "examples" / "pool.yaml").read_text().endswith(pool)
    assert (ROOT / "examples" / "factorial.yaml").read_text().endswith(task)


def test_wheels_in_an_empty_environment_run_the_example_from_any_folder(person: Person) -> None:
    """`pip install` of what `make build` makes, then the example, without this checkout on the path."""
    wheels = person.folder / "dist"
    built = person.run("uv", "build", "--all-packages", "--wheel", "--out-dir", wheels, ROOT)
    assert built.returncode == 0, built.stderr
    venv = person.folder / "venv"
    assert person.run(person.python, "-m", "venv", venv).returncode == 0
    installed = person.run(
        venv / "bin" / "pip", "install", "--quiet", *wheels.glob("*.whl"), timeout=6 * MINUTES
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    newcomer = Person(person.home.parent / "newcomer", person.folder, venv / "bin" / "python")
    try:
        done = newcomer.run(newcomer.python, ROOT / "examples" / "digits.py", timeout=8 * MINUTES)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "nothing left running" in done.stdout + done.stderr
    finally:
        newcomer.run("skyward", "local", "down", "--force")
