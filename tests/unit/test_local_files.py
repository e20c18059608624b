"""Files of the local control plane: modes, what is kept, and what happens to damaged ones."""

from __future__ import annotations

import json
import stat
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from skyward.local.errors import HomeNotWritable
from skyward.local.home import Home, write_private
from skyward.local.kubeconfig import write_kubeconfig
from skyward.local.operator import succession
from skyward.local.pki import ensure_pki
from skyward.local.processes import Child, Spec, rotate, tail
from skyward.local.tokens import ensure_tokens, read_tokens

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "state" / "local" / "v1")
    made.prepare()
    return made


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


def test_folders_are_for_their_owner_only(home: Home) -> None:
    for folder in (home.root, home.pki, home.operator, home.log("etcd").parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_keys_and_tokens_are_for_their_owner_only(home: Home) -> None:
    pki = ensure_pki(home.pki)
    tokens = ensure_tokens(home.pki)
    write_kubeconfig(
        home.kubeconfig, server="https://127.0.0.1:1", authority=pki.authority, user="a", token=tokens.admin
    )
    assert modes(home.pki) == {0o600}
    assert modes(home.root) == {0o600}


def test_credentials_are_kept_when_they_are_good(home: Home) -> None:
    ensure_pki(home.pki), ensure_tokens(home.pki)
    before = {path.name: path.read_bytes() for path in home.pki.iterdir()}
    ensure_pki(home.pki), ensure_tokens(home.pki)
    assert {path.name: path.read_bytes() for path in home.pki.iterdir()} == before


@pytest.mark.parametrize("name", ["ca.crt", "server.crt", "server.key", "etcd-client.crt", "etcd-client.key"])
def test_certificates_are_made_anew_when_one_is_missing(home: Home, name: str) -> None:
    pki = ensure_pki(home.pki)
    before = pki.authority.read_bytes()
    (home.pki / name).unlink()
    ensure_pki(home.pki)
    assert (home.pki / name).exists()
    assert pki.authority.read_bytes() != before


def test_certificates_are_made_anew_when_they_do_not_belong_together(home: Home, tmp_path: Path) -> None:
    pki = ensure_pki(home.pki)
    other = tmp_path / "other"
    other.mkdir()
    foreign = ensure_pki(other).server_certificate.read_bytes()
    pki.server_certificate.write_bytes(foreign)
    ensure_pki(home.pki)
    assert pki.server_certificate.read_bytes() != foreign


def test_service_account_key_survives_new_certificates(home: Home) -> None:
    pki = ensure_pki(home.pki)
    before = pki.service_account_key.read_bytes()
    pki.authority.write_bytes(b"damaged")
    ensure_pki(home.pki)
    assert pki.service_account_key.read_bytes() == before


@pytest.mark.parametrize("text", ["", "half,", "\x00\x01", "short,skyward-admin,skyward-admin\n"])
def test_damaged_tokens_are_replaced(home: Home, text: str) -> None:
    (home.pki / "tokens.csv").write_text(text)
    assert read_tokens(home.pki) is None
    assert read_tokens(home.pki) != ensure_tokens(home.pki)
    assert read_tokens(home.pki) is not None


def test_tokens_do_not_show_in_their_own_text(home: Home) -> None:
    tokens = ensure_tokens(home.pki)
    assert tokens.admin not in repr(tokens)


def test_kubeconfig_stands_alone(home: Home) -> None:
    pki = ensure_pki(home.pki)
    write_kubeconfig(
        home.kubeconfig, server="https://127.0.0.1:1", authority=pki.authority, user="a", token="t"
    )
    document = json.loads(home.kubeconfig.read_text())
    assert document["users"] == [{"name": "a", "user": {"token": "t"}}]
    assert "certificate-authority-data" in document["clusters"][0]["cluster"]


def test_folder_that_cannot_be_written_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "file"))
    with pytest.raises(HomeNotWritable, match=r"file/local/v1 cannot be used") as raised:
        Home.locate().prepare()
    assert "SKYWARD_HOME" in str(raised.value)
    assert raised.value.__suppress_context__  # its words say it all


def test_home_follows_the_variable_and_has_a_versioned_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYWARD_HOME", str(tmp_path))
    assert Home.locate().root == tmp_path / "local" / "v1"
    monkeypatch.delenv("SKYWARD_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert Home.locate().root.parts[-3:] == ("skyward", "local", "v1")


def test_write_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "status.json"
    write_private(file, b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_private(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_log_that_is_too_large_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    file = tmp_path / "etcd.log"
    with file.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        rotate(file, limit=50)
        writer.write(b"after\n")
    assert file.read_bytes() == b"after\n"
    assert (tmp_path / "etcd.log.1").read_bytes() == b"x" * 100
    assert tail(file) == "after"


def test_process_is_judged_by_its_own_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "etcd.log"
    file.write_text("address already in use\n")
    child = Child(Spec("etcd", [sys.executable, "-c", "print('its own')"], file))
    eventually_ends(child)
    assert child.tail() == "its own"
    assert tail(file) == "address already in use\nits own"
    file.write_text("cut\n")  # a log that has grown too large is cut down
    assert child.tail() == "cut"


def eventually_ends(child: Child) -> None:
    process = child.identity.process()
    if process is not None:
        psutil.wait_procs([process], timeout=30)
    assert not child.is_running


def test_each_operator_has_a_name_of_its_own_and_hears_only_of_those_that_ended(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: set[str] = set()
    monkeypatch.setattr(
        "skyward.local.operator.find_by_argument", lambda argument: [argument] if argument in running else []
    )
    (first,) = succession(home)
    running.add(first)
    (second,) = succession(home)  # the first one may still act
    running.clear()
    third, predecessors = succession(home)
    assert len({first, second, third}) == 3
    names = ",".join(each.removeprefix("--holder=") for each in (first, second))
    assert predecessors == f"--predecessors={names}"
    assert stat.S_IMODE(home.operator_holders.stat().st_mode) == 0o600


def test_damaged_names_of_operators_are_forgotten(home: Home) -> None:
    home.operator_holders.write_bytes(b"\xff\xfe")
    assert len(succession(home)) == 1
