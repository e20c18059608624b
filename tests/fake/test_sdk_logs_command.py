"""`skyward logs` on a control plane in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from tests.fake.sdk_plane import NODES, POOLS, TASKS, FakePlane
from typer.testing import CliRunner

import skyward as sky
from skyward.cli.commands import register
from skyward.cli.main import app
from skyward.cluster.api import Api, ApiError
from skyward.contract.names import ANNOTATION_TICKET, node_name

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


@pytest.fixture
def task(plane: FakePlane, pool: Pool) -> str:
    """The name of a task that has ended."""
    with pytest.raises(LookupError):
        fail() >> pool
    return plane.names(TASKS)[0]


def _run(*words: str) -> str:
    result = CliRunner().invoke(APP, list(words))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def _printed(text: str, **more: Any) -> dict[str, Any]:
    return {"rank": 0, "index": 0, "attempt": 1, "stream": "stdout", "time": 5.0, "text": text, **more}


def test_output_of_a_task_is_printed_with_the_ticket_of_its_run(plane: FakePlane, pool: Pool) -> None:
    with pytest.raises(LookupError):
        fail() >> pool
    name = plane.names(TASKS)[0]
    pieces = ("half", " a line\nrest")
    plane.task_logs[name] = [{"rank": 1, "index": 0, "stream": "stdout", "text": text} for text in pieces]
    assert _run("logs", name) == "[node 1] half a line\n[node 1] rest\n"
    first = {"rank": 0, "index": 2, "attempt": 1, "stream": "stdout", "time": 5.5, "text": "first\n"}
    second = {**first, "index": 3, "attempt": 2, "time": 9.0, "text": "second\n"}
    plane.task_logs[name] = [first, second]
    plane.change(TASKS, name, counts={"total": 10})
    assert _run("logs", name, "--index", "3-9") == "[node 0] second\n"
    assert _run("logs", name, "--attempt", "1") == "[node 0] first\n"
    assert _run("logs", name, "--since", "1970-01-01T00:00:06Z") == "[node 0] second\n"
    assert _run("logs", name, "--since", "10m") == ""
    assert (
        _run("logs", name, "--index", "2", "--timestamps") == "1970-01-01T00:00:05.500000Z [node 0] first\n"
    )
    for option, word in (("--since", "soon"), ("--index", "a-b")):
        assert CliRunner().invoke(APP, ["logs", name, option, word]).exit_code == 2


def test_calls_that_a_task_does_not_have_are_no_silence(plane: FakePlane, task: str) -> None:
    plane.task_logs[task] = [_printed("hello\n")]
    for total, have in ((1, "it has 1 call, 0"), (5, "it has 5 calls, 0 to 4")):
        plane.change(TASKS, task, counts={"total": total})
        result = CliRunner().invoke(APP, ["logs", task, "--index", "5-7"])
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"task {task} has no call 5: {have}" in result.stderr
    plane.change(TASKS, task, counts={"total": 6})
    assert _run("logs", task, "--index", "5-7") == ""
    assert _run("logs", task, "--index", "0-9") == "[node 0] hello\n"


def test_who_may_update_an_object_reads_its_output_with_a_ticket_of_their_own(
    plane: FakePlane, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LookupError):
        fail() >> pool
    task, node = plane.names(TASKS)[0], plane.names(NODES)[0]
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "another home"))
    plane.task_logs[task] = [{"rank": 0, "index": 0, "stream": "stdout", "text": "hello"}]
    plane.task_logs[node] = [{"text": "installed"}]
    for _ in range(2):
        assert _run("logs", task) == "[node 0] hello\n"
        assert _run("logs", node) == "installed\n"
    assert plane.count("PATCH", f"tasks/{task}") == 1
    assert len(plane.only(POOLS)["metadata"]["annotations"][ANNOTATION_TICKET]) == 64


def test_for_who_may_not_update_an_object_the_status_speaks(
    plane: FakePlane, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ApiError("not allowed: patch", status=403)

    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "another home"))
    monkeypatch.setattr(Api, "patch", refuse)
    plane.change(NODES, plane.names(NODES)[0], phase="Failed", message="pip: no such package")
    result = CliRunner().invoke(APP, ["logs", plane.names(NODES)[0]])
    monkeypatch.undo()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "for those who may update computepool team: not allowed" in result.stderr
    assert "pip: no such package" in result.stderr


def test_a_name_means_a_task_a_node_or_a_pool(plane: FakePlane, task: str) -> None:
    node = plane.names(NODES)[0]
    made = {"node": node, "stream": "bootstrap", "offset": 4, "time": 4.0, "text": "made"}
    plane.task_logs["team"] = [made, _printed("hello\n", task=task)]
    plane.task_logs[node] = [made]
    plane.task_logs[task] = [_printed("hello\n", task=task)]
    assert _run("logs", "team") == f"[{node}] made\n[{task} node 0] hello\n"
    assert _run("logs", node) == "made\n"
    assert _run("logs", task) == "[node 0] hello\n"
    assert _run("logs", "computepools/team", "--index", "0") == f"[{task} node 0] hello\n"
    plane.put(POOLS, plane.only(POOLS) | {"metadata": plane.only(POOLS)["metadata"] | {"name": task}})
    result = CliRunner().invoke(APP, ["logs", task])
    assert (result.exit_code, result.stdout) == (2, "")
    words = f"{task} is a task and a pool in namespace default\n  → say which: task/{task} or pool/{task}"
    assert words in result.stderr
    assert _run("logs", f"task/{task}") == "[node 0] hello\n"
    assert _run("logs", f"skp/{task}") == f"[{task} node 0] hello\n"
    plane.remove(POOLS, task)


def test_wrong_words_say_what_to_write(plane: FakePlane, task: str) -> None:
    for words, status, text in (
        (["nothing"], 1, "`skyward tasks` and `skyward nodes` and `skyward pools` list what there is"),
        (["task/nothing"], 1, "there is no task nothing in namespace default"),
        (["task/nothing"], 1, "600 s unless sky.Options(result_ttl=...) says another time"),
        ([""], 2, "'' can be no name of a task, node or pool"),
        (["task/"], 2, "'' can be no name"),
        ([".."], 2, "'..' can be no name"),
        ([task, "--index", "5-0"], 2, "write 0-5"),
        (["pod/nothing"], 2, "write for example task/nothing"),
        ([plane.names(NODES)[0], "--index", "1"], 2, "a node has no calls"),
        ([task, "--tail", "-1"], 2, "tail"),
    ):
        result = CliRunner().invoke(APP, ["logs", *words])
        assert result.exit_code == status, words
        assert text in result.stderr


def test_the_log_of_a_node_that_is_gone_is_found_by_its_name(plane: FakePlane, pool: Pool) -> None:
    gone = node_name("team", plane.only(POOLS)["metadata"]["uid"], 0, 7)
    plane.task_logs[gone] = [{"node": gone, "offset": 4, "stream": "bootstrap", "text": "made"}]
    assert _run("logs", gone) == "made\n"
    of_another = node_name("team", "another uid", 0, 7)
    assert CliRunner().invoke(APP, ["logs", of_another]).exit_code == 1


def test_tail_is_the_end_of_what_there_was_and_then_what_comes(plane: FakePlane, task: str) -> None:
    plane.task_logs[task] = [_printed(f"{number}\n") for number in range(9)]
    plane.new_logs[task] = [_printed("new 1\nnew 2\nhalf"), _printed(" a line")]
    shown = [f"[node 0] {text}\n" for text in ("7", "8", "new 1", "new 2", "half a line")]
    assert _run("logs", task, "-f", "--tail", "2") == "".join(shown)
    assert _run("logs", task, "-f", "--tail", "0") == "".join(shown[2:])


@pytest.mark.parametrize("tail", [0, 1, 3, 99])
def test_tail_counts_a_last_line_without_an_end(plane: FakePlane, task: str, tail: int) -> None:
    plane.task_logs[task] = [_printed("0\n1\n2\n3\nlast")]
    shown = ["0", "1", "2", "3", "last"][max(0, 5 - tail) :]
    assert _run("logs", task, "--tail", str(tail)) == "".join(f"[node 0] {text}\n" for text in shown)


def test_lines_as_json_hold_all_that_is_known_of_them(plane: FakePlane, task: str) -> None:
    more = {"task": task, "pool": "team", "node": "n", "id": "x", "at": 3}
    plane.task_logs[task] = [
        _printed("ü", kept=1.5, **more),
        _printed("\ntwo", kept=2.5, **more),
        {"gap": True, "text": "(x)\n"},
    ]
    first, last, gap = (json.loads(line) for line in _run("logs", task, "--output", "json").splitlines())
    assert first == _printed("ü", task=task, pool="team", node="n")
    assert (last["text"], gap) == ("two", {"gap": True, "text": "(x)"})


def test_names_are_completed_in_a_shell(plane: FakePlane, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(word: str) -> list[str]:
        environment = {
            "_SKYWARD_COMPLETE": "complete_bash",
            "COMP_WORDS": f"skyward logs {word}",
            "COMP_CWORD": "2",
        }
        return CliRunner().invoke(app, [], env=environment, prog_name="skyward").output.split()

    assert completed("fai") == [task]
    assert completed("task/") == [f"task/{task}"]
    assert set(completed("te")) == {"team", *plane.names(NODES)}
    assert completed("pod/") == []
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert completed("te") == []


def test_characters_at_which_only_unicode_ends_lines_are_printed(plane: FakePlane, task: str) -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    plane.task_logs[task] = [_printed(f"{odd}\nnext\n", task=task)]
    assert _run("logs", task) == f"[node 0] {odd}\n[node 0] next\n"


def test_a_stream_that_is_no_json_is_an_error_in_words(plane: FakePlane, task: str) -> None:
    plane.task_logs[task] = ["no object"]  # type: ignore[list-item]
    result = CliRunner().invoke(APP, ["logs", task])
    assert result.exit_code == 1
    assert "error: the operator's gateway sent a line that is no JSON object" in result.stderr
