"""OpenSSH's `sshd` as the SSH server of a local machine, for `parameters: {sshServer: openssh}`.

Our process listens and gives each connection to an `sshd -i` of its own: so the port is free by
construction, and no daemon can be left behind. `sshd` would give the user the home that the password file
says; a forced command puts every session into the machine's home and clean environment instead. (bash reads
`~/.bashrc` when it believes that sshd started it at the top level, hence SHLVL. AllowTcpForwarding is there
because sshd 9.2 refuses forwards to Unix sockets without it.)
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from skyward_operator.providers.local.environment import environment_inside

if TYPE_CHECKING:
    from skyward_operator.providers.local.folder import Folder, Record

SBIN = "/usr/sbin:/usr/local/sbin:/sbin"
PRIVILEGE_SEPARATION = Path("/run/sshd")
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)

CONFIG = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
AllowUsers {user}
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding local
AllowStreamLocalForwarding local
X11Forwarding no
AllowAgentForwarding no
PrintMotd no
PrintLastLog no
UseDNS no
ForceCommand {folder}/session
SetEnv HOME={folder}/home SHLVL=2
Subsystem sftp {sftp}
LogLevel ERROR
"""

SESSION = """\
#!/bin/bash
cd {home} || exit 1
if [ -z "${{SSH_ORIGINAL_COMMAND:-}}" ]; then
    exec env -i TERM="${{TERM:-dumb}}" {environment} /bin/bash
fi
exec env -i {environment} /bin/bash -c "$SSH_ORIGINAL_COMMAND"
"""


def find_sshd() -> str | None:
    """The path of OpenSSH's server; it insists on being called by an absolute one."""
    return shutil.which("sshd") or shutil.which("sshd", path=SBIN)


async def listen(folder: Folder, record: Record, user: str) -> tuple[int, str]:
    """Serve where the record says. Returns the port and the public host key."""
    sshd = find_sshd()
    if sshd is None:
        raise FileNotFoundError("sshd is not installed")
    host_key = await asyncio.to_thread(write_files, folder, record, user)
    listener = socket.create_server((record.host, record.port), backlog=128)
    listener.setblocking(False)
    acceptor = asyncio.create_task(accept(listener, [sshd, "-i", "-e", "-f", f"{folder.path}/sshd_config"]))
    acceptor.add_done_callback(lambda task: task.cancelled() or task.result())
    KEEP.add(acceptor)
    return int(listener.getsockname()[1]), host_key


KEEP: set[asyncio.Task[None]] = set()
"""The event loop holds tasks weakly; this one must last as long as the process."""


def write_files(folder: Folder, record: Record, user: str) -> str:
    """Write keys, configuration and the forced command. Returns the public host key."""
    if os.getuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    host_key = asyncssh.read_private_key(folder.host_key_path)
    (folder.path / "authorized_keys").write_text(record.ssh_public_key.strip() + "\n")
    sftp = next((path for path in SFTP_SERVERS if Path(path).exists()), "internal-sftp")
    (folder.path / "sshd_config").write_text(CONFIG.format(folder=folder.path, user=user, sftp=sftp))
    environment = environment_inside(folder, user, os.environ) | dict(record.environment)
    assignments = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    session = folder.path / "session"
    session.write_text(SESSION.format(home=shlex.quote(str(folder.home)), environment=assignments))
    session.chmod(0o700)
    return host_key.export_public_key("openssh").decode().strip()


async def accept(listener: socket.socket, command: list[str]) -> None:
    """Give each connection to a server of its own."""
    loop = asyncio.get_running_loop()
    waits: set[asyncio.Task[int]] = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        with connection:
            connection.setblocking(True)
            process = await asyncio.create_subprocess_exec(
                *command, stdin=connection.fileno(), stdout=connection.fileno()
            )
        waits.add(wait := asyncio.create_task(process.wait()))
        wait.add_done_callback(waits.discard)
