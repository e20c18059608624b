"""The power switch of a machine that is processes of this computer.

Whoever owns the machine's folder has the last word on what is started and ended: the local provider, or a
service whose machines are made the same way. Both directions can be repeated.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from skyward_operator.providers.errors import Rejected, Transient
from skyward_operator.providers.local.environment import environment_of_process
from skyward_operator.providers.local.processes import end_all

if TYPE_CHECKING:
    from skyward_operator.providers.local.folder import Folder

START_SECONDS = 30.0
POWER_OFF = "skyward-power-off"
"""The command inside a machine that ends it, and nothing else."""
SYSTEM_NAMES = ("shutdown", "poweroff", "halt", "reboot")
"""What ends a whole computer. Inside a machine these words mean the machine: it may run as the computer's
root."""
SCRIPT = """\
#!/bin/sh
# Ends this machine, which is processes of a computer; that computer goes on.
case "${{1:-now}}" in
    -h | -P | -r | -f | -p | now | 0 | +0) : >{asked} ;;
    *) echo "this machine knows no $0 $*; it can be powered off at once" >&2; exit 1 ;;
esac
"""


def switch_on(folder: Folder) -> None:
    """Start the machine's process, which leaves this one's session at once."""
    put_power_off(folder)
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
                env=environment_of_process(folder, os.environ),
                start_new_session=True,
                timeout=START_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Transient(f"machine {folder.id} did not start: {error}; see {folder.log_path}") from error


def put_power_off(folder: Folder) -> None:
    """Give the machine its command to end itself, first on its PATH, under the names of the system's as
    well."""
    folder.programs.mkdir(exist_ok=True)
    command = folder.programs / POWER_OFF
    command.write_text(SCRIPT.format(asked=shlex.quote(str(folder.power_off_path.absolute()))))
    command.chmod(0o700)
    for name in SYSTEM_NAMES:
        link = folder.programs / name
        if not link.is_symlink():
            link.symlink_to(POWER_OFF)


def switch_off(folder: Folder) -> bool:
    """End all processes of a machine. True once nothing is left; its files stay."""
    running = folder.running()
    return end_all(folder.id, running.pid if running else None)


def clear_away(folder: Folder) -> None:
    """Remove the files of a machine that was switched off, and its sockets."""
    shutil.rmtree(folder.run_path, ignore_errors=True)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder.path)
