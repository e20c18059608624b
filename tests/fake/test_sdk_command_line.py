"""The commands that look at and end what runs, on a control plane in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import typer
from tests.fake.sdk_plane import NODES, POOLS, TASKS, FakePlane
from typer.testing import CliRunner

import skyward as sky
from skyward.cli.commands import register

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skyward.pools import Pool

APP = typer.Typer()
register(APP)
SILENT = sky.Options(console="silent")


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlane]:
    with FakePlane() as plane:
        monkeypatch.setenv("KUBECONFIG", str(plane.write_kubeconfig(tmp_path)))
        monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "home"))
        yield plane


@pytest.fixture
def pool(plane: FakePlane) -> Iterator[Pool]:
    with sky.Compute(provider=sky.Local(), name="team", nodes=2, options=SILENT) as pool:
        yield pool


@sky.function
def fail() -> None:
    raise LookupError("nowhere")


def _run(*words: str) -> str:
    result = CliRunner().invoke(APP, list(words))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_pools_nodes_and_tasks_are_listed(plane: FakePlane, pool: Pool) -> None:
    with pytest.raises(LookupError):
        fail() >> pool
    assert "team" in _run("pools")
    assert "Ready" in _run("pools")
    assert len(_run("nodes", "--pool", "team").splitlines()) == 3
    assert "no computenodes" in _run("nodes", "--pool", "other")
    line = _run("tasks").splitlines()[1]
    assert line.startswith("fail-")
    assert "UserException" in line
    assert [each["metadata"]["name"] for each in json.loads(_run("pools", "--json"))] == ["team"]
    assert "no computepools in namespace elsewhere" in _run("pools", "-n", "elsewhere")


def test_output_of_a_task_is_printed_with_the_ticket_of_its_run(plane: FakePlane, pool: Pool) -> None:
    with pytest.raises(LookupError):
        fail() >> pool
    name = plane.names(TASKS)[0]
    pieces = ("half", " a line\nrest")
    plane.task_logs[name] = [{"rank": 1, "index": 0, "stream": "stdout", "text": text} for text in pieces]
    assert _run("logs", name) == "[node 1] half a line\n[node 1] rest\n"


def test_without_the_ticket_the_status_speaks(
    plane: FakePlane, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "another home"))
    plane.change(NODES, plane.names(NODES)[0], phase="Failed", message="pip: no such package")
    output = _run("logs", plane.names(NODES)[0])
    assert "no ticket" in output
    assert "pip: no such package" in output


def test_an_unknown_name_says_how_to_find_one(plane: FakePlane) -> None:
    result = CliRunner().invoke(APP, ["logs", "nothing"])
    assert result.exit_code == 1
    assert "`skyward tasks` and `skyward nodes`" in result.output


def test_down_waits_for_the_proof(plane: FakePlane) -> None:
    pool = sky.Compute(provider=sky.Local(), name="team", options=SILENT)
    pool.__enter__()
    assert "nothing left running of pool team" in _run("down", "team")
    assert plane.names(POOLS) == []
    assert "there was no pool team" in _run("down", "team")
    pool.__exit__(None, None, None)


def test_down_says_what_could_not_be_confirmed(plane: FakePlane, pool: Pool) -> None:
    plane.keep_pools = True
    result = CliRunner().invoke(APP, ["down", "team", "--timeout", "0.2"])
    assert result.exit_code == 8
    plane.keep_pools = False
    plane.on_loop(_finish(plane))


async def _finish(plane: FakePlane) -> None:
    plane._delete_pool(plane.only(POOLS))


def test_hello_calls_a_function_and_cleans_up(plane: FakePlane) -> None:
    assert "add(2, 3) → 5" in _run("hello")
    assert plane.names(POOLS) == []
