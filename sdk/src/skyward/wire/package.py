"""Packages: all calls of a task in one blob (their outcomes are in `skyward.wire.outcomes`).

A package is indexed bytes around opaque payloads, so that whoever moves it can slice, count and retry calls
without opening (unpickling) any of them. Nothing here trusts its input: offsets are checked, and a damaged
package raises `PackageError` and never reads outside its own bytes.

A package of calls:

    "SKYCALL2" | functions | call payloads | end offset u64 of each function
               | (function index u32, end offset u64) of each call | options of each call, if any
               | table of parts (skyward.wire.parts), if any | footer

The index stands at the end, so a package can be written while its calls are still being produced.

A call that could not be pickled has the function index 2^32-1 and, in place of arguments, the record of its
outcome: it has failed, and does not run.
"""

import mmap
import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from io import BytesIO
from operator import sub
from pathlib import Path
from typing import BinaryIO

from skyward.wire.digest import BytesLike, digest
from skyward.wire.envelopes import ErrorInfo
from skyward.wire.errors import PackageError
from skyward.wire.options import CallOptions, OptionsTable, pack_options
from skyward.wire.outcomes import Located, Outcome, iter_outcomes, outcome_head, pack_outcomes, scan_outcomes
from skyward.wire.parts import PartsIndex, PartsTable

__all__ = [
    "CallOptions",
    "NOT_SENT",
    "CallPackage",
    "ErrorInfo",
    "Located",
    "Outcome",
    "PackageError",
    "PartsIndex",
    "iter_outcomes",
    "outcome_head",
    "pack_calls",
    "pack_outcomes",
    "scan_outcomes",
    "write_calls",
]

_MAGIC = b"SKYCALL2"
NOT_SENT = 2**32 - 1
"""The function of a call that could not be pickled."""

_FUNCTION_ENTRY = struct.Struct("!Q")
_CALL_ENTRY = struct.Struct("!IQ")
_FOOTER = struct.Struct("!QIIQQ8s")


def pack_calls(
    functions: Sequence[BytesLike],
    calls: Iterable[tuple[int, BytesLike]],
    options: Sequence[CallOptions] = (),
    parts: PartsIndex | None = None,
) -> bytes:
    """All calls of a task as one package.

    `functions` are pickled functions; each call is the index of its function and its pickled arguments.
    `options` are those of each call, or none where the calls share what their Task says. `parts` is read
    last: it may be filled while `calls` are produced.
    """
    out = BytesIO()
    write_calls(out, functions, calls, options, parts)
    return out.getvalue()


def write_calls(
    out: BinaryIO,
    functions: Sequence[BytesLike],
    calls: Iterable[tuple[int, BytesLike]],
    options: Sequence[CallOptions] = (),
    parts: PartsIndex | None = None,
) -> int:
    """Write a package to a binary file while `calls` are produced. Returns the number of calls."""
    index = bytearray()
    offset = out.write(_MAGIC)
    for function in functions:
        offset += out.write(function)
        index += _FUNCTION_ENTRY.pack(offset)
    count = 0
    for which, payload in calls:
        if not 0 <= which < len(functions) and which != NOT_SENT:
            raise PackageError(f"call {count} names function {which}; the package has {len(functions)}")
        offset += out.write(payload)
        index += _CALL_ENTRY.pack(which, offset)
        count += 1
    if options and len(options) != count:
        raise PackageError(f"there are options for {len(options)} of {count} calls")
    table = pack_options(options)
    needs = parts.pack() if parts is not None else b""
    out.write(index)
    out.write(table)
    out.write(needs)
    out.write(_FOOTER.pack(offset, len(functions), count, len(table), len(needs), _MAGIC))
    return count


