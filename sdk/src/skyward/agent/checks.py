"""What the agent accepts in headers. Everything that comes over the socket passes here before it is used."""

from typing import Any

from skyward.wire.envelopes import RefusalReason
from skyward.wire.frames import MAX_BODY, MAX_FRAME

_MAX_ARGUMENTS = MAX_FRAME - 256 * 1024


def checked_call(header: dict[str, Any], body: bytes) -> str:
    """The name of the attempt; `ValueError` where the CALL could not be run or passed on to a worker."""
    name = header["attempt"]
    if not isinstance(name, str) or not name:
        raise ValueError("an attempt needs a name")
    if bool(header.get("function")) == bool(header.get("entry")):
        raise ValueError("a call has either a function or an entry")
    for key in ("entry", "context"):
        if not isinstance(header.get(key) or {}, dict):
            raise ValueError(f"{key} is not an object")
    for key in ("timeout", "grace"):
        seconds(header.get(key))
    if len(body) > _MAX_ARGUMENTS:
        raise ValueError(f"arguments of {len(body)} bytes in one frame; send more than {MAX_BODY} as BLOB")
    return name


def refused(attempt: str, reason: RefusalReason, message: str) -> dict[str, Any]:
    """The header of a REFUSED frame."""
    return {"attempt": attempt, "reason": reason, "message": message}


def seconds(value: Any) -> float | None:
    """A duration, or None; `ValueError` for anything else."""
    if value is None:
        return None
    duration = float(value)
    if not 0 <= duration < 1e9:
        raise ValueError(f"{value!r} is not a number of seconds")
    return duration
