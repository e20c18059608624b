"""What a machine is told at its first boot, and the host key that it is given with it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import asyncssh

from skyward_operator.nodes.deadman import OFF, opening, period, script
from skyward_operator.nodes.first_boot import HEAD, LONGEST, boot_ttl, user_data
from skyward_operator.nodes.host_key import host_key

if TYPE_CHECKING:
    from pathlib import Path

POOL_KEY = asyncssh.generate_private_key("ssh-ed25519")


def test_a_host_key_is_the_same_for_the_same_order_and_another_for_another() -> None:
    """An order that is sent twice must be byte for byte the same; another pool's tokens give other keys."""
    first, again = host_key(POOL_KEY, "token"), host_key(POOL_KEY, "token")
    assert (first.private, first.public) == (again.private, again.public)
    assert host_key(POOL_KEY, "other").public != first.public
    assert host_key(asyncssh.generate_private_key("ssh-ed25519"), "token").public != first.public


def test_openssh_and_asyncssh_read_a_host_key(tmp_path: Path) -> None:
    """OpenSSH itself says which public key belongs to the file."""
    key = host_key(POOL_KEY, "token")
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(key.private)
    done = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True)
    assert done.stdout.split() == key.public.split()
    read = asyncssh.import_private_key(key.private)
    assert read.export_public_key("openssh").decode().split() == key.public.split()
    assert key.private not in repr(key)


def test_the_document_fits_a_cloud_and_holds_no_key_of_the_pool() -> None:
    """Only the host key is in it, which belongs to that machine."""
    key = host_key(POOL_KEY, "token")
    made = user_data(script(), 600, "shutdown -h now", key)
    assert made is not None
    assert len(made.encode()) <= LONGEST
    assert POOL_KEY.export_private_key("openssh").decode().splitlines()[3] not in made
    document = json.loads(made.removeprefix(HEAD))
    assert document["ssh_keys"]["ed25519_private"] == key.private
    assert document["runcmd"][0][-3:] == ["arm", "600", "shutdown -h now"]


def test_a_machine_whose_host_key_is_known_runs_a_script_that_arms_it() -> None:
    """bash runs it as it is, and the switch gets its own text, the time to live, and the command."""
    made = user_data('echo "$1 $2 $3 and $script"\n', 600, "shutdown -h now", None)
    assert made is not None
    done = subprocess.run(["bash", "-c", made], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'arm 600 shutdown -h now and echo "$1 $2 $3 and $script"'
    assert len((user_data(script(), 600, "shutdown -h now", None) or "").encode()) < LONGEST * 3 / 4


def test_without_a_switch_and_a_key_there_is_no_document() -> None:
    """`ttlSeconds: 0` arms nothing, and neither does a provider whose machines cannot end themselves."""
    assert user_data(script(), 0, "shutdown -h now", None) is None
    assert user_data(script(), 600, "", None) is None
    made = user_data(script(), 0, "shutdown -h now", host_key(POOL_KEY, "t"))
    assert made is not None
    assert "runcmd" not in json.loads(made.removeprefix(HEAD))


def test_a_machine_waits_at_first_for_as_long_as_a_connection_may_take() -> None:
    """Else a short time to live would end it before anybody could connect; 0 stays off."""
    assert boot_ttl(60, 600) == 600
    assert boot_ttl(900, 600) == 900
    assert boot_ttl(0, 600) == 0


def test_beats_come_ten_times_in_a_time_to_live_and_every_10_seconds_at_least() -> None:
    """Also while the switch is off: it may be turned on again."""
    assert [period(ttl) for ttl in (OFF, 5, 40, 600)] == [10.0, 1.0, 4.0, 10.0]


def test_values_come_before_the_script_and_not_as_arguments() -> None:
    """The size counts bytes; what follows it line by line is what the machine reads."""
    size, ttl, command, rest = opening(600, "shutdown -h now").split(b"\n", 3)
    assert (ttl, command) == (b"600", b"shutdown -h now")
    assert len(rest) == int(size)
