"""The agent over its Unix socket beside a ProcessPoolExecutor: `python -m benchmarks.agent_bench`.

One call's round trip, no-op calls per second on two slots, and 128 MB as an argument and as a result.
The operator's end here is a blocking socket, so this is the agent's own share of a call and no more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import quantile, timed
from skyward.agent import sockets
from skyward.wire.codec import dumps, dumps_function, loads
from skyward.wire.digest import digest
from skyward.wire.envelopes import PROTOCOL, parse_attempt
from skyward.wire.frames import CHUNK, Decoder, Frame, FrameKind, encode, encode_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SINGLE = 1000
MANY = 2000
LARGE = 128 * 1000 * 1000
IN_FLIGHT = 64
SLICE = 500
SLICES_IN_FLIGHT = 4
ITEMS = 100_000
NO_ARGUMENTS = dumps(((), {}))


class Link:
    """An operator's end, as small as it can be."""

    def __init__(self, path: Path) -> None:
        self._socket = sockets.connect(path, 60)
        self._decoder = Decoder()
        self._count = 0
        self._functions: dict[int, str] = {}
        self._frames = self._receive()
        self.send(FrameKind.HELLO, {"protocol": PROTOCOL, "operator": "bench", "epoch": 1})
        self.wait(FrameKind.WELCOME)

    def send(self, kind: FrameKind, header: dict[str, Any], body: bytes = b"") -> None:
        self._socket.sendall(encode(Frame(kind, header, body)))

    def wait(self, kind: FrameKind) -> Frame:
        for frame in self._frames:
            if frame.kind is FrameKind.REFUSED:
                raise RuntimeError(frame.header["message"])
            if frame.kind is kind:
                return frame
        raise RuntimeError("the agent closed the connection")

    def call(self, function: Callable[..., Any], body: bytes, blob: str | None = None) -> bytes:
        """The CALL frame for a function, which is sent when it is new."""
        name = self._functions.get(id(function))
        if name is None:
            data = dumps_function(function)
            name = self._functions[id(function)] = digest(data)
            self.send(FrameKind.FUNCTION, {"digest": name}, data)
        self._count += 1
        header = {
            "attempt": f"b.{self._count}.1",
            "task": "bench/t",
            "index": 0,
            "number": 1,
            "function": name,
        }
        if blob is not None:
            header["args"] = blob
        return encode(Frame(FrameKind.CALL, header, body))

    def slice(self, function: Callable[..., Any], first: int, count: int) -> bytes:
        """The CALL frame for items that have no arguments; the function was sent before."""
        header = {
            "attempt": f"m.{first}.1",
            "task": "bench/t",
            "index": first,
            "number": 1,
            "function": self._functions[id(function)],
            "sizes": [len(NO_ARGUMENTS)] * count,
        }
        return encode(Frame(FrameKind.CALL, header, NO_ARGUMENTS * count))

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def blob(self, parts: bytes) -> str:
        name = digest(parts)
        view = memoryview(parts)
        for offset in range(0, len(parts), CHUNK):
            piece = view[offset : offset + CHUNK]
            header = {
                "digest": name,
                "offset": offset,
                "size": len(parts),
                "last": offset + CHUNK >= len(parts),
            }
            for part in encode_parts(Frame(FrameKind.BLOB, header, piece)):
                self._socket.sendall(part)
        return name

    def large_result(self) -> bytearray:
        header = self.wait(FrameKind.RESULT).header
        body = bytearray(header["size"])
        self.send(FrameKind.FETCH, {"attempt": header["attempt"], "offset": 0, "fetch": 1})
        while True:
            chunk = self.wait(FrameKind.RESULT_CHUNK)
            offset = chunk.header["offset"]
            body[offset : offset + len(chunk.body)] = chunk.body
            if chunk.header["last"]:
                return body

    def ack(self, frame: Frame) -> bytes:
        return encode(Frame(FrameKind.ACK, {"attempts": [frame.header["attempt"]]}))

    def _receive(self) -> Iterator[Frame]:
        buffer = memoryview(bytearray(CHUNK))
        while size := self._socket.recv_into(buffer):
            yield from self._decoder.feed(buffer[:size])


def noop(value: Any = None) -> None:
    """Nothing, taking anything."""
    del value


def produce(size: int) -> bytes:
    """Bytes that do not compress."""
    return os.urandom(1 << 20) * (size >> 20)


