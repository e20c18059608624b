"""Room on the disk of the operator's data. Large files leave a reserve for what has to go on: small results,
journals, logs, and on one computer the control plane itself."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

RESERVE: Final = 256 << 20
"""Bytes that stay free; on a small disk a twentieth of it."""


def need(where: Path | int, size: int) -> None:
    """Raise OSError unless so many more bytes may be written to the disk of a file, by path or descriptor."""
    disk = os.statvfs(where)
    free, kept = disk.f_bavail * disk.f_frsize, min(RESERVE, disk.f_blocks * disk.f_frsize // 20)
    if free - kept < size:
        raise OSError(
            errno.ENOSPC,
            f"{size:,} bytes do not fit on the operator's disk: {free:,} are free, and {kept:,} of them are "
            "kept for small results, journals and logs",
        )


def free(folder: Path) -> int:
    """Bytes that are free on the disk of a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