class CallPackage:
    """Random access to a package of calls, over bytes or over a file (mapped, not read).

    Use as a context manager, or `close()`, when it was opened on a file. Of a file only the first `size`
    bytes are the package: its parts may stand behind it.
    """

    def __init__(self, source: BytesLike | Path, size: int | None = None) -> None:
        self._map: mmap.mmap | None = None
        if isinstance(source, Path):
            with source.open("rb") as file:
                if source.stat().st_size == 0:
                    raise PackageError("an empty file is not a package of calls")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._data = memoryview(self._map)[:size]
        else:
            self._data = memoryview(source).toreadonly().cast("B")
        try:
            self._open()
        except PackageError:
            self.close()
            raise

    def _open(self) -> None:
        size = self._data.nbytes
        if size < len(_MAGIC) + _FOOTER.size or self._data[: len(_MAGIC)] != _MAGIC:
            raise PackageError("not a package of calls")
        footer = size - _FOOTER.size
        index, functions, calls, table, needs, magic = _FOOTER.unpack_from(self._data, footer)
        entries = functions * _FUNCTION_ENTRY.size + calls * _CALL_ENTRY.size
        expected = index + entries + table + needs + _FOOTER.size
        if magic != _MAGIC or index < len(_MAGIC) or expected != size:
            raise PackageError("the package of calls is cut off or damaged")
        self.count: int = calls
        self._function_count: int = functions
        self._function_index: int = index
        self._call_index: int = index + functions * _FUNCTION_ENTRY.size
        self._options: OptionsTable | None = None
        if table:
            end = footer - needs
            self._options = OptionsTable(self._data[end - table : end], calls)
        self._parts: PartsTable | None = None
        if needs:
            self._parts = PartsTable(self._data[footer - needs : footer], functions + calls)

    @cached_property
    def functions(self) -> list[tuple[str, memoryview]]:
        """Digest and bytes of each function."""
        spans = [
            self._span(self._function_end(i - 1), self._function_end(i)) for i in range(self._function_count)
        ]
        return [(digest(span), span) for span in spans]

    def call(self, i: int) -> tuple[int, memoryview]:
        """Function index and pickled arguments of call `i`. Raises `IndexError` outside `range(count)`."""
        which, arguments, _ = self.slice(i, 1)
        return which, arguments

    def slice(self, i: int, count: int) -> tuple[int, memoryview, tuple[int, ...]]:
        """Calls `i … i+count-1`, which have the same function: its index, their arguments one behind the
        other, and the size of each. Raises `IndexError` outside `range(count)`."""
        functions, ends = self._entries(i, count)
        if functions[0] == NOT_SENT:
            raise PackageError(f"call {i} could not be pickled, and does not run")
        begin = self._call_end(i - 1)
        sizes = tuple(map(sub, ends, (begin, *ends)))
        if functions[0] >= self._function_count or min(sizes) < 0 or len(set(functions)) > 1:
            raise PackageError(f"calls {i} to {i + count - 1} of the package do not belong together")
        return functions[0], self._span(begin, ends[-1]), sizes

    def alike(self, i: int, count: int, size: int) -> int:
        """How many of the calls `i … i+count-1`, the first ones and at least one, have the same function and
        together at most `size` bytes of arguments; one where calls have options or parts of their own."""
        if self._options is not None:
            return 1
        if self._parts is not None:
            count = max(
                1, min(count, self._parts.next_owner(self._function_count + i) - self._function_count - i)
            )
        functions, ends = self._entries(i, count)
        if functions[0] == NOT_SENT:
            return 1
        same = next((n for n, function in enumerate(functions) if function != functions[0]), count)
        return max(1, min(same, bisect_right(ends, self._call_end(i - 1) + size)))

    def failed(self, i: int) -> Outcome | None:
        """The outcome of a call that could not be pickled; None for one that runs."""
        (function,), (end,) = self._entries(i, 1)
        if function != NOT_SENT:
            return None
        (outcome,) = iter_outcomes(self._span(self._call_end(i - 1), end))
        return replace(outcome, index=i, body=bytes(outcome.body))

    def options(self, i: int) -> CallOptions | None:
        """How call `i` runs; None where all calls of the package run as their Task says."""
        if self._options is None:
            return None
        if not 0 <= i < self.count:
            raise IndexError(f"call {i} of a package of {self.count}")
        return self._options.of(i)

    @property
    def parts(self) -> Mapping[str, int]:
        """The size of each part, by digest; the parts themselves stand elsewhere."""
        return self._parts.sizes if self._parts is not None else {}

    def parts_of(self, i: int) -> list[str]:
        """The digests of the parts that call `i` needs, those of its function included."""
        if self._parts is None or self.failed(i) is not None:
            return []
        which, _ = self.call(i)
        needed = self._parts.of(which) + self._parts.of(self._function_count + i)
        return list(dict.fromkeys(needed))

    def __len__(self) -> int:
        return self.count

    def __enter__(self) -> "CallPackage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file. Views that were handed out keep it mapped until they are gone."""
        self._data = memoryview(b"")
        self._options = None
        self._parts = None
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                self._map = None

    def _function_end(self, i: int) -> int:
        if i < 0:
            return len(_MAGIC)
        (end,) = _FUNCTION_ENTRY.unpack_from(self._data, self._function_index + i * _FUNCTION_ENTRY.size)
        return int(end)

    def _call_end(self, i: int) -> int:
        if i < 0:
            return self._function_end(self._function_count - 1)
        _, end = _CALL_ENTRY.unpack_from(self._data, self._call_index + i * _CALL_ENTRY.size)
        return int(end)

    def _entries(self, i: int, count: int) -> tuple[list[int], list[int]]:
        """Function and end of each of these calls."""
        if i < 0 or not 0 < count <= self.count - i:
            raise IndexError(f"calls {i} to {i + count - 1} of a package of {self.count}")
        begin = self._call_index + i * _CALL_ENTRY.size
        entries = self._data[begin : begin + count * _CALL_ENTRY.size]
        pairs = list(_CALL_ENTRY.iter_unpack(entries))
        return [function for function, _ in pairs], [end for _, end in pairs]

    def _span(self, start: int, end: int) -> memoryview:
        if not len(_MAGIC) <= start <= end <= self._function_index:
            raise PackageError("the package of calls is damaged: an offset lies outside it")
        return self._data[start:end]
