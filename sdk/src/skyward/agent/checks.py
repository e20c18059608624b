"""What the agent accepts in headers. Everything that comes over the socket passes here before it is used."""

from typing import Any

from skyward.wire.digest import is_digest
from skyward.wire.envelopes import SLICE_BYTES, SLICE_ITEMS, RefusalReason, parse_attempt
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
    blobs = header.get("blobs") or []
    if not isinstance(blobs, list) or not all(map(is_digest, blobs)):
        raise ValueError("blobs is no list of digests")
    for key in ("timeout", "grace"):
        seconds(header.get(key))
    if "sizes" in header:
        _check_slice(name, header, len(body))
    if len(body) > _MAX_ARGUMENTS:
        raise ValueError(f"arguments of {len(body)} bytes in one frame; send more than {MAX_BODY} as BLOB")
    return name


def _check_slice(name: str, header: dict[str, Any], size: int) -> None:
    _, index, number = parse_attempt(name)
    if not name.isascii() or not name.isprintable() or not {'"', "\\"}.isdisjoint(name):
        raise ValueError("the name of a slice has a character that needs an escape in JSON")
    if (index, number) != (header.get("index"), header.get("number")):
        raise ValueError("a slice is named by the index and the number of its first item")
    if any(header.get(key) for key in ("entry", "args", "stream", "inputs")):
        raise ValueError("a slice is calls of a function with arguments of their own")
    sizes = header["sizes"]
    if not isinstance(sizes, list) or not 0 < len(sizes) <= SLICE_ITEMS:
        raise ValueError(f"a slice has between 1 and {SLICE_ITEMS} items")
    if not all(type(each) is int and each >= 0 for each in sizes) or sum(sizes) != size:
        raise ValueError("the sizes of a slice are not those of its arguments")
    if size > SLICE_BYTES:
        raise ValueError(f"a slice has at most {SLICE_BYTES} bytes of arguments")


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
