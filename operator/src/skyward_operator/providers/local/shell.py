"""Commands and shells inside a local machine, for its asyncssh server.

A command gets pipes, a shell with a terminal gets a real one. When the connection goes, what it ran is hung
up on, as a terminal would do; a process that has left the session (an agent) stays.
"""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping
    from pathlib import Path

CHUNK = 128 * 1024


async def run_shell(
    session: asyncssh.SSHServerProcess[bytes], *, home: Path, environment: Mapping[str, str]
) -> None:
    """Run what a client asked for, and tell it the exit status."""
    if session.term_type is not None:
        await run_terminal(session, home, environment)
        return
    process = await asyncio.create_subprocess_exec(
        "/bin/bash",
        *(["-c", session.command] if session.command is not None else []),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=home,
        env=dict(environment),
        start_new_session=True,
    )
    stdin = asyncio.create_task(feed(session, process))
    try:
        async with asyncio.TaskGroup() as group:
            for source, target in ((process.stdout, session.stdout), (process.stderr, session.stderr)):
                if source is not None:
                    group.create_task(drain(source, target))
        report(session, await process.wait())
    finally:
        stdin.cancel()
        hang_up(process)
        with suppress(asyncio.CancelledError):
            await stdin


async def feed(session: asyncssh.SSHServerProcess[bytes], process: Process) -> None:
    """Copy the client's input; pass its signals on; hang up when it is gone."""
    if process.stdin is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):
        while True:
            try:
                data = await session.stdin.read(CHUNK)
            except asyncssh.SignalReceived as received:
                signal_group(process, signal.Signals[f"SIG{received.signal}"])
                continue
            except asyncssh.BreakReceived:
                signal_group(process, signal.SIGINT)
                continue
            except asyncssh.DisconnectError:
                break
            if not data:
                break
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.close()
    await session.channel.wait_closed()
    hang_up(process)


async def drain(source: asyncio.StreamReader, target: asyncssh.SSHWriter[bytes]) -> None:
    """Copy a command's output to the client, at the client's pace; drop it once the client is gone."""
    while data := await source.read(CHUNK):
        with suppress(BrokenPipeError, ConnectionError, asyncssh.Error, OSError):
            target.write(data)
            await target.drain()


async def run_terminal(
    session: asyncssh.SSHServerProcess[bytes], home: Path, environment: Mapping[str, str]
) -> None:
    """Run a shell, or a command, on a terminal of its own."""
    ours, theirs = pty.openpty()
    arguments = ["-c", session.command] if session.command is not None else ["-i"]
    process = await asyncio.create_subprocess_exec(
        "/bin/bash",
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=home,
        env={**environment, "TERM": session.term_type or "dumb"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        await session.redirect(stdin=os.dup(ours), stdout=ours)
        report(session, await process.wait())
    finally:
        hang_up(process)


def report(session: asyncssh.SSHServerProcess[bytes], status: int) -> None:
    """Tell the client how the command ended."""
    with suppress(asyncssh.Error, OSError):
        if status < 0:
            session.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            session.exit(status)


def hang_up(process: Process) -> None:
    """Tell a command that still runs that its terminal is gone."""
    if process.returncode is None:
        signal_group(process, signal.SIGHUP)


def signal_group(process: Process, number: signal.Signals) -> None:
    """Signal a command and what it started, as far as it is still in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
