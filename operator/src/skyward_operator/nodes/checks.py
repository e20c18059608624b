"""What is accepted in the header of a frame from an agent: everything passes here before it is acted upon.

An agent runs beside the code of users. A header that lacks a field or has another type in it must end as a
closed link with a reason, and not half-way through the books of the task that it names.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from skyward.wire.envelopes import SLICE_ITEMS
from skyward.wire.errors import FrameError
from skyward.wire.frames import FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skyward.wire.frames import Frame

_LATEST: Final = 1e11
"""Seconds: beyond this neither a time nor a duration can be written down."""

type Check = Callable[[Any], bool]


def check(frame: Frame) -> None:
    """Raises FrameError for a frame that makes no sense."""
    for name, is_right in _required(frame).items():
        if name not in frame.header or not is_right(frame.header[name]):
            raise FrameError(f"a {frame.kind.name} frame without a usable {name!r}")
    for name, is_right in _OPTIONAL.get(frame.kind, {}).items():
        if frame.header.get(name) is not None and not is_right(frame.header[name]):
            raise FrameError(f"a {frame.kind.name} frame whose {name!r} cannot be used")
    if _is_batch(frame):
        _check_batch(frame)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _is_slots(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= 1024


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value < _LATEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_some(value: Any) -> bool:
    return isinstance(value, int) and 1 <= value <= SLICE_ITEMS


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_held(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_one_held, value))


def _is_one_held(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("attempt"))
        and _is_text(value.get("state"))
        and _is_some(value.get("count", 1))
    )


def _required(frame: Frame) -> Mapping[str, Check]:
    return _BATCH if _is_batch(frame) else _REQUIRED.get(frame.kind, {})


def _is_batch(frame: Frame) -> bool:
    return frame.kind is FrameKind.RESULT and "count" in frame.header


def _check_batch(frame: Frame) -> None:
    count, failed, lengths = (frame.header[name] for name in ("count", "failed", "lengths"))
    if len(lengths) != count or sum(lengths) != len(frame.body):
        raise FrameError("a batch of outcomes that is cut otherwise than it says")
    if failed and (failed[-1] >= count or any(a >= b for a, b in pairwise(failed))):
        raise FrameError("a batch of outcomes whose failed ones are not in it")


_BATCH: Final[Mapping[str, Check]] = {
    "attempt": _is_text,
    "count": _is_some,
    "failed": _are_counts,
    "lengths": _are_counts,
}
_REQUIRED: Final[Mapping[FrameKind, Mapping[str, Check]]] = {
    FrameKind.WELCOME: {"boot_id": _is_text, "python": _is_text, "agent": _is_text, "slots": _is_slots},
    FrameKind.STARTED: {"attempt": _is_text, "time": _is_seconds},
    FrameKind.LOG: {"attempt": _is_text},
    FrameKind.ITEM: {"attempt": _is_text, "seq": _is_count},
    FrameKind.NEED: {"attempt": _is_text, "input": _is_count, "taken": _is_count},
    FrameKind.RESULT: {"attempt": _is_text, "ok": _is_flag},
    FrameKind.RESULT_CHUNK: {"attempt": _is_text, "offset": _is_count, "last": _is_flag},
    FrameKind.REFUSED: {"attempt": _is_text, "reason": _is_text},
    FrameKind.TAKEN: {"digest": _is_text, "offset": _is_count},
}
_OPTIONAL: Final[Mapping[FrameKind, Mapping[str, Check]]] = {
    FrameKind.WELCOME: {
        "held": _is_held,
        "functions": _is_texts,
        "blobs": _is_texts,
        "facts": _is_object,
        "left": _is_seconds,
        "watch": _is_text,
        "ill": _is_text,
    },
    FrameKind.LOG: {"stream": _is_text, "time": _is_seconds},
    FrameKind.RESULT: {
        "started": _is_seconds,
        "duration": _is_seconds,
        "size": _is_count,
        "chunked": _is_flag,
        "error": _is_object,
    },
    FrameKind.REFUSED: {"count": _is_some},
    FrameKind.PONG: {"t": _is_number},
    FrameKind.NOTICE: {"left": _is_seconds, "message": _is_text},
}
