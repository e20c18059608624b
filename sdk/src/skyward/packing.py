"""Calls to bytes: each function once, the arguments of each call apart, so that nobody has to open them.

Large arguments are not copied: they stand apart, and are sent from where they lie. Functions are pickled anew
for each operator expression, because what they refer to may have changed since the last one (a global in a
notebook); the digest of the bytes is what the node caches by.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from skyward.errors import ArgumentTooLarge, NotPicklable
from skyward.functions import Function, PendingFunction
from skyward.wire import codec
from skyward.wire.apart import Apart
from skyward.wire.digest import BytesLike
from skyward.wire.envelopes import ErrorInfo, FailureReason
from skyward.wire.errors import NotPicklable as WireNotPicklable
from skyward.wire.options import CallOptions
from skyward.wire.package import NOT_SENT, Outcome, PartsIndex, pack_calls, pack_outcomes
from skyward.wire.parts import Part

PACKAGE_LIMIT = 16 * 2**30
"""Bytes of one Task's calls; more belongs into a volume or an object store."""
LIMIT_VARIABLE = "SKYWARD_LARGEST_PAYLOAD"
"""Sets another limit, here and (as the operator's setting of the same name) in the gateway."""

_NO_KEYWORDS: dict[str, Any] = {}


def package_limit() -> int:
    """How many bytes the calls of one Task may take. Raises ValueError for a setting that is no number."""
    given = os.environ.get(LIMIT_VARIABLE)
    if not given:
        return PACKAGE_LIMIT
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"{LIMIT_VARIABLE}={given!r} must be a whole number of bytes, at least 1")
    return int(given)


@dataclass(frozen=True, slots=True)
class Packed:
    """The calls of one Task: their package, and the large parts of arguments that it refers to."""

    package: bytes
    parts: tuple[Part, ...] = ()

    @property
    def pieces(self) -> list[BytesLike]:
        """The payload: the package and behind it all that it refers to, in its order."""
        return [self.package, *(piece for part in self.parts for piece in part.pieces)]


def pack(
    members: Sequence[PendingFunction[Any]],
    limit: int | None = None,
    options: Sequence[CallOptions] = (),
) -> Packed:
    """The package of `members`. Raises NotPicklable (naming the part) or ArgumentTooLarge.

    Of several calls, one whose arguments cannot be pickled fails alone, when its turn comes.
    """
    limit = package_limit() if limit is None else limit
    apart, index = Apart(), PartsIndex()
    functions: list[bytes] = []
    index_of: dict[int, int] = {}
    taken = 0
    for member in members:
        if id(member.function) not in index_of:
            place = index_of[id(member.function)] = len(functions)
            function, parts = _function(member.function, member.name, apart)
            functions.append(function)
            taken += len(function) + index.need(place, parts)

    def calls() -> Iterator[tuple[int, bytes]]:
        nonlocal taken
        for position, member in enumerate(members):
            which = index_of[id(member.function)]
            try:
                arguments, parts = _arguments(member, position if len(members) > 1 else None, apart)
            except NotPicklable as error:
                if len(members) == 1:
                    raise
                which, arguments, parts = NOT_SENT, _failed(position, error), []
            taken += len(arguments) + index.need(len(functions) + position, parts)
            if taken > limit:
                raise too_large(member.name, taken, limit)
            yield which, arguments

    package = pack_calls(functions, calls(), options, index)
    return Packed(package, tuple(index.parts.values()))


