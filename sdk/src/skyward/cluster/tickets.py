"""Tickets of this user's runs, kept so that output and results can be read after the program has ended.

A ticket is the right to use the gateway for the objects that carry its hash: files are for their owner
alone, and old ones are thrown away.
"""

import hashlib
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from skyward.contract.names import ANNOTATION_TICKET, Kind

if TYPE_CHECKING:
    from skyward.cluster.api import Api

KEEP_SECONDS = 14 * 86_400.0


def keep(ticket: str, digest: str) -> None:
    """Remember the ticket whose hash is `digest`. A folder that cannot be written is no error."""
    with suppress(OSError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_old(folder)
        descriptor = os.open(folder / digest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(ticket)


def find(digest: str) -> str | None:
    """The ticket whose hash is `digest`, if a run of this user on this machine had it."""
    if len(digest) != 64 or not digest.isalnum():
        return None
    with suppress(OSError):
        return (_folder() / digest).read_text()
    return None


def to_read(api: "Api", kind: Kind, obj: dict[str, Any]) -> str:
    """A ticket that opens the object for reading: a known one, or a new one, whose hash is added to it.

    Raises ApiError for somebody who may not update the object, and so may not read it either.
    """
    metadata = obj["metadata"]
    added = (metadata.get("annotations") or {}).get(ANNOTATION_TICKET)
    for known in (obj.get("spec", {}).get("ticketHash"), added):
        if (ticket := find(known or "")) is not None:
            return ticket
    ticket = secrets.token_hex(32)
    digest = hashlib.sha256(ticket.encode()).hexdigest()
    keep(ticket, digest)
    body = {"metadata": {"annotations": {ANNOTATION_TICKET: digest}}}
    api.patch(kind, metadata["namespace"], metadata["name"], body)
    return ticket


def _folder() -> Path:
    base = os.environ.get("SKYWARD_HOME")
    return (Path(base).expanduser() if base else platformdirs.user_data_path("skyward")) / "tickets"


def _forget_old(folder: Path) -> None:
    limit = time.time() - KEEP_SECONDS
    for path in folder.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()
