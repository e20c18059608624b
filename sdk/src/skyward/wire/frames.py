"""Frames: the unit of the link between operator and agent, and between agent and worker.

One frame is `total u32 | kind u8 | header length u32 | JSON header | body`, big-endian, where `total` counts
all bytes that follow it. A frame never exceeds `MAX_FRAME`, so a control frame never waits long behind a
bulk one; bodies larger than `CHUNK` travel as several frames (`BLOB`, `RESULT_CHUNK`).

A decoder treats its input as hostile: every length is checked before memory is reserved for it, and one bad
frame makes the stream unusable (`FrameError`), because nothing after it can be trusted to be a boundary.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Any

from skyward.wire.digest import BytesLike
from skyward.wire.errors import FrameError

MAX_FRAME = 4 * 1024 * 1024
CHUNK = 256 * 1024
"""The body size of bulk frames. A control frame waits for one of these at most (0.5 ms at 500 MB/s)."""

MAX_BODY = 1024 * 1024
"""The largest body that goes into one frame beside its header; more travels in chunks."""

_PREFIX = struct.Struct("!IBI")
_TOTAL = struct.Struct("!I")
_AFTER_TOTAL = _PREFIX.size - _TOTAL.size

# json.dumps with separators builds an encoder for every call, which costs as much as the encoding.
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode


@unique
class FrameKind(IntEnum):
    """What a frame says. Headers are described in `skyward.wire.envelopes`, one class per kind."""

    # operator to agent
    HELLO = 1
    FUNCTION = 2
    CALL = 3
    BLOB = 4
    CANCEL = 5
    ACK = 6
    PING = 7
    STOP = 8
    FETCH = 9
    LIMIT = 10
    CREDIT = 16
    INPUT = 17
    LOGGED = 20
    LEAVING = 21
    WATCH = 22
    # agent to its worker
    FLOW = 32
    # agent to operator
    WELCOME = 64
    STARTED = 65
    LOG = 66
    RESULT = 67
    RESULT_CHUNK = 68
    PONG = 69
    NOTICE = 70
    REFUSED = 71
    TAKEN = 72
    ITEM = 80
    NEED = 81
    # client to operator, in the session of an open task, beside HELLO, FUNCTION, CALL, CANCEL, ACK, CREDIT,
    # INPUT; back come WELCOME, RESULT, RESULT_CHUNK, ITEM, NEED and REFUSED
    CLOSE = 96


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: its kind, a small JSON object, and raw bytes."""

    kind: FrameKind
    header: dict[str, Any]
    body: BytesLike = b""


def encode(frame: Frame) -> bytes:
    """The frame as one bytes object. Right for control frames; `encode_parts` does not copy the body."""
    return b"".join(encode_parts(frame))


def encode_parts(frame: Frame) -> list[BytesLike]:
    """The frame as pieces to be written one after the other, the body uncopied.

    Raises `FrameError` when the frame is larger than `MAX_FRAME`.
    """
    header = _to_json(frame.header).encode()
    size = frame.body.nbytes if isinstance(frame.body, memoryview) else len(frame.body)
    total = _AFTER_TOTAL + len(header) + size
    if total > MAX_FRAME:
        raise FrameError(f"a {frame.kind.name} frame of {total} bytes is over the limit of {MAX_FRAME}")
    prefix = _PREFIX.pack(total, frame.kind, len(header)) + header
    return [prefix, frame.body] if size else [prefix]


class Decoder:
    """Turns a byte stream, cut anywhere, back into frames."""

    __slots__ = ("_buffer", "_failed")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._failed = False

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._buffer)

    def feed(self, data: BytesLike) -> Iterator[Frame]:
        """Take in `data`; iterate over the frames that are complete now.

        Frames before a malformed one are still delivered; then `FrameError` is raised, now and ever after.
        Frames that the caller leaves in the iterator come with the next `feed`.
        """
        self._buffer += data
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        if self._failed:
            raise FrameError("the stream already failed")
        buffer = self._buffer
        while len(buffer) >= _TOTAL.size:
            (total,) = _TOTAL.unpack_from(buffer)
            if not _AFTER_TOTAL <= total <= MAX_FRAME:
                self._fail(
                    f"a frame claims {total} bytes; between {_AFTER_TOTAL} and {MAX_FRAME} are allowed"
                )
            end = _TOTAL.size + total
            if len(buffer) < end:
                return
            frame = self._parse(end)
            del buffer[:end]
            yield frame

    def _parse(self, end: int) -> Frame:
        _, kind, header_size = _PREFIX.unpack_from(self._buffer)
        body_start = _PREFIX.size + header_size
        if body_start > end:
            self._fail(f"a header of {header_size} bytes does not fit its frame")
        try:
            header = _from_json(self._buffer[_PREFIX.size : body_start].decode())
            if not isinstance(header, dict):
                raise ValueError("not a JSON object")
            known = FrameKind(kind)
        except (ValueError, RecursionError) as error:
            self._fail(f"a frame of kind {kind} cannot be read: {error}")
        with memoryview(self._buffer) as view:
            body = bytes(view[body_start:end])
        return Frame(known, header, body)

    def _fail(self, reason: str) -> None:
        self._failed = True
        self._buffer.clear()
        raise FrameError(reason)
