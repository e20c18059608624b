"""Finding the part of an object that cannot be pickled, so that the message can name it.

"cannot pickle '_thread.lock' object" helps nobody; "argument 'model' .optimizer._lock" does. The search runs
only after pickling failed, is bounded in depth and width, and uses the failing pickler itself as its oracle.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

_DEPTH = 6
_WIDTH = 200


def blame(obj: Any, can_pickle: Callable[[Any], bool], path: str = "") -> str:
    """The path from `obj` to the smallest part of it that `can_pickle` refuses, and that part's type."""
    for _ in range(_DEPTH):
        for step, part in _parts(obj):
            if part is not obj and not can_pickle(part):
                path, obj = f"{path}{step}" if path else step.lstrip("."), part
                break
        else:
            break
    kind = _kind(obj)
    return f"{path} ({kind})" if path else f"{kind}"


def _kind(obj: Any) -> str:
    cls = type(obj)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"a {name}"


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    for step, part in itertools.islice(_all_parts(obj), _WIDTH):
        if not isinstance(part, str | bytes | int | float | bool | None):
            yield step, part


def _all_parts(obj: Any) -> Iterator[tuple[str, Any]]:
    match obj:
        case dict():
            yield from ((f"[{key!r}]", value) for key, value in obj.items())
        case list() | tuple() | set() | frozenset():
            yield from ((f"[{position}]", value) for position, value in enumerate(obj))
        case FunctionType():
            yield from _referred(obj)
        case MethodType():
            yield ".__self__", obj.__self__
        case functools.partial():
            yield from ((".func", obj.func), (".args", obj.args), (".keywords", obj.keywords))
        case type():
            return
        case _:
            yield from ((f".{name}", value) for name, value in getattr(obj, "__dict__", {}).items())


def _referred(fn: FunctionType) -> Iterator[tuple[str, Any]]:
    try:
        variables = inspect.getclosurevars(fn)
    except ValueError:  # an empty cell: a name that is not bound yet
        return
    for name, value in variables.nonlocals.items():
        yield f", its variable {name!r}", value
    for name, value in variables.globals.items():
        yield f", its global {name!r}", value
    for position, value in enumerate(fn.__defaults__ or ()):
        yield f", its default argument {position}", value
