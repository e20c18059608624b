"""The SSH server of a local machine, in the machine's own process (asyncssh).

It accepts one user with one key, runs commands with `/bin/bash` in the machine's home and clean environment,
serves SFTP and scp, and forwards to Unix sockets inside the machine. Nothing else.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from skyward_operator.providers.local.environment import environment_inside
from skyward_operator.providers.local.shell import run_shell

if TYPE_CHECKING:
    from skyward_operator.providers.local.folder import Folder, Record

CIPHERS = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"]


class MachineServer(asyncssh.SSHServer):
    """What one connection may do."""

    def __init__(self, folder: Folder, user: str) -> None:
        self._folder = folder
        self._user = user

    def begin_auth(self, username: str) -> bool:
        """Always ask for the key."""
        return True

    def validate_user(self, username: str) -> bool:
        """Whether this is the machine's one user."""
        return username == self._user

    def unix_connection_requested(self, dest_path: str) -> bool:
        """Forward to sockets that belong to this machine."""
        path = Path(dest_path).resolve()
        return path.is_relative_to(self._folder.home.resolve()) or path.is_relative_to(self._folder.run_path)


async def listen(folder: Folder, record: Record, user: str) -> tuple[int, str]:
    """Serve where the record says. Returns the port and the public host key."""
    host_key = asyncssh.read_private_key(folder.host_key_path)
    environment = environment_inside(folder, user, os.environ) | dict(record.environment)
    server = await asyncssh.listen(
        record.host,
        record.port,
        server_factory=partial(MachineServer, folder, user),
        server_host_keys=[host_key],
        authorized_client_keys=asyncssh.import_authorized_keys(record.ssh_public_key),
        process_factory=partial(run_shell, home=folder.home, environment=environment),
        sftp_factory=True,
        allow_scp=True,
        encoding=None,
        encryption_algs=CIPHERS,
        line_editor=False,
        keepalive_interval=0,
        login_timeout=30,
        password_auth=False,
        kbdint_auth=False,
    )
    return server.get_port(), host_key.export_public_key("openssh").decode().strip()
