"""The machines behind the instances: processes with a real SSH server each, as the simulated cloud has them.

A machine's user-data is really run when it boots. One that ends by itself ends its instance, as
`InstanceInitiatedShutdownBehavior` says.
"""

from __future__ import annotations

import email
import gzip
import subprocess
import threading
from dataclasses import dataclass, field, replace
from email.policy import default
from typing import TYPE_CHECKING

from simcloud.vms import NoVms, SshVms
from skyward_operator.providers.local.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCRIPT_SECONDS = 60


@dataclass(slots=True)
class Guest:
    """One machine, as its hardware has to know it."""

    id: str
    token: str
    name: str
    tags: Mapping[str, str]
    created: float
    host: str
    port: int
    ssh_public_key: str
    user_data: bytes
    console: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


class Guests:
    """All machines. `on_paper`: without an SSH server; their user-data is run all the same."""

    def __init__(self, folder: Path, *, on_paper: bool) -> None:
        self._folder = folder
        self._vms = NoVms() if on_paper else SshVms(folder)
        self.all: dict[str, Guest] = {}

    def address(self) -> tuple[str, int]:
        """Where a new machine may listen."""
        return self._vms.address()

    def boot(self, guest: Guest, metadata: str) -> None:
        """Start a machine, wait for its SSH server, and run its user-data."""
        self.all[guest.id] = guest
        private, public = self._vms.host_key()
        self._vms.prepare(guest, private, guest.ssh_public_key, metadata, ())  # type: ignore[arg-type]
        self._say_where_metadata_is(guest, metadata)
        self._vms.power_on(guest.id)
        while not self._vms.listens(guest.id):
            if guest.ended.wait(0.02):
                return
        self._cloud_init(guest, public)

    def _say_where_metadata_is(self, guest: Guest, metadata: str) -> None:
        folder = Folder(self._folder / "vms", guest.id)
        if (record := folder.record()) is not None:
            environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata}
            folder.write_record(replace(record, environment=environment))

    def powered_off(self, guest: Guest) -> bool:
        """Whether it ran and has ended by itself."""
        return not guest.ended.is_set() and self._vms.powered_off(guest.id)

    def end(self, guest: Guest) -> None:
        """End it; nothing of it is left afterwards."""
        guest.ended.set()
        while not self._vms.power_off(guest.id):
            guest.ended.wait(0.1)

    def console(self, guest: Guest) -> str:
        """What it said."""
        return f"{guest.console}{self._vms.console(guest.id)}"

    def _cloud_init(self, guest: Guest, public_host_key: str) -> None:
        """The effect of user-data: each part that is a script is run."""
        place = self._folder / "guests" / guest.id
        place.mkdir(parents=True)
        (place / "ssh_host_ed25519_key.pub").write_text(f"{public_host_key} root@{guest.name}\n")
        console = place / "console"
        console.write_text("[    0.000000] Linux version 6.8.0-aws\n")
        for number, script in enumerate(scripts(guest.user_data)):
            file = place / f"part-{number}"
            file.write_text(script)
            file.chmod(0o700)
            said = subprocess.run(
                [str(file)],
                cwd=place,
                env={
                    "PATH": "/usr/bin:/bin",
                    "SKYWARD_SSH_FOLDER": str(place),
                    "SKYWARD_CONSOLE": "/dev/stdout",
                    # What is run here must never take this computer for the machine: see nodes/deadman.sh.
                    "SKYWARD_VM": guest.id,
                    "HOME": str(place),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SCRIPT_SECONDS,
                check=False,
            )
            console.write_bytes(console.read_bytes() + said.stdout)
        guest.console = console.read_text()


def scripts(user_data: bytes) -> list[str]:
    """The parts of user-data, as cloud-init reads several."""
    message = email.message_from_bytes(gzip.decompress(user_data), policy=default)
    parts = [part for part in message.walk() if part.get_content_subtype() == "x-shellscript"]
    return [part.get_payload(decode=True).decode() for part in parts]  # type: ignore[union-attr]
