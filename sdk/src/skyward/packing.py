"""Calls to bytes: each function once, the arguments of each call apart, so that nobody has to open them.

Functions are pickled anew for each operator expression, because what they refer to may have changed since
the last one (a global in a notebook); the digest of the bytes is what the node caches by.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from skyward.errors import ArgumentTooLarge, NotPicklable
from skyward.functions import Function, PendingFunction
from skyward.wire import codec
from skyward.wire.errors import NotPicklable as WireNotPicklable
from skyward.wire.options import CallOptions
from skyward.wire.package import pack_calls

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


def pack(
    members: Sequence[PendingFunction[Any]],
    limit: int | None = None,
    options: Sequence[CallOptions] = (),
) -> bytes:
    """The package of `members`. Raises NotPicklable (naming the part) or ArgumentTooLarge."""
    limit = package_limit() if limit is None else limit
    functions: list[bytes] = []
    index_of: dict[int, int] = {}
    for member in members:
        if id(member.function) not in index_of:
            index_of[id(member.function)] = len(functions)
            functions.append(_function(member.function, member.name))
    return pack_calls(functions, _calls(members, index_of, limit, sum(map(len, functions))), options)


def pack_each(
    described: Function[..., Any], items: Iterable[Any], limit: int | None = None
) -> tuple[bytes, int]:
    """The package of one call of `described` per item, and how many those are; takes the items one by one.

    Raises TypeError if the function cannot be called with one item, else as `pack`.
    """
    limit = package_limit() if limit is None else limit
    function = _function(described.fn, described.__name__)
    count = 0

    def calls() -> Iterator[tuple[int, bytes]]:
        nonlocal count
        taken = len(function)
        for item in items:
            if not count:
                described(item)  # one item fits the signature as well as any other
            try:
                arguments = codec.dumps(((item,), _NO_KEYWORDS))
            except (WireNotPicklable, MemoryError):
                _arguments(described(item), count)  # it says what is wrong
                raise
            taken += len(arguments)
            if taken > limit:
                raise too_large(described.__name__, taken, limit)
            count += 1
            yield 0, arguments

    return pack_calls([function], calls()), count


def pack_function(member: PendingFunction[Any]) -> bytes:
    """The function of a call. Raises NotPicklable, naming the part."""
    return _function(member.function, member.name)


def pack_arguments(member: PendingFunction[Any], position: int | None = None) -> bytes:
    """The arguments of a call, or of one of many. Raises NotPicklable, naming the part."""
    return _arguments(member, position)


def _function(function: Callable[..., Any], name: str) -> bytes:
    try:
        return codec.dumps_function(function)
    except WireNotPicklable as error:
        raise NotPicklable(
            f"{name}() cannot be sent to a node: {error}",
            remedy="create that object inside the function, or pass what it is made from as an argument",
        ) from None


def _calls(
    members: Sequence[PendingFunction[Any]], index_of: dict[int, int], limit: int, taken: int
) -> Iterator[tuple[int, bytes]]:
    for position, member in enumerate(members):
        arguments = _arguments(member, position if len(members) > 1 else None)
        taken += len(arguments)
        if taken > limit:
            raise too_large(member.name, taken, limit)
        yield index_of[id(member.function)], arguments


def _arguments(member: PendingFunction[Any], position: int | None) -> bytes:
    try:
        return codec.dumps((member.args, dict(member.kwargs)))
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
