"""An agent without workers: it takes calls, says that they started and ended, and remembers what it must.

To the operator it is an agent like any other: it greets, keeps each result until that is acknowledged, and
says after a reconnection what it holds.
"""

from __future__ import annotations

import platform
import time
import uuid
from typing import TYPE_CHECKING, Any

from skyward.wire.codec import dumps
from skyward.wire.envelopes import PROTOCOL, RefusalReason
from skyward.wire.frames import Decoder, Frame, FrameKind, encode

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = dumps(None)


class Agent:
    """One node's agent. `hold` keeps calls running until `release`."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self._boot_id = uuid.uuid4().hex
        self._slots = 1
        self._functions: dict[str, None] = {}
        self._running: dict[str, float] = {}
        self._done: dict[str, bytes] = {}
        self._held = False
        self._stopping = False
        self._write: Callable[[bytes], None] | None = None
        self._close: Callable[[], None] = lambda: None
        self.greetings = 0
        """How often an operator has taken it over."""

    def connected(self, write: Callable[[bytes], None], close: Callable[[], None]) -> Decoder:
        """An operator has opened a channel; what it sends goes through the decoder to `take`."""
        self._write, self._close = write, close
        return Decoder()

    def disconnected(self, write: Callable[[bytes], None]) -> None:
        """That channel is gone; a newer one may be there already."""
        if self._write is write:
            self._write = None

    def hold(self) -> None:
        """Let every call run on."""
        self._held = True

    def release(self) -> None:
        """End every call, now and from now on."""
        self._held = False
        for attempt, began in list(self._running.items()):
            self._end(attempt, began)

    def take(self, frame: Frame) -> None:
        """A frame from the operator."""
        header = frame.header
        match frame.kind:
            case FrameKind.HELLO:
                self._greet(header)
            case FrameKind.PING:
                self._send(FrameKind.PONG, {"t": header["t"], "running": len(self._running)})
            case FrameKind.FUNCTION:
                self._functions[header["digest"]] = None
            case FrameKind.CALL:
                self._call(header)
            case FrameKind.CANCEL:
                if (began := self._running.get(header["attempt"])) is not None:
                    self._end(header["attempt"], began)
            case FrameKind.ACK:
                for attempt in header["attempts"]:
                    self._done.pop(attempt, None)
            case FrameKind.STOP:
                self._stopping = True
                self._leave_when_idle()
            case _:
                pass  # nothing else concerns an agent that runs nothing

    def _greet(self, header: dict[str, Any]) -> None:
        self.greetings += 1
        self._stopping = False  # whoever is greeted after its end was started again, and has kept its results
        self._slots = header.get("slots", 1)
        held = [
            *({"attempt": attempt, "state": "running"} for attempt in self._running),
            *({"attempt": attempt, "state": "done"} for attempt in self._done),
        ]
        welcome = {
            "protocol": PROTOCOL,
            "agent": "herd",
            "boot_id": self._boot_id,
            "bundle": self.bundle,
            "python": platform.python_version(),
            "slots": self._slots,
            "executor": header.get("executor", "process"),
            "facts": {},
            "held": held,
            "functions": list(self._functions),
            "blobs": [],
        }
        self._send(FrameKind.WELCOME, welcome)
        for result in self._done.values():
            self._put(result)

    def _call(self, header: dict[str, Any]) -> None:
        attempt, function = header["attempt"], header.get("function")
        if self._stopping:
            self._refuse(attempt, RefusalReason.STOPPING)
        elif attempt in self._running or attempt in self._done:
            self._refuse(attempt, RefusalReason.DUPLICATE)
        elif function is not None and function not in self._functions:
            self._refuse(attempt, RefusalReason.FUNCTION_MISSING, digest=function)
        else:
            began = self._running[attempt] = time.time()
            self._send(FrameKind.STARTED, {"attempt": attempt, "pid": 1, "time": began, "worker": 0})
            if not self._held:
                self._end(attempt, began)

    def _refuse(self, attempt: str, reason: RefusalReason, **more: str) -> None:
        state = "running" if attempt in self._running else "done"
        self._send(
            FrameKind.REFUSED,
            {"attempt": attempt, "reason": reason, "message": "refused by the herd", "state": state, **more},
        )

    def _end(self, attempt: str, began: float) -> None:
        del self._running[attempt]
        header = {
            "attempt": attempt,
            "ok": True,
            "started": began,
            "duration": time.time() - began,
            "size": len(NOTHING),
            "chunked": False,
        }
        self._done[attempt] = encode(Frame(FrameKind.RESULT, header, NOTHING))
        self._put(self._done[attempt])
        self._leave_when_idle()

    def _leave_when_idle(self) -> None:
        if self._stopping and not self._running:
            self._close()

    def _send(self, kind: FrameKind, header: dict[str, Any]) -> None:
        self._put(encode(Frame(kind, header)))

    def _put(self, data: bytes) -> None:
        if self._write is not None:
            self._write(data)
