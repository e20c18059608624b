"""The operator is killed while a call prints: who follows and who reads later gets each line once."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.chaos.scene import Plane, eventually, own_plane

from skyward.contract.names import TASK

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).with_name("printing_program.py")
LINES = 30_000


@pytest.fixture
def plane() -> Iterator[Plane]:
    """A control plane; nothing is left of it afterwards."""
    with own_plane() as subject:
        yield subject


def numbers(text: str) -> list[int]:
    """The numbers of the lines that were shown, in order."""
    return [int(number) for number in re.findall(r"^\[(?:\S+ )?node 0\] line (\d+)\.$", text, re.MULTILINE)]


def is_followed(file: Path) -> bool:
    """Whether whoever writes this file has a good part of the lines."""
    return len(numbers(file.read_text())) > LINES // 10


def test_output_is_followed_through_a_kill_of_the_operator(plane: Plane) -> None:
    person, pool = plane.person, f"logs-{secrets.token_hex(3)}"
    files = {name: person.folder / name for name in ("program", "follow", "pool")}
    words = [sys.executable, str(PROGRAM), pool, str(LINES)]
    with ExitStack() as stack:
        out, followed, of_pool = (stack.enter_context(file.open("wb")) for file in files.values())
        program = subprocess.Popen(
            words, cwd=person.folder, env=person.environment, stdout=out, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda: "line 0." in files["program"].read_text(), "the call prints")
            (task,) = [
                each["metadata"]["name"]
                for each in plane.objects(TASK)
                if each["spec"]["poolRef"]["name"] == pool
            ]
            command = [str(Path(sys.executable).with_name("skyward")), "logs", "-f", task]
            follow = subprocess.Popen(command, env=person.environment, stdout=followed)
            command[-1] = f"pool/{pool}"
            whole = subprocess.Popen(command, env=person.environment, stdout=of_pool)
            try:
                for name in ("follow", "pool"):
                    eventually(partial(is_followed, files[name]), f"{name} follows")
                before = plane.kill("operator")
                assert len(numbers(files["follow"].read_text())) < LINES
                plane.comes_back("operator", before)
                assert follow.wait(120) == 0
                kept = person.run("skyward", "logs", task).stdout
                assert program.wait(60) == 0
                assert whole.wait(60) == 0
            finally:
                for reader in (follow, whole):
                    reader.kill()
                    reader.wait()
        finally:
            program.kill()
            program.wait()
    for text in (kept, *(file.read_text() for file in files.values())):
        assert numbers(text) == list(range(LINES))
    made = re.findall(rf"^\[{pool}-0-\w+\] (.*)$", files["pool"].read_text(), re.MULTILINE)
    assert made.count("::step workdir") == 1
    assert any("linked with agent" in line for line in made)