def pack_each(
    described: Function[..., Any], items: Iterable[Any], limit: int | None = None
) -> tuple[Packed, int]:
    """The package of one call of `described` per item, and how many those are; takes the items one by one.

    Large items of a list or tuple are sent from where they lie; others may make each item out of the one
    before. Raises TypeError if the function cannot be called with one item, else as `pack`; but an item that
    cannot be pickled always fails alone.
    """
    limit = package_limit() if limit is None else limit
    apart, index = Apart(steady=isinstance(items, list | tuple)), PartsIndex()
    function, parts = _function(described.fn, described.__name__, apart)
    count = 0

    def calls() -> Iterator[tuple[int, bytes]]:
        nonlocal count
        taken = len(function) + index.need(0, parts)
        for item in items:
            if not count:
                described(item)  # one item fits the signature as well as any other
            which = 0
            try:
                arguments, needed = codec.dumps_apart(((item,), _NO_KEYWORDS), apart)
            except (WireNotPicklable, MemoryError):
                try:
                    arguments, needed = _arguments(described(item), count, apart)  # it says what is wrong
                except NotPicklable as error:
                    which, arguments, needed = NOT_SENT, _failed(count, error), []
            taken += len(arguments) + index.need(1 + count, needed)
            if taken > limit:
                raise too_large(described.__name__, taken, limit)
            count += 1
            yield which, arguments

    package = pack_calls([function], calls(), parts=index)
    return Packed(package, tuple(index.parts.values())), count


def not_sent(position: int, error: NotPicklable) -> Outcome:
    """The outcome of a call whose arguments cannot be sent."""
    reason = FailureReason.NOT_PICKLABLE
    info = ErrorInfo("NotPicklable", error.message, "skyward.errors", kind="System", reason=reason)
    return Outcome(position, False, b"", info)


def _failed(position: int, error: NotPicklable) -> bytes:
    """What stands in a package for the arguments of a call that cannot be sent."""
    return pack_outcomes([not_sent(position, error)])


def pack_function(member: PendingFunction[Any]) -> bytes:
    """The function of a call. Raises NotPicklable, naming the part."""
    return _function(member.function, member.name)[0]


def pack_arguments(member: PendingFunction[Any], position: int | None = None) -> bytes:
    """The arguments of a call, or of one of many. Raises NotPicklable, naming the part."""
    return _arguments(member, position)[0]


def _function(
    function: Callable[..., Any], name: str, apart: Apart | None = None
) -> tuple[bytes, list[Part]]:
    try:
        if apart is None:
            return codec.dumps_function(function), []
        return codec.dumps_function_apart(function, apart)
    except WireNotPicklable as error:
        raise NotPicklable(
            f"{name}() cannot be sent to a node: {error}",
            remedy="create that object inside the function, or pass what it is made from as an argument",
        ) from None


def _arguments(
    member: PendingFunction[Any], position: int | None, apart: Apart | None = None
) -> tuple[bytes, list[Part]]:
    arguments = member.args, dict(member.kwargs)
    try:
        return (codec.dumps(arguments), []) if apart is None else codec.dumps_apart(arguments, apart)
    except WireNotPicklable as error:
        which = f"call {position} of {member.name}()" if position is not None else f"{member.name}()"
        raise NotPicklable(
            f"an argument of {which} cannot be sent to a node: {_named(member, error)}",
            remedy="pass plain data (arrays, numbers, text, paths) and open files, locks and connections "
            "inside the function",
        ) from None
    except MemoryError as error:
        raise too_large(member.name, None, package_limit()) from error


def _named(member: PendingFunction[Any], error: WireNotPicklable) -> str:
    """Say which argument it is by trying one at a time; the codec says which part of it."""
    arguments = [(f"argument {i + 1}", value) for i, value in enumerate(member.args)]
    arguments += [(f"argument {key!r}", value) for key, value in member.kwargs.items()]
    for name, value in arguments:
        try:
            codec.dumps(value)
        except WireNotPicklable as problem:
            return f"{name}: {problem}"
    return str(error)


def too_large(name: str, size: int | None, limit: int) -> ArgumentTooLarge:
    """The error for arguments over the limit."""
    amount = f"{size:,} bytes" if size is not None else "more than the memory"
    return ArgumentTooLarge(
        f"argument too large: the function and arguments of {name}() take {amount}; "
        f"one task may take {limit:,} bytes",
        remedy="put the data into a volume or object store and pass its place, send it in several calls, "
        f"or raise {LIMIT_VARIABLE} here and for the operator",
    )