@contextmanager
def agent(slots: int) -> Iterator[Link]:
    """An agent in a process of its own, and the link to it."""
    folder = Path(tempfile.mkdtemp(prefix="skyward-bench-"))
    socket = folder / "s"
    options = ("--home", str(folder), "--socket", str(socket), "--slots", str(slots))
    process = subprocess.Popen(
        [sys.executable, "-m", "skyward.agent", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield Link(socket)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def calls_per_second(link: Link, count: int) -> float:
    """No-op calls, with up to 64 of them at the agent."""
    started = time.perf_counter()
    link.raw(b"".join(link.call(noop, NO_ARGUMENTS) for _ in range(IN_FLIGHT)))
    for done in range(count):
        frame = link.wait(FrameKind.RESULT)
        more = link.call(noop, NO_ARGUMENTS) if done + IN_FLIGHT < count else b""
        link.raw(link.ack(frame) + more)
    return count / (time.perf_counter() - started)


def items_per_second(link: Link, count: int) -> float:
    """No-op items in slices, with up to 4 of them at the agent."""
    link.raw(link.call(noop, NO_ARGUMENTS))
    link.raw(link.ack(link.wait(FrameKind.RESULT)))
    firsts = iter(range(0, count, SLICE))
    started = time.perf_counter()
    link.raw(b"".join(link.slice(noop, next(firsts), SLICE) for _ in range(SLICES_IN_FLIGHT)))
    done = 0
    while done < count:
        frame = link.wait(FrameKind.RESULT)
        done += frame.header["count"]
        link.raw(link.ack(frame))
        _, index, _ = parse_attempt(frame.header["attempt"])
        is_over = (index + frame.header["count"]) % SLICE == 0
        if is_over and (first := next(firsts, None)) is not None:
            link.raw(link.slice(noop, first, SLICE))
    return count / (time.perf_counter() - started)


def one_call(link: Link, pool: ProcessPoolExecutor) -> None:
    def through_agent() -> None:
        link.raw(link.call(noop, NO_ARGUMENTS))
        link.raw(link.ack(link.wait(FrameKind.RESULT)))

    ours, theirs = _times(through_agent), _times(lambda: pool.submit(noop).result())
    for name, percent in (("p50", 50), ("p99", 99)):
        _row(
            f"one call {name}",
            quantile(ours, percent) * 1e6,
            quantile(theirs, percent) * 1e6,
            "µs",
            less=True,
        )


def many_items(link: Link, pool: ProcessPoolExecutor) -> None:
    ours = items_per_second(link, ITEMS)
    started = time.perf_counter()
    for _ in pool.map(noop, range(ITEMS), chunksize=SLICE):
        pass
    _row(f"{ITEMS:,} items in slices", ours, ITEMS / (time.perf_counter() - started), "/s")


def many_calls(link: Link, pool: ProcessPoolExecutor) -> None:
    ours = calls_per_second(link, MANY)
    started = time.perf_counter()
    for future in [pool.submit(noop) for _ in range(MANY)]:
        future.result()
    _row("2,000 no-op calls", ours, MANY / (time.perf_counter() - started), "/s")


def large_argument(link: Link, pool: ProcessPoolExecutor) -> None:
    data = produce(LARGE)

    def ours() -> None:
        name = link.blob(dumps(((bytearray(data),), {})))
        link.raw(link.call(noop, b"", name))
        link.raw(link.ack(link.wait(FrameKind.RESULT)))

    _row("128 MB argument", _rate(ours), _rate(lambda: pool.submit(noop, data).result()), "MB/s")


def large_result(link: Link, pool: ProcessPoolExecutor) -> None:
    size = dumps(((LARGE,), {}))

    def ours() -> None:
        link.raw(link.call(produce, size))
        body = link.large_result()
        assert len(loads(body)) > LARGE * 0.9

    _row("128 MB result", _rate(ours), _rate(lambda: pool.submit(produce, LARGE).result()), "MB/s")


def _times(action: Callable[[], object]) -> list[float]:
    for _ in range(100):
        action()
    taken: list[float] = []
    for _ in range(SINGLE):
        with timed(taken):
            action()
    return taken


def _rate(action: Callable[[], object]) -> float:
    """The best of three, in MB/s."""
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        action()
        rates.append(LARGE / 1e6 / (time.perf_counter() - started))
    return max(rates)


def _row(name: str, ours: float, theirs: float, unit: str, *, less: bool = False) -> None:
    ratio = theirs / ours if less else ours / theirs
    print(f"{name:26}{ours:12,.0f}{theirs:12,.0f} {unit:6}{ratio:8.2f}")


def main() -> None:
    """Start an agent with two slots, measure, stop it."""
    with agent(slots=2) as link, ProcessPoolExecutor(2) as pool:
        print(
            f"{'':26}{'agent':>12}{'executor':>12} {'':6}{'ratio':>8}   (ratio above 1: the agent is faster)"
        )
        for measure in (one_call, many_calls, many_items, large_argument, large_result):
            measure(link, pool)


if __name__ == "__main__":
    main()
