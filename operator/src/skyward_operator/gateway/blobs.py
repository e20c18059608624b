"""Payloads and results of tasks on disk: one folder per task, found by namespace and uid.

    <root>/<namespace>/<uid>/payload     what the client uploaded, whole and verified
    <root>/<namespace>/<uid>/results     outcomes, appended as calls end
    <root>/<namespace>/<uid>/members     the frozen nodes of a broadcast

A folder lives as long as its Task. Names are checked before they become paths; nothing a client sends is
ever part of one.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,62}")


class BlobStore:
    """The folders of all tasks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, namespace: str, uid: str) -> Path:
        """Where a task's files are; it need not exist. Raises ValueError for names that cannot be right."""
        if not _NAMESPACE.fullmatch(namespace) or not _UID.fullmatch(uid):
            raise ValueError(f"{namespace}/{uid} is no namespace and uid")
        return self.root / namespace / uid

    def payload(self, namespace: str, uid: str) -> Path:
        """The uploaded payload; it exists only when it is complete."""
        return self.folder(namespace, uid) / "payload"

    def results(self, namespace: str, uid: str) -> Path:
        """The outcomes so far."""
        return self.folder(namespace, uid) / "results"

    def members(self, namespace: str, uid: str) -> Path:
        """The frozen nodes of a broadcast."""
        return self.folder(namespace, uid) / "members"

    def make(self, namespace: str, uid: str) -> Path:
        """The task's folder, made if needed, readable by the operator only."""
        folder = self.folder(namespace, uid)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def remove(self, namespace: str, uid: str) -> None:
        """Drop everything of a task; absent is success."""
        shutil.rmtree(self.folder(namespace, uid), ignore_errors=True)

    def folders(self) -> list[tuple[str, str]]:
        """Namespace and uid of every folder that exists."""
        if not self.root.is_dir():
            return []
        return [
            (place.name, folder.name)
            for place in sorted(self.root.iterdir())
            if place.is_dir() and _NAMESPACE.fullmatch(place.name)
            for folder in sorted(place.iterdir())
            if folder.is_dir() and _UID.fullmatch(folder.name)
        ]


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename a file that was written and synced, so that the new name survives a crash of the machine."""
    temporary.replace(final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    replace_durably(temporary, path)
