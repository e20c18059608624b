"""One local machine on disk: what was ordered, what runs, and whether it still runs.

    vms/<id>/record.json   the order; written before the machine's process is started
    vms/<id>/alive         locked by the machine's process for as long as it lives
    vms/<id>/vm.json       where SSH answers, and with which key; written once the server listens
    vms/<id>/vm.log        what the machine's process said
    vms/<id>/host_key      its SSH host key; made at the first start, unless it was put there before
    vms/<id>/home          the home folder inside
    vms/<id>/bin           programs that come first on the PATH inside
    vms/<id>/power-off     there once the machine was told from inside to end
    vms/.tokens/<id>       held while a machine is made or ended; keeps the word once it was ended

The lock, not a process id, says that a machine lives: process ids are used again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.contract import Address, Machine, MachineState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENDED = "ended\n"
CONSOLE_BYTES = 64 * 1024
SHORT = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108 - mode 0700
"""Where sockets go: their paths may have about 100 characters, and a temporary folder is often longer."""


@dataclass(frozen=True, slots=True)
class Record:
    """An order, as it is kept."""

    id: str
    token: str
    name: str
    tags: Mapping[str, str]
    ssh_public_key: str
    ssh_server: str
    created: str
    host: str = "127.0.0.1"
    """Where its SSH server listens."""
    port: int = 0
    """0: a free one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables inside, besides those of every machine."""
    commands: Sequence[Sequence[str]] = ()
    """What runs inside once it is up, as at the first boot of a cloud's machine."""


@dataclass(frozen=True, slots=True)
class Running:
    """What the machine's process says about itself."""

    pid: int
    host: str
    port: int
    user: str
    host_key: str


def machine_id(token: str) -> str:
    """The id of the one machine that a token can buy."""
    return f"local-{hashlib.sha256(token.encode()).hexdigest()[:12]}"


def write_atomically(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a JSON file so that readers see the old or the new one, also after a crash."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class Folder:
    """The files of one machine."""

    def __init__(self, root: Path, machine_id: str) -> None:
        self.id = machine_id
        self.path = root / machine_id
        self.record_path = self.path / "record.json"
        self.running_path = self.path / "vm.json"
        self.alive_path = self.path / "alive"
        self.log_path = self.path / "vm.log"
        self.host_key_path = self.path / "host_key"
        self.home = self.path / "home"
        self.programs = self.path / "bin"
        """Programs that come first on the PATH inside."""
        self.power_off_path = self.path / "power-off"
        """There once the machine was told from inside to end."""
        self.environments = root.parent / "environments"
        """Python environments by content, shared by the machines of this computer as an image cache is."""
        unique = hashlib.sha256(str(self.path.absolute()).encode()).hexdigest()[:12]
        self.run_path = SHORT / f"skyward-{os.getuid()}-{unique}"
        self._guard_path = root / ".tokens" / machine_id

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let one process at a time make or end this machine."""
        self._guard_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._guard_path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def ended(self) -> bool:
        """Whether the machine was ended for good."""
        return self._guard_path.exists() and self._guard_path.read_text() == ENDED

    def mark_ended(self) -> None:
        """Keep the word that this token's machine was ended."""
        self._guard_path.write_text(ENDED)

    def record(self) -> Record | None:
        """The order, or None if there is none."""
        try:
            return Record(**json.loads(self.record_path.read_text()))
        except FileNotFoundError:
            return None

    def write_record(self, record: Record) -> None:
        """Keep the order, with its home folder, before anything is started."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        write_atomically(self.record_path, asdict(record))

    def write_host_key(self, private_key: bytes) -> None:
        """Give the machine this SSH host key."""
        self.host_key_path.touch(mode=0o600)
        self.host_key_path.write_bytes(private_key)

    def running(self) -> Running | None:
        """What the machine's process said, or None if it does not listen yet."""
        try:
            return Running(**json.loads(self.running_path.read_text()))
        except FileNotFoundError:
            return None

    def console(self) -> str:
        """The last 64 KiB of what the machine's process said."""
        try:
            return self.log_path.read_bytes()[-CONSOLE_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            return ""

    def started(self) -> bool:
        """Whether a process was ever started for this machine."""
        return self.alive_path.exists()

    def alive(self) -> bool:
        """Whether the machine's process lives."""
        try:
            with self.alive_path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def machine(self) -> Machine | None:
        """The machine as the provider describes it."""
        record = self.record()
        if record is None:
            return None
        alive, running = self.alive(), self.running()
        dead = self.started() and not alive
        state = MachineState.PENDING
        if dead:
            state = MachineState.GONE
        elif running is not None:
            state = MachineState.RUNNING
        return Machine(
            id=self.id,
            token=record.token,
            tags=record.tags,
            state=state,
            address=Address(running.host, running.port, running.user) if running else None,
            host_key=running.host_key if running else None,
            created=datetime.fromisoformat(record.created),
            message=f"the machine's process has ended; its log is {self.log_path}" if dead else "",
        )
