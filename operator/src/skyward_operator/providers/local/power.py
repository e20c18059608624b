"""The power switch of a machine that is processes of this computer.

Whoever owns the machine's folder has the last word on what is started and ended: the local provider, or a
service whose machines are made the same way. Both directions can be repeated.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from skyward_operator.providers.errors import Rejected, Transient
from skyward_operator.providers.local.processes import MARK, end_all

if TYPE_CHECKING:
    from skyward_operator.providers.local.folder import Folder

START_SECONDS = 30.0


def switch_on(folder: Folder) -> None:
    """Start the machine's process, which leaves this one's session at once."""
    folder.run_path.mkdir(mode=0o700, exist_ok=True)
    if folder.run_path.stat().st_uid != os.getuid() or folder.run_path.is_symlink():
        raise Rejected(f"{folder.run_path} belongs to somebody else; remove it")
    command = [sys.executable, "-m", "skyward_operator.providers.local.vm", str(folder.path)]
    with folder.log_path.open("ab") as log:
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, MARK: folder.id},
                start_new_session=True,
                timeout=START_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Transient(f"machine {folder.id} did not start: {error}; see {folder.log_path}") from error


def switch_off(folder: Folder) -> bool:
    """End all processes of a machine. True once nothing is left; its files stay."""
    running = folder.running()
    return end_all(folder.id, running.pid if running else None)


def clear_away(folder: Folder) -> None:
    """Remove the files of a machine that was switched off, and its sockets."""
    shutil.rmtree(folder.run_path, ignore_errors=True)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder.path)
