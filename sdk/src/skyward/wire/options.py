"""How the single calls of a package run, where they differ from one another: a table of fixed-size numbers.

    number of sets u32 | each set | set u32 of each call

Most packages have none: what all calls share stands in the Task. Whoever moves a package reads the table
without opening a call.
"""

import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from skyward.wire.errors import PackageError

_COUNT = struct.Struct("!I")
_SET = struct.Struct("!IIIII")
_WHICH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Limits and retries of one call; seconds. `run_seconds` of 0 is no limit."""

    run_seconds: int = 0
    on_interruption: int = 3
    on_exception: int = 0
    backoff_seconds: int = 1
    max_backoff_seconds: int = 60


def pack_options(options: Sequence[CallOptions]) -> bytes:
    """The table for one set of options per call; nothing for none."""
    if not options:
        return b""
    place = {each: number for number, each in enumerate(dict.fromkeys(options))}
    table = bytearray(_COUNT.pack(len(place)))
    for each in place:
        table += _SET.pack(*astuple(each))
    for each in options:
        table += _WHICH.pack(place[each])
    return bytes(table)


class OptionsTable:
    """The options of each of `calls` calls. Raises `PackageError` for bytes that are no such table."""

    def __init__(self, data: memoryview, calls: int) -> None:
        if data.nbytes < _COUNT.size:
            raise PackageError("the table of options is cut off")
        (sets,) = _COUNT.unpack_from(data)
        self._which = _COUNT.size + sets * _SET.size
        if data.nbytes != self._which + calls * _WHICH.size:
            raise PackageError("the table of options does not fit the calls of its package")
        self._data = data
        self._sets: list[CallOptions] = [
            CallOptions(*_SET.unpack_from(data, _COUNT.size + number * _SET.size)) for number in range(sets)
        ]

    def of(self, call: int) -> CallOptions:
        """The options of one call."""
        which: int = _WHICH.unpack_from(self._data, self._which + call * _WHICH.size)[0]
        if which >= len(self._sets):
            raise PackageError(f"call {call} names options {which}; the package has {len(self._sets)}")
        return self._sets[which]
