"""What the cloud's machines are made of: processes of this computer, each with a real SSH server.

The only module that knows the operator's package, for its local machines. A cloud without any (`NoVms`)
sells machines that exist on paper only, for tests of what is bought and when.
"""

from __future__ import annotations

import getpass
import secrets
import socket
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import asyncssh

from skyward_operator.providers.local.folder import Folder, Record
from skyward_operator.providers.local.power import clear_away, switch_off, switch_on

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from simcloud.state import Instance

SSH_PORT = 2222
CLOCK = "SKYWARD_CLOCK"
"""Where a machine finds by how many seconds its time is ahead of the computer's."""
DISCARD_PORT = 9


class Vms(Protocol):
    """The hardware. Calls may block for seconds; they are made in threads and may be repeated."""

    user: str

    def address(self) -> tuple[str, int]:
        """A host and port for a new machine."""
        ...

    def host_key(self) -> tuple[bytes, str]:
        """A new host key: the private one, and the public one as a line."""
        ...

    def prepare(
        self,
        instance: Instance,
        private_host_key: bytes,
        ssh_public_key: str,
        metadata: str,
        commands: Sequence[Sequence[str]],
    ) -> None:
        """Write down what the machine is and does at its first boot, durably; nothing runs yet."""
        ...

    def set_clock(self, shift: float) -> None:
        """Have the machines' time be so many seconds ahead of the computer's."""
        ...

    def power_on(self, instance_id: str) -> None:
        """Have it run."""
        ...

    def listens(self, instance_id: str) -> bool:
        """Whether its SSH server is up."""
        ...

    def powered_off(self, instance_id: str) -> bool:
        """Whether it ran once and has ended by itself."""
        ...

    def power_off(self, instance_id: str) -> bool:
        """End it. True once nothing of it is left."""
        ...

    def console(self, instance_id: str) -> str:
        """The end of what the machine itself said."""
        ...


class SshVms:
    """Machines with a real SSH server, under a folder. They outlive the cloud's process."""

    def __init__(self, root: Path) -> None:
        self._root = root / "vms"
        self._clock = root / "clock"
        self.user = getpass.getuser()

    def address(self) -> tuple[str, int]:
        """An address of its own for each machine, where the computer has so many; else a free port."""
        while sys.platform == "linux":
            host = "127.{}.{}.{}".format(*(1 + secrets.randbelow(254) for _ in range(3)))
            if is_free(host, SSH_PORT):
                return host, SSH_PORT
        with socket.create_server(("127.0.0.1", 0)) as server:
            return "127.0.0.1", int(server.getsockname()[1])

    def host_key(self) -> tuple[bytes, str]:
        """A new key."""
        return new_host_key()

    def prepare(
        self,
        instance: Instance,
        private_host_key: bytes,
        ssh_public_key: str,
        metadata: str,
        commands: Sequence[Sequence[str]],
    ) -> None:
        """Make its folder."""
        folder = self._folder(instance.id)
        folder.write_record(
            Record(
                id=instance.id,
                token=instance.token,
                name=instance.name,
                tags=instance.tags,
                ssh_public_key=ssh_public_key,
                ssh_server="asyncssh",
                created=datetime.fromtimestamp(instance.created, UTC).isoformat(),
                host=instance.host,
                port=instance.port,
                environment={"SIM_METADATA_URL": metadata, CLOCK: str(self._clock.absolute())},
                commands=[list(command) for command in commands],
            )
        )
        folder.write_host_key(private_host_key)

    def set_clock(self, shift: float) -> None:
        """Keep it where the machines look."""
        self._clock.parent.mkdir(parents=True, exist_ok=True)
        part = self._clock.with_suffix(".part")
        part.write_text(f"{max(0, round(shift))}\n")
        part.replace(self._clock)

    def power_on(self, instance_id: str) -> None:
        """Start its process, once."""
        folder = self._folder(instance_id)
        with folder.guard():
            if not folder.started():
                switch_on(folder)

    def listens(self, instance_id: str) -> bool:
        """Whether it said where it listens."""
        return self._folder(instance_id).running() is not None

    def powered_off(self, instance_id: str) -> bool:
        """Whether its process was started and has ended."""
        folder = self._folder(instance_id)
        return folder.started() and not folder.alive()

    def power_off(self, instance_id: str) -> bool:
        """End its processes and remove its files."""
        folder = self._folder(instance_id)
        with folder.guard():
            if not switch_off(folder):
                return False
            folder.mark_ended()
            clear_away(folder)
        return True

    def console(self, instance_id: str) -> str:
        """The end of its log."""
        return self._folder(instance_id).console()

    def _folder(self, instance_id: str) -> Folder:
        return Folder(self._root, instance_id)


class NoVms:
    """Machines on paper: up at once, down at once, and nobody answers."""

    user = "nobody"

    def address(self) -> tuple[str, int]:
        """An address that refuses at once."""
        return "127.0.0.1", DISCARD_PORT

    def host_key(self) -> tuple[bytes, str]:
        """A new key, which nobody uses."""
        return new_host_key()

    def prepare(
        self,
        instance: Instance,
        private_host_key: bytes,
        ssh_public_key: str,
        metadata: str,
        commands: Sequence[Sequence[str]],
    ) -> None:
        """Nothing to do."""

    def set_clock(self, shift: float) -> None:
        """Nothing to do."""

    def power_on(self, instance_id: str) -> None:
        """Nothing to do."""

    def listens(self, instance_id: str) -> bool:
        """Always."""
        return True

    def powered_off(self, instance_id: str) -> bool:
        """Never by itself."""
        return False

    def power_off(self, instance_id: str) -> bool:
        """At once."""
        return True

    def console(self, instance_id: str) -> str:
        """Silence."""
        return ""


def new_host_key() -> tuple[bytes, str]:
    """A private key and its public line."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_private_key("openssh"), key.export_public_key("openssh").decode().strip()


def is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there."""
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False
