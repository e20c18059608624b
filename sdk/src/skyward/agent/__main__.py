"""`python -m skyward.agent`: start the agent of this node, unless it runs already.

Prints one line of JSON when the agent listens (`state` is `listening` or `running`) and exits 0 with
`--detach`. Another agent on the same home (other bundle, slots or executor) is left alone, `state` is
`conflict` and the exit status 3, unless `--replace` is given, which stops that agent first.
"""

import argparse
import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from skyward.agent import sockets
from skyward.agent.server import Agent, Settings
from skyward.wire.bundle import bundle_digest
from skyward.wire.errors import FrameError
from skyward.wire.frames import Decoder, Frame, FrameKind, encode

_PROBE_TIMEOUT = 5.0
_STOP_TIMEOUT = 20.0
_START_TIMEOUT = 30.0
_CONFLICT = 3


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    options = _parse(arguments)
    settings = Settings(
        home=Path(options.home).absolute(),
        socket=Path(options.socket).absolute(),
        slots=options.slots,
        executor=options.executor,
        reuse=not options.fresh,
    )
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(settings.home)
    if lock is None:
        status = _meet_running(settings, replace=options.replace)
        if status is not None:
            return status
        lock = _lock(settings.home)
        if lock is None:
            return _say(_CONFLICT, state="conflict", message="the running agent does not stop")
    return _detach(settings) if options.detach else _serve(settings, sys.stdout.fileno())


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m skyward.agent", description="The agent of one node.")
    parser.add_argument("--home", required=True, help="folder for spool, blobs, log and working directory")
    parser.add_argument("--socket", required=True, help="path of the Unix socket to listen on")
    parser.add_argument("--slots", type=int, default=1, help="how many calls run at once")
    parser.add_argument("--executor", choices=("process", "thread"), default="process")
    parser.add_argument("--fresh", action="store_true", help="a new worker process for every call")
    parser.add_argument("--detach", action="store_true", help="run in the background, log to HOME/agent.log")
    parser.add_argument("--replace", action="store_true", help="stop an agent of another version first")
    options = parser.parse_args(arguments)
    if not 1 <= options.slots <= 1024:
        parser.error("--slots must be between 1 and 1024")
    return options


def _lock(home: Path) -> int | None:
    """One agent per home. The lock goes with the process, however that ends."""
    descriptor = os.open(home / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _meet_running(settings: Settings, *, replace: bool) -> int | None:
    """Another agent has the home: say so, or stop it (then None)."""
    pong = _probe(settings.socket)
    if pong is None:
        return _say(_CONFLICT, state="conflict", message="an agent has the home but does not answer")
    wanted = (bundle_digest(), settings.slots, settings.executor)
    if (pong["bundle"], pong["slots"], pong["executor"]) == wanted:
        return _say(0, state="running", pid=pong["pid"], boot_id=pong["boot_id"], bundle=pong["bundle"])
    if not replace:
        return _say(
            _CONFLICT,
            state="conflict",
            pid=pong["pid"],
            message="an agent with another bundle, slots or executor runs here; --replace stops it",
        )
    os.kill(pong["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT
    while time.monotonic() < deadline and (lock := _lock(settings.home)) is None:
        time.sleep(0.05)
    if lock is not None:
        os.close(lock)
    return None


def _probe(path: Path) -> dict[str, Any] | None:
    """The PONG of the agent that listens at `path`; it may be about to start, so try for a while."""
    deadline = time.monotonic() + _PROBE_TIMEOUT
    while time.monotonic() < deadline:
        try:
            with sockets.connect(path, _PROBE_TIMEOUT) as connection:
                connection.sendall(encode(Frame(FrameKind.PING, {"t": time.time()})))
                decoder = Decoder()
                while data := connection.recv(65536):
                    for frame in decoder.feed(data):
                        return frame.header
        except (OSError, FrameError):
            time.sleep(0.1)
    return None


def _detach(settings: Settings) -> int:
    """Leave the terminal and the caller's session; the caller waits until the agent listens."""
    heard, telling = os.pipe()
    if os.fork() > 0:
        os.close(telling)
        return _wait_for_child(heard, settings)
    os.close(heard)
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    _redirect(settings.home / "agent.log")
    status = 1
    try:
        status = _serve(settings, telling)
    except Exception:
        logging.getLogger("skyward.agent").exception("the agent failed")
    finally:
        os._exit(status)


def _wait_for_child(heard: int, settings: Settings) -> int:
    with os.fdopen(heard) as pipe:
        line = pipe.readline()
    os.wait()
    if line:
        sys.stdout.write(line)
        sys.stdout.flush()
        return 0
    return _say(1, state="failed", message=_tail(settings.home / "agent.log"))


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-2000:]
    except OSError:
        return ""


def _redirect(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(file)


def _serve(settings: Settings, telling: int) -> int:
    """Run the agent; tell the caller through the descriptor `telling` when it listens."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")

    async def run() -> None:
        agent = Agent(settings)
        await agent.run(lambda: _tell(telling, agent))

    asyncio.run(run())
    return 0


def _tell(telling: int, agent: Agent) -> None:
    line = {
        "state": "listening",
        "pid": os.getpid(),
        "boot_id": agent.boot_id,
        "bundle": bundle_digest(),
        "socket": str(agent.settings.socket),
    }
    os.write(telling, json.dumps(line).encode() + b"\n")
    if telling > 2:
        os.close(telling)


def _say(status: int, **line: Any) -> int:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
