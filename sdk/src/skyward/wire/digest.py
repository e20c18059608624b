"""Content addresses: the SHA-256 of bytes as 64 lower-case hexadecimal digits."""

import hashlib
import re
from pathlib import Path

type BytesLike = bytes | bytearray | memoryview

_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest(data: BytesLike) -> str:
    """The digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """The digest of a file's contents, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_digest(text: object) -> bool:
    """Whether `text` is a well-formed digest. Check before a digest becomes a file name."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None
