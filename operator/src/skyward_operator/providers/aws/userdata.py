"""What a machine is told to do when it boots first: say its host key, and what the caller wants besides."""

from __future__ import annotations

import gzip
from email.message import EmailMessage
from importlib.resources import files

from skyward_operator.providers.errors import Rejected

LARGEST_BYTES = 16 * 1024
"""Of user-data, before it is encoded."""


def user_data(more: str | None) -> bytes:
    """The scripts, as cloud-init takes several (MIME parts, compressed); the same bytes for the same text.

    Raises Rejected for a text that is too long.
    """
    message = EmailMessage()
    message.make_mixed(boundary="==skyward==")
    for number, script in enumerate([own_script(), *([more] if more else [])]):
        part = EmailMessage()
        # As bytes: a text would get CRLF at the end of its lines, which no shell reads.
        part.set_content(script.encode(), "text", "x-shellscript", filename=f"skyward-{number}.sh")
        message.attach(part)
    data = gzip.compress(message.as_bytes(), mtime=0)
    if len(data) > LARGEST_BYTES:
        raise Rejected(f"aws: user-data has {len(data)} bytes, and may have {LARGEST_BYTES}")
    return data


def own_script() -> str:
    """`userdata.sh`."""
    return (files(__package__) / "userdata.sh").read_text()
