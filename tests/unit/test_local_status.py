"""The status file, process identities, versions, and the progress that people see."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import skyward
from skyward.cli import local
from skyward.cluster.connection import Connection, trouble_words
from skyward.contract.names import SCHEMA_VERSION
from skyward.local import supervisor
from skyward.local.ending import machines
from skyward.local.home import Home
from skyward.local.ports import free_ports
from skyward.local.processes import Identity
from skyward.local.progress import Progress, Step
from skyward.local.status import (
    Component,
    ComponentState,
    State,
    Status,
    parse_status,
    read_status,
    write_status,
)
from skyward.local.supervisor import Supervisor
from skyward.local.versions import Verdict, judge, release

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

ME = Identity.of(os.getpid()) or Identity(os.getpid(), 0.0)
STATUS = Status(
    state=State.READY,
    supervisor=ME,
    skyward=skyward.__version__,
    schema=SCHEMA_VERSION,
    python=sys.executable,
    started=1.0,
    server="https://127.0.0.1:1",
    ports=(1, 2, 3),
    components=(Component("etcd", ComponentState.RUNNING, ME, 2, "exit status 1"), Component("operator")),
)


def test_status_survives_its_file(tmp_path: Path) -> None:
    write_status(tmp_path / "status.json", STATUS)
    assert read_status(Home(tmp_path)) == STATUS


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"state": "dancing"}', b'{"supervisor": null}'])
def test_half_written_status_counts_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "status.json").write_bytes(text)
    assert read_status(Home(tmp_path)) is None


def test_status_of_a_later_version_can_be_read(tmp_path: Path) -> None:
    write_status(tmp_path / "status.json", STATUS)
    text = (tmp_path / "status.json").read_bytes().replace(b"{", b'{"invented_later": 1,', 1)
    assert parse_status(text) == STATUS


def test_process_is_alive_only_with_its_creation_time() -> None:
    assert ME.process() is not None
    assert Identity(ME.pid, ME.created - 3600).process() is None
    assert not replace(STATUS, supervisor=Identity(ME.pid, ME.created - 3600)).is_alive


def test_process_that_is_gone_is_not_alive() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert Identity.of(child) is None
    assert Identity(child, 1.0).process() is None


@pytest.mark.parametrize(
    ("version", "schema", "python", "verdict"),
    [
        (skyward.__version__, SCHEMA_VERSION, sys.executable, Verdict.SHARE),
        ("0.0.1", SCHEMA_VERSION, sys.executable, Verdict.REPLACE),
        (skyward.__version__, "0", sys.executable, Verdict.REPLACE),
        (skyward.__version__, SCHEMA_VERSION, "/deleted/bin/python", Verdict.REPLACE),
        ("99.0", SCHEMA_VERSION, sys.executable, Verdict.NEWER),
        (skyward.__version__, "99", "/deleted/bin/python", Verdict.NEWER),
    ],
)
def test_versions_decide_about_sharing(version: str, schema: str, python: str, verdict: Verdict) -> None:
    assert judge(replace(STATUS, skyward=version, schema=schema, python=python)) is verdict


def test_versions_compare_as_numbers() -> None:
    assert release("0.10.0") > release("0.9.9")
    assert release("1.2.0rc1") == (1, 2, 0)


def test_ports_are_free_and_different_and_preferred_ones_kept() -> None:
    first = free_ports(3)
    assert len(set(first)) == 3
    assert free_ports(3, first) == first


def node(name: str, providers: list[str], status: dict[str, Any]) -> dict[str, Any]:
    spec = {"poolRef": {"name": "p"}, "candidates": [{"provider": provider} for provider in providers]}
    return {"metadata": {"namespace": "default", "name": name}, "spec": spec, "status": status}


def test_machines_are_free_only_when_all_that_is_known_says_local() -> None:
    bought = {"phase": "Ready", "launch": {"offer": {"provider": "local"}}}
    free = {
        machine.name: machine.is_free
        for machine in machines(
            [
                node("local", ["local"], {"phase": "Ready"}),
                node("chosen", ["local", "aws"], bought),
                node("open", ["local", "aws"], {"phase": "Launching"}),
                node("paid", ["aws"], {"phase": "Terminating"}),
                node("unknown", [], {}),
                node("gone", ["aws"], {"phase": "Gone"}),
            ]
        )
    }
    assert free == {"local": True, "chosen": True, "open": False, "paid": False, "unknown": False}


def test_progress_says_what_is_new_and_repeats_what_is_not() -> None:
    said: list[Step] = []
    progress = Progress(said.append, "building", every=0.0)
    for detail in ("1 of 2", "1 of 2", "2 of 2"):
        progress.say(detail)
    progress.repeat()
    assert [step.detail for step in said] == ["1 of 2", "2 of 2"]


def test_step_reads_as_one_line() -> None:
    assert str(Step("building etcd", "3 of 9", 12.4)) == "building etcd: 3 of 9 (12 s)"
    assert str(Step("building etcd")) == "building etcd"


@pytest.mark.parametrize(
    ("state", "alive", "words"),
    [
        (State.READY, False, "was killed; run `skyward local up` in another terminal and this program goes"),
        (State.STOPPED, False, "was stopped; run `skyward local up`"),
        (State.READY, True, "does not answer, still waiting; see `skyward local status`"),
    ],
)
def test_whoever_waits_for_a_control_plane_reads_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State, alive: bool, words: str
) -> None:
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path))
    home = Home.locate()
    home.prepare()
    me = Identity.of(os.getpid())
    assert me is not None
    write_status(home.status, replace(STATUS, state=state, supervisor=me if alive else Identity(me.pid, 1.0)))
    embedded = Connection("https://127.0.0.1:1", "default", "embedded control plane", is_embedded=True)
    assert trouble_words(embedded).startswith(words)


def test_a_full_disk_is_named_wherever_the_control_plane_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path))
    home = Home.locate()
    home.prepare()
    embedded = Connection("https://x", "default", "embedded", is_embedded=True)
    write_status(home.status, replace(STATUS, supervisor=Identity(1, 1.0)))
    assert home.shortage == ""
    assert trouble_words(embedded).startswith("was killed; run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    full = f"the disk that holds {home.root} is full (4,096 bytes are free): make room there"
    assert trouble_words(embedded).startswith(f"was killed; {full}; then run `skyward local up`")
    result = CliRunner().invoke(local.app, ["status"])
    assert (result.exit_code, full in result.stdout) == (3, True)
    write_status(home.status, replace(STATUS, supervisor=Identity(1, 1.0), state=State.FAILED, error="oh"))
    assert trouble_words(embedded).startswith("failed: oh; the disk")


def test_a_supervisor_whose_status_cannot_be_written_goes_on_and_says_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    home.prepare()
    kept = Supervisor(home, (tmp_path / "etcd", tmp_path / "kube-apiserver"), [])

    def refuse(path: Path, status: Status) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(supervisor, "write_status", refuse)
        kept._tell(State.READY, step="ready")
        assert read_status(home) is None
    reader, writer = os.pipe()
    monkeypatch.setattr(supervisor, "rotate", lambda _: kept.stop_soon())
    os.write(writer, b"x")
    kept._look_after(reader)
    os.close(reader)
    os.close(writer)
    found = read_status(home)
    assert found is not None
    assert found.step == "ready"
