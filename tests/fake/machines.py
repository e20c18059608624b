"""Local machines for tests: real processes, real SSH, ended and proven gone with the test."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from skyward_operator.nodes.ssh import Target, connect
from skyward_operator.providers.conformance import gone, running
from skyward_operator.providers.contract import CreateRequest, Setup
from skyward_operator.providers.local.openssh import find_sshd
from skyward_operator.providers.local.provider import LocalProvider, this_computer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from skyward_operator.providers.contract import Machine

SERVERS = ("asyncssh", "openssh")


def ensure_sshd() -> None:
    """Have OpenSSH's server on this computer. Fails, and never skips, when it cannot be had."""
    if find_sshd() is not None:
        return
    if os.getuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], check=False, env=quiet)
        subprocess.run(["apt-get", "install", "-q", "-y", "openssh-server"], check=True, env=quiet)
    assert find_sshd() is not None, "tests need OpenSSH's sshd: install the package openssh-server"


@dataclass(frozen=True, slots=True)
class Lab:
    """A folder of local machines, and the key that opens them."""

    provider: LocalProvider
    key: asyncssh.SSHKey
    root: Path

    def request(
        self, token: str, tags: Mapping[str, str] | None = None, server: str = "asyncssh"
    ) -> CreateRequest:
        """An order."""
        return CreateRequest(
            offer=this_computer("main"),
            token=token,
            name=f"test-{token}",
            tags=tags or {},
            ssh_public_key=self.key.export_public_key("openssh").decode(),
            parameters={"sshServer": server},
        )

    async def machine(self, server: str = "asyncssh") -> Machine:
        """A new machine that runs."""
        created = await self.provider.create(self.request(secrets.token_hex(8), server=server))
        return await running(self.provider, created.id)

    def target(self, machine: Machine) -> Target:
        """How to connect to it."""
        assert machine.address is not None
        assert machine.host_key is not None
        return Target(machine.address, machine.host_key, self.key)

    @asynccontextmanager
    async def connection(self, machine: Machine) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """A connection to it."""
        connection = await connect(self.target(machine))
        try:
            yield connection
        finally:
            connection.abort()
            await connection.wait_closed()


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    """A lab with a short path, empty afterwards: every machine is ended."""
    root = Path(tempfile.mkdtemp(prefix="sky-vm-"))
    provider = LocalProvider(Setup(root))
    try:
        yield Lab(provider, asyncssh.generate_private_key("ssh-ed25519"), root)
    finally:
        for machine in (await provider.list({})).machines:
            await gone(provider, machine.id, machine.token)
        shutil.rmtree(root)
