"""The SSH host key that a machine is given with its first boot, where a provider runs user-data. Pure.

It follows from the pool's private key and the token of the order: nothing has to be kept, an order that is
sent twice is the same, and after a restart the machine is known again. Whoever reads it learns nothing of the
pool's key, and it opens no door: it only says that a machine is the one that was ordered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    import asyncssh

KIND = b"ssh-ed25519"
PURPOSE = b"skyward host key "
LINE = 70


@dataclass(frozen=True, slots=True)
class HostKey:
    """A pair: `private` as OpenSSH keeps it in a file, `public` as one line."""

    private: str = field(repr=False)
    public: str


def host_key(pool_key: asyncssh.SSHKey, token: str) -> HostKey:
    """The key of the machine that is ordered with this token, byte for byte the same each time."""
    secret = pool_key.export_private_key("pkcs8-der")
    seed = hmac.digest(hashlib.sha256(secret).digest(), PURPOSE + token.encode(), "sha256")
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    blob = text(KIND) + text(public)
    line = f"{KIND.decode()} {base64.b64encode(blob).decode()}"
    return HostKey(openssh_file(seed, public, blob), line)


def openssh_file(seed: bytes, public: bytes, blob: bytes) -> str:
    """The private key in OpenSSH's own format (PROTOCOL.key), whose two check numbers are random
    elsewhere."""
    check = hashlib.sha256(PURPOSE + public).digest()[:4] * 2
    inner = check + text(KIND) + text(public) + text(seed + public) + text(b"")
    inner += bytes(range(1, 1 + -len(inner) % 8))
    outer = b"openssh-key-v1\0" + text(b"none") + text(b"none") + text(b"") + struct.pack(">I", 1)
    encoded = base64.b64encode(outer + text(blob) + text(inner)).decode()
    lines = [encoded[start : start + LINE] for start in range(0, len(encoded), LINE)]
    return "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])


def text(data: bytes) -> bytes:
    """Bytes as SSH writes them, their length first."""
    return struct.pack(">I", len(data)) + data
