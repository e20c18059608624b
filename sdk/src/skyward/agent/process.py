"""One worker process as the agent sees it: started early, spoken to over a socket, stopped with all it began.

The worker leads a process group of its own, and stopping it means stopping the group and its descendants.
Its output comes through pipes; they are emptied before a result is passed on, so output precedes the result.
A pipe that was read is left alone for a moment: who prints a line at a time is read many lines at a time. A
pipe that is held is not read at all, so that its writer waits.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skyward.agent.box import Box, new_box
from skyward.wire.errors import FrameError
from skyward.wire.frames import Decoder, Frame, encode

if TYPE_CHECKING:
    from skyward.agent.attempts import Attempt

_RECEIVE = 256 * 1024
_READ = 64 * 1024
_PIPE_CAPACITY = 1024 * 1024
"""The most that can lie in a pipe (fs.pipe-max-size). Emptying stops there: the writer may be endless."""
_PIPE_SIZE = 256 * 1024
_READ_PAUSE = 0.005


_buffer = memoryview(bytearray(_RECEIVE))
"""Where frames of all workers arrive, one read at a time: 256 KiB allocated for each would be page faults."""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """How workers are started. `threads` calls run in each of them at once."""

    folder: Path
    spool: Path
    threads: int = 1
    workers: int = 1
    gpus: tuple[str, ...] = ()
    """The node's GPUs, as CUDA_VISIBLE_DEVICES names them."""

    def environment(self, index: int) -> dict[str, str] | None:
        """The environment of a worker: its share of the GPUs, or nothing of its own where there are none.

        GPUs are dealt out in blocks; with more workers than GPUs, several share one.
        """
        if not self.gpus or self.workers <= 1:
            return None
        share = len(self.gpus) // self.workers
        begin = index * share
        mine = self.gpus[begin : begin + share] if share else (self.gpus[index % len(self.gpus)],)
        visible = ",".join(mine)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": visible, "HIP_VISIBLE_DEVICES": visible}


class WorkerProcess:
    """A running worker. `on_frame` and `on_output` are called in the order in which things happened in it."""

    def __init__(
        self,
        index: int,
        on_frame: Callable[["WorkerProcess", Frame], None],
        on_output: Callable[["WorkerProcess", str, bytes], None],
    ) -> None:
        self.index = index
        self.ready = False
        self.retiring = False
        self.running: dict[str, Attempt] = {}
        self.last: str | None = None
        self.functions: OrderedDict[str, None] = OrderedDict()
        self.boxes: list[Box] = []
        self.pid = 0
        self._on_frame = on_frame
        self._on_output = on_output
        self._decoder = Decoder()
        self._unsent = bytearray()
        self._pipes: dict[str, int] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._held = False

    async def start(self, plan: WorkerPlan) -> None:
        """Start the process. It says that it is ready with its first frame."""
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        out, err = self._pipe("stdout"), self._pipe("stderr")
        boxes = [new_box() for _ in range(plan.threads)]
        self.boxes = [Box(descriptor) for descriptor in boxes]
        arguments = [str(theirs.fileno()), str(lifeline), str(plan.spool), *map(str, boxes)]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "skyward.agent.worker",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=plan.folder,
                env=plan.environment(self.index),
                pass_fds=(theirs.fileno(), lifeline, *boxes),
                process_group=0,
            )
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()
            for descriptor in (lifeline, out, err, *boxes):
                os.close(descriptor)
        self.pid = self._process.pid
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._receive)
        self._listen()

    async def ended(self) -> int:
        """Wait for the process to end; everything it sent and printed has been handed on by then."""
        status = await self._process.wait()
        self._signal_group(signal.SIGKILL)  # what it started must not outlive it
        self._receive()
        self.empty_pipes()
        self._close()
        return status

    def send(self, frame: Frame) -> None:
        """Send a frame to the worker, later if its socket is full."""
        data = encode(frame)
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # it is dead; `ended` says so
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._socket, self._send_more)
        self._unsent += data

    def empty_pipes(self) -> None:
        """Hand on everything that was printed until now."""
        for stream in list(self._pipes):
            taken = 0
            while taken < _PIPE_CAPACITY and (size := self._read(stream)):
                taken += size

    def hold(self, held: bool) -> None:
        """Leave unread what is printed from now on, or read it again."""
        if held == self._held:
            return
        self._held = held
        if held:
            self._deafen()
        else:
            self._listen()

    def tell(self, word: str) -> None:
        """Say something to a worker whose main thread is in a call: `Worker.hear` knows what."""
        with contextlib.suppress(OSError):
            os.write(self._lifeline, f"{word}\n".encode())

    def interrupt(self) -> None:
        """SIGINT to the whole group, as Ctrl-C on a terminal does."""
        self._signal_group(signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM to the whole group."""
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the group and to descendants that left it. The worker takes no further calls."""
        self.retiring = True
        family = _descendants(self.pid)
        self._signal_group(signal.SIGKILL)
        for pid in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _pipe(self, stream: str) -> int:
        read, write = os.pipe()
        os.set_blocking(read, False)
        if set_size := getattr(fcntl, "F_SETPIPE_SZ", None):
            with contextlib.suppress(OSError):  # the user's pipes have a limit in all
                fcntl.fcntl(read, set_size, _PIPE_SIZE)
        self._pipes[stream] = read
        return write

    def _receive(self) -> None:
        while True:
            try:
                size = self._socket.recv_into(_buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                size = 0
            if not size:
                self._loop.remove_reader(self._socket)
                return
            try:
                for frame in self._decoder.feed(_buffer[:size]):
                    self._on_frame(self, frame)
            except FrameError:  # something in the worker wrote to our socket
                self.kill()
                return
            if size < _RECEIVE:
                return

    def _send_more(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _listen(self) -> None:
        for stream, descriptor in self._pipes.items():
            self._loop.add_reader(descriptor, self._on_readable, stream)

    def _on_readable(self, stream: str) -> None:
        """Read one pipe and leave both alone for a moment: what is printed to one, then to the other, is then
        read in that order more often than not."""
        size = self._read(stream)
        if 0 < size < _READ and not self._held:
            self._deafen()
            self._pause = self._loop.call_later(_READ_PAUSE, self._listen)

    def _deafen(self) -> None:
        self._stop_pause()
        for descriptor in self._pipes.values():
            self._loop.remove_reader(descriptor)

    def _stop_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _read(self, stream: str) -> int:
        descriptor = self._pipes.get(stream)
        if descriptor is None:
            return 0
        try:
            data = os.read(descriptor, _READ)
        except (BlockingIOError, InterruptedError):
            return 0
        if data:
            self._on_output(self, stream, data)
        else:
            self._loop.remove_reader(descriptor)
            os.close(self._pipes.pop(stream))
        return len(data)

    def _close(self) -> None:
        self._deafen()
        for descriptor in self._pipes.values():
            os.close(descriptor)
        self._pipes.clear()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        os.close(self._lifeline)


def _descendants(pid: int) -> list[int]:
    """Children of children, where the kernel says who they are (Linux)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        children = parents.get(pending.pop(), [])
        found += children
        pending += children
    return found
