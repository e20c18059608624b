"""The process that is a local machine: `python -m skyward_operator.providers.local.vm FOLDER`.

The command returns once the machine's own process has been split off, in a session of its own; that process
outlives whoever started it. It holds a lock for as long as it lives, serves SSH on a free loopback port, and
says where in `vm.json`. It ends when it is killed, when it is told to from inside, or when its folder is
gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import getpass
import logging
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import asyncssh

from skyward_operator.providers.local.environment import environment_inside
from skyward_operator.providers.local.folder import Folder, Record, Running, write_atomically
from skyward_operator.providers.local.processes import adopt_orphans, end_all, reap_orphans


def main() -> None:
    """Split the machine's process off and return."""
    path = Path(sys.argv[1])
    folder = Folder(path.parent, path.name)
    lock = folder.alive_path.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)
    os.chdir(folder.home)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    adopt_orphans()
    asyncio.run(serve(folder))
    lock.close()


async def serve(folder: Folder) -> None:
    """Serve SSH until the folder is gone, or the machine is told from inside to end."""
    record = folder.record()
    if record is None:
        raise FileNotFoundError(folder.record_path)
    user = getpass.getuser()
    port, host_key = await listen(folder, record, user)
    running = Running(pid=os.getpid(), host=record.host, port=port, user=user, host_key=host_key)
    write_atomically(folder.running_path, asdict(running))
    logging.info("machine %s listens on %s:%d (%s)", folder.id, record.host, port, record.ssh_server)
    aside = [asyncio.create_task(reap_orphans()), asyncio.create_task(first_boot(folder, record, user))]
    try:
        await over(folder)
    finally:
        for task in aside:
            task.cancel()
        await asyncio.gather(*aside, return_exceptions=True)
    shutil.rmtree(folder.run_path, ignore_errors=True)
    end_all(folder.id, os.getpid())


async def first_boot(folder: Folder, record: Record, user: str) -> None:
    """Run what the machine was ordered with, in its home; what it says goes to the machine's log."""
    environment = environment_inside(folder, user, os.environ) | dict(record.environment)
    for command in record.commands:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            cwd=folder.home,
            env=environment,
            start_new_session=True,
        )
        logging.info("first boot: %s ended with %d", command[0], await process.wait())


async def listen(folder: Folder, record: Record, user: str) -> tuple[int, str]:
    """Start the SSH server that was ordered. Returns its port and its public host key."""
    if not folder.host_key_path.exists():
        folder.write_host_key(asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
    if record.ssh_server == "openssh":
        from skyward_operator.providers.local import openssh

        return await openssh.listen(folder, record, user)
    from skyward_operator.providers.local import server

    return await server.listen(folder, record, user)


async def over(folder: Folder, period: float = 1.0) -> None:
    """Wait until the machine was told to end, or somebody deleted its folder: nobody could end this process
    by it any more."""
    while folder.record_path.exists() and not folder.power_off_path.exists():  # noqa: ASYNC110 - no events
        await asyncio.sleep(period)
    if folder.power_off_path.exists():
        logging.info("machine %s is powered off from inside", folder.id)


if __name__ == "__main__":
    main()
