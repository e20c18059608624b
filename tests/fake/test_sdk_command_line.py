"""The commands that look at and end what runs, on a control plane in this process."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import typer
from tests.fake.sdk_plane import POOLS, TASKS, FakePlane
from typer.testing import CliRunner

import skyward as sky
from skyward.cli.commands import register
from skyward.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from skyward.pools import Pool

APP = typer.Typer()
register(APP)
SILENT = sky.Options(console="silent")


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


@pytest.mark.parametrize("words", ["version", "--version"])
def test_the_version_is_printed(words: str) -> None:
    result = CliRunner().invoke(app, [words])
    assert (result.exit_code, result.output) == (0, f"{sky.__version__}\n")


def test_pools_nodes_and_tasks_are_listed(plane: FakePlane, pool: Pool) -> None:
    with pytest.raises(LookupError):
        fail() >> pool
    assert "team" in _run("pools")
    assert "Ready" in _run("pools")
    assert len(_run("nodes", "team").splitlines()) == 3
    assert "no computenodes" in _run("nodes", "other")
    assert "no tasks" in _run("tasks", "other")
    del plane.only(TASKS)["metadata"]["labels"]  # as in a manifest for kubectl
    line = _run("tasks", "team").splitlines()[1]
    assert line.startswith("fail-")
    assert "UserException" in line
    assert [each["metadata"]["name"] for each in json.loads(_run("pools", "--json"))] == ["team"]
    assert "no computepools in namespace elsewhere" in _run("pools", "-n", "elsewhere")


def test_a_cluster_that_does_not_answer_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakePlane() as gone:
        monkeypatch.setenv("KUBECONFIG", str(gone.write_kubeconfig(tmp_path)))
    monkeypatch.setattr("skyward.cluster.api.PATIENCE_SECONDS", 1.0)
    result = CliRunner().invoke(APP, ["pools"])
    assert f"waiting for {gone.server} (context fake)" in result.stderr
    assert "SKYWARD_CONTROL_PLANE=local" in str(result.exception)


@sky.function
def half(number: int) -> complex | float:
    return number / 2 if number >= 0 else complex(number, 1)


def test_the_result_of_a_task_is_written_as_it_is_asked_for(
    plane: FakePlane, pool: Pool, tmp_path: Path
) -> None:
    pool.map(half, [1, 2])
    half(3) >> pool
    half(-2) >> pool
    several, one, odd = plane.names(TASKS)
    assert json.loads(_run("result", several)) == [0.5, 1.0]
    assert _run("result", one) == "1.5\n"
    assert _run("result", odd, "--output", "repr") == "(-2+1j)\n"
    file = tmp_path / "result"
    assert _run("result", odd, "-o", "pickle", "--to", str(file)) == ""
    assert pickle.loads(file.read_bytes()) == complex(-2, 1)
    failed = CliRunner().invoke(APP, ["result", odd])
    assert failed.exit_code == 1
    assert "complex is not JSON serializable\n  → use --output repr" in failed.output


@sky.function
def root(number: int) -> int:
    if number < 0:
        raise ArithmeticError(f"{number} has no root")
    return number


def test_what_a_task_raised_is_shown_as_it_was_on_the_node_and_never_as_frames_of_ours(
    plane: FakePlane, pool: Pool
) -> None:
    pool.map(root, [1, -2, 3, -4], on_error="return")
    failed = CliRunner().invoke(APP, ["result", plane.names(TASKS)[0]])
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert type(failed.exception) is SystemExit
    assert failed.stderr.startswith("error: ArithmeticError: -2 has no root\n")
    assert "2 of 4 calls failed (1,3); this is call 1" in failed.stderr
    assert "on the node:\nTraceback (most recent call last):" in failed.stderr
    assert 'raise ArithmeticError(f"{number} has no root")' in failed.stderr
    assert "typer" not in failed.stderr
    assert "→ --on-error return" in failed.stderr


def test_values_can_be_had_beside_the_errors_of_others(plane: FakePlane, pool: Pool) -> None:
    pool.map(root, [1, -2, 3], on_error="return")
    name = plane.names(TASKS)[0]
    error = {"error": {"type": "ArithmeticError", "message": "-2 has no root"}}
    assert json.loads(_run("result", name, "--on-error", "return")) == [1, error, 3]
    shown = _run("result", name, "--on-error", "return", "-o", "repr")
    assert shown == "[1, ArithmeticError('-2 has no root'), 3]\n"


def test_each_call_has_a_record_and_no_value_is_unpickled_for_it(
    plane: FakePlane, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.map(root, [1, -2, 3, -4], on_error="return")
    name = plane.names(TASKS)[0]

    def refuse(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr("skyward.wire.codec.loads", refuse)
    monkeypatch.setattr("skyward.results.loads_error", refuse)
    head, *lines = _run("result", name, "--records").splitlines()
    assert head.split() == ["INDEX", "OK", "ATTEMPTS", "NODE", "RANK", "STARTED", "SECONDS", "ERROR"]
    assert [line.split()[:3] for line in lines] == [
        ["0", "yes", "1"],
        ["1", "no", "1"],
        ["2", "yes", "1"],
        ["3", "no", "1"],
    ]
    assert lines[1].endswith("  ArithmeticError: -2 has no root")
    found = [json.loads(line) for line in _run("result", name, "--records", "-o", "json").splitlines()]
    assert [(each["index"], each["ok"], each["node"]) for each in found] == [
        (0, True, "n0"),
        (1, False, "n1"),
        (2, True, "n0"),
        (3, False, "n1"),
    ]
    assert found[1]["error"]["reason"] == "UserException"
    failed = _run("result", name, "--records", "--failed", "--index", "0-2", "-o", "json")
    assert [json.loads(line)["index"] for line in failed.splitlines()] == [1]


@pytest.mark.parametrize("words", [["--records", "-o", "repr"], ["--failed"], ["--index", "3"]])
def test_options_that_do_not_go_together_are_said_and_not_ignored(plane: FakePlane, words: list[str]) -> None:
    refused = CliRunner().invoke(APP, ["result", "any", *words])
    assert refused.exit_code == 1
    assert "records" in refused.stderr


def test_an_open_task_keeps_no_records_and_says_so(plane: FakePlane, pool: Pool) -> None:
    half(1) >> pool
    plane.only(TASKS)["spec"]["calls"]["open"] = True
    refused = CliRunner().invoke(APP, ["result", plane.names(TASKS)[0], "--records"])
    assert isinstance(refused.exception, sky.TaskError)
    assert "told to its client and not kept" in str(refused.exception)


def test_an_error_of_ours_about_a_task_keeps_its_remedy(plane: FakePlane, pool: Pool) -> None:
    plane.answer = lambda *_: {"phase": "Failed", "reason": "RunTimeout", "message": "it ran too long"}
    future = root(1) > pool
    failed = CliRunner().invoke(APP, ["result", plane.names(TASKS)[0]])
    assert failed.exit_code == 1
    assert "it ran too long\n  → Raise spec.timeouts.runSeconds" in failed.stderr
    assert "--timeout" not in failed.stderr
    with pytest.raises(sky.TaskTimeout):
        future.result(20)


def test_a_result_that_does_not_come_in_time_is_no_result(plane: FakePlane, pool: Pool) -> None:
    plane.answer = lambda *_: {"phase": "Running"}
    future = half(1) > pool
    late = CliRunner().invoke(APP, ["result", plane.names(TASKS)[0], "--timeout", "0.05"])
    assert late.exit_code == 1
    assert "has not ended within 0.05 s; it goes on\n  → ask again later" in late.output
    assert not future.done()


def test_why_says_where_a_pool_stands_and_what_was_refused(plane: FakePlane) -> None:
    refused = {
        "provider": "sim",
        "region": "sim-east",
        "instanceType": "c.small",
        "market": "spot",
        "outcome": "InsufficientCapacity",
        "message": "no spot capacity in sim-east",
        "time": "2026-11-25T12:00:00Z",
    }
    waiting = {"phase": "Provisioning", "reason": "InsufficientCapacity", "offersTried": [refused]}
    spec = {"candidates": [{"name": "main", "provider": "sim"}], "nodes": {"desired": 1}}
    metadata = {"name": "train", "namespace": "default"}
    plane.objects.setdefault(POOLS, {})["train"] = {"metadata": metadata, "spec": spec, "status": waiting}
    queued = {"phase": "Queued", "reason": "AwaitingNodes"}
    task: dict[str, Any] = {"metadata": {**metadata, "name": "fit"}, "spec": {"poolRef": {"name": "train"}}}
    plane.objects.setdefault(TASKS, {})["fit"] = {**task, "status": queued}
    shown = _run("why", "train")
    assert shown.startswith("pool train: Provisioning, InsufficientCapacity\n")
    assert "waits for: the provider to have such a machine" in shown
    assert "no spot capacity in sim-east" in shown.splitlines()[-1]
    about = json.loads(_run("why", "task/fit", "-o", "json"))
    assert (about["subject"], about["waitsFor"]) == ("task fit", "a node of its pool that is ready")
    assert about["beneath"][0]["offersTried"] == [refused]
    assert "offers that were asked for" in _run("why", "fit")


def test_why_of_what_does_not_exist_says_so(plane: FakePlane) -> None:
    result = CliRunner().invoke(APP, ["why", "nothing"])
    assert result.exit_code == 1
    assert "there is no task, no node, no pool nothing" in result.output


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
