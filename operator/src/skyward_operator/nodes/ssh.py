"""SSH to a machine whose host key is known beforehand.

No connection is made with an unknown host key: the one from the provider, or the one that was pinned on first
contact, is the only one accepted. The first contact fetches the key and sends nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncssh

if TYPE_CHECKING:
    from skyward_operator.providers.contract import Address

ENCRYPTION = (
    "aes128-gcm@openssh.com",  # twice as fast as the default, chacha20, on processors with AES
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
)
KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 3
CONNECT_SECONDS = 10.0
LOGIN_SECONDS = 20.0
WINDOW = 4 * 1024 * 1024

CONNECTION_ERRORS = (OSError, asyncssh.Error, TimeoutError, EOFError)
"""What may go wrong with a machine that is not up, not reachable, or gone."""


@dataclass(frozen=True, slots=True)
class Target:
    """A machine, the only host key that is accepted from it, and our key for it."""

    address: Address
    host_key: str
    client_key: asyncssh.SSHKey


async def connect(target: Target) -> asyncssh.SSHClientConnection:
    """A connection; the caller closes it. Raises one of CONNECTION_ERRORS."""
    address = target.address
    async with asyncio.timeout(CONNECT_SECONDS + LOGIN_SECONDS):
        return await asyncssh.connect(
            address.host,
            address.port,
            username=address.user,
            client_keys=[target.client_key],
            known_hosts=only(target.host_key),
            config=None,
            agent_path=None,
            preferred_auth="publickey",
            encryption_algs=list(ENCRYPTION),
            compression_algs=None,
            connect_timeout=CONNECT_SECONDS,
            login_timeout=LOGIN_SECONDS,
            keepalive_interval=KEEPALIVE_SECONDS,
            keepalive_count_max=KEEPALIVE_COUNT,
        )


async def first_contact(address: Address) -> str:
    """The public host key that a machine shows, as one line. Nothing is sent to it."""
    async with asyncio.timeout(CONNECT_SECONDS + LOGIN_SECONDS):
        key = await asyncssh.get_server_host_key(address.host, address.port, config=None)
    if key is None:
        raise ConnectionError(f"{address.host}:{address.port} shows no host key")
    return line_of(key)


def only(host_key: str) -> Any:
    """Known hosts that hold this one key, for any name."""
    return asyncssh.import_known_hosts(f"* {host_key}\n")


def line_of(key: asyncssh.SSHKey) -> str:
    """A public key as one line, without comment."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def fingerprint(host_key: str) -> str:
    """The SHA-256 fingerprint of a public key line, as `ssh` shows it."""
    return asyncssh.import_public_key(host_key).get_fingerprint()


def explain(error: BaseException, address: Address) -> str:
    """A connection error in words, with the place."""
    where = f"{address.host}:{address.port}"
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return f"{where} shows another host key than the one pinned"
        case asyncssh.PermissionDenied():
            return f"{where} refuses the pool's SSH key for user {address.user}"
        case TimeoutError():
            return f"{where} does not answer in time"
        case _:
            return f"{where}: {str(error) or type(error).__name__}"
