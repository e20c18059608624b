"""`deadman.sh` as a machine with root runs it: a file system below a folder, and a double of systemctl."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from skyward_operator.nodes.deadman import COMMAND, opening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

SYSTEMCTL = """#!/bin/bash
echo "$*" >>{root}/calls
case $1 in
    is-active) [ -e {root}/active ] ;;
    restart) touch {root}/active ;;
esac
"""
UNIT = "etc/systemd/system/skyward-deadman.service"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A machine's file system; what was started there is ended."""
    for name in ("var/lib", "run/systemd/system", "etc/systemd/system", "bin"):
        (tmp_path / name).mkdir(parents=True)
    program(tmp_path / "bin" / "systemctl", SYSTEMCTL.format(root=tmp_path))
    program(tmp_path / "bin" / "end-this-machine", f"#!/bin/bash\necho $* >>{tmp_path}/ended\n")
    yield tmp_path
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(tmp_path) in " ".join(process.cmdline()):
                process.kill()


def program(path: Path, text: str) -> None:
    """An executable file."""
    path.write_text(text)
    path.chmod(0o700)


def listens(root: Path, beats: str = "", power_off: str = "end-this-machine now", ttl: int = 40) -> list[str]:
    """What a machine answers to a connection that arms it, and to these beats."""
    environment = {**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}", "HOME": str(root)}
    environment |= {"SKYWARD_DEADMAN_PREFIX": str(root)}
    environment.pop("SKYWARD_VM", None)
    first = subprocess.run(
        ["bash", "-c", COMMAND],
        input=opening(ttl, power_off) + beats.encode(),
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return first.stdout.decode().splitlines()


def test_systemd_keeps_it_where_there_is_one(root: Path) -> None:
    """Enabled, so that a reboot brings it back; restarted when it is killed; and started once only."""
    assert listens(root, "40\n60\n") == ["::armed systemd", "ok", "ok"]
    unit = (root / UNIT).read_text()
    for words in ("Restart=always", "WantedBy=multi-user.target", "OOMScoreAdjust=-1000"):
        assert words in unit
    kept = root / "var/lib/skyward-deadman"
    assert f"ExecStart=/bin/bash {kept}/deadman.sh watch {kept} {root}/run/skyward-deadman\n" in unit
    assert (kept / "command").read_text() == "end-this-machine now\n"
    assert listens(root) == ["::armed systemd"]
    calls = (root / "calls").read_text().splitlines()
    assert calls.count("enable --quiet skyward-deadman") == 1
    assert calls.count("restart skyward-deadman") == 1


def test_what_systemd_starts_powers_the_machine_off_by_the_command_that_was_kept(root: Path) -> None:
    """With a time to live that is over at once, and the words of the command as they were given."""
    listens(root, ttl=1)
    kept, ran = root / "var/lib/skyward-deadman", root / "run/skyward-deadman"
    with subprocess.Popen(
        ["bash", kept / "deadman.sh", "watch", kept, ran],
        env={**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}", "SKYWARD_DEADMAN_PREFIX": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        assert "the operator has been silent for" in watch.stdout.readline()
        while not (root / "ended").exists():
            assert watch.poll() is None
        watch.kill()
    assert (root / "ended").read_text() == "now\n"


def test_a_beat_that_is_read_in_two_pieces_is_not_taken_for_another_time_to_live(root: Path) -> None:
    """The time for a look may be up in the middle of a line; "00" and "0" of 600 would end or disarm it."""
    listens(root, ttl=600)
    kept, ran = root / "var/lib/skyward-deadman", root / "run/skyward-deadman"
    (kept / "ttl").write_text("20\n")  # it looks every second
    environment = {
        **os.environ,
        "PATH": f"{root}/bin:{os.environ['PATH']}",
        "SKYWARD_DEADMAN_PREFIX": str(root),
    }
    watch = subprocess.Popen(["bash", kept / "deadman.sh", "watch", kept, ran], env=environment)
    try:
        with (ran / "beats").open("r+b", buffering=0) as beats:
            beats.write(b"beat 21\n")
            eventually(lambda: (kept / "ttl").read_text() == "21\n")
            for first, rest in ((b"beat 6", b"00\n"), (b"beat 60", b"0\n"), (b"b", b"eat 0\n")):
                for piece in (first, rest):
                    before = looks(watch)
                    beats.write(piece)
                    eventually(partial(has_looked, watch, before + len(piece) + 1))
                assert (kept / "ttl").read_text() == "21\n"
            beats.write(b"beat 30\n")
            eventually(lambda: (kept / "ttl").read_text() == "30\n")
    finally:
        watch.kill()
        watch.wait()


def has_looked(watch: subprocess.Popen[bytes], reads: int) -> bool:
    """Whether a switch has read more often than that: each byte of a beat, and the time with each look."""
    return looks(watch) > reads


def looks(watch: subprocess.Popen[bytes]) -> int:
    """How often a switch has read."""
    return int(psutil.Process(watch.pid).io_counters().read_count)


def eventually(claim: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_processes_keep_it_without_systemd(root: Path) -> None:
    """As in containers and on small systems."""
    (root / "run/systemd/system").rmdir()
    assert listens(root, "40\n") == ["::armed processes", "ok"]
    assert not (root / UNIT).exists()


def test_a_machine_without_the_command_that_ends_it_says_so(root: Path) -> None:
    """Better no machine than one that never ends."""
    (answer,) = listens(root, power_off="no-such-command -h now")
    assert answer == "::failed rejected there is no no-such-command on this machine"


def test_an_operator_that_does_not_know_the_command_leaves_the_one_of_before(root: Path) -> None:
    """Its Secret was deleted, and the provider cannot be asked; a machine that was never armed says so."""
    (answer,) = listens(root, power_off="")
    assert answer == "::failed transient it is not known what powers this machine off"
    listens(root)
    assert listens(root, power_off="") == ["::armed systemd"]
    assert (root / "var/lib/skyward-deadman/command").read_text() == "end-this-machine now\n"


@pytest.mark.parametrize("beat", ["a[$(touch hacked)]", "-1", "", "99999999999999999999"])
def test_a_beat_that_is_no_number_ends_the_connection_and_is_never_evaluated(root: Path, beat: str) -> None:
    """The switch runs as root."""
    assert listens(root, f"{beat}\n40\n") == ["::armed systemd"]
    assert not list(root.rglob("hacked"))
