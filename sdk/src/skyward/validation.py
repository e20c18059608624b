"""Checks of what a person wrote: each error names the field, the value, and what is allowed.

Used where specs are constructed, so that a mistake costs no machine. Never used on data from the cluster.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any


def strict[C](cls: type[C]) -> type[C]:
    """Class decorator: an unknown keyword argument raises a TypeError that names the nearest known field."""
    known = tuple(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    init: Callable[..., None] = cls.__init__

    def checked(self: C, *args: Any, **kwargs: Any) -> None:
        reject_unknown(type(self).__name__, kwargs, known)
        init(self, *args, **kwargs)

    checked.__doc__ = init.__doc__
    checked.__wrapped__ = init  # type: ignore[attr-defined]
    cls.__init__ = checked  # type: ignore[method-assign, assignment]
    return cls


def reject_unknown(
    where: str,
    given: Iterable[str],
    known: Collection[str],
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raise TypeError for the first name in `given` that is not in `known`.

    `elsewhere` says, for names that people try, how the same thing is written here.
    """
    for name in given:
        if name not in known:
            hint = nearest(name, known)
            if name in elsewhere:
                hint = f"; write {elsewhere[name]}."
            raise TypeError(
                f"{where}() has no field {name!r}{hint or '.'} It takes: {', '.join(sorted(known))}"
            )


def nearest(name: str, known: Collection[str], cutoff: float = 0.75) -> str:
    """`; did you mean …?` for a name that is nearly one of `known`, or how only one begins; else nothing."""
    close = get_close_matches(name, known, n=1, cutoff=cutoff)
    longer = [each for each in known if each.startswith(name)]
    if not close and len(name) > 2 and len(longer) == 1:
        close = longer
    return f"; did you mean {close[0]!r}?" if close else ""


def integer(field: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """`value` as an int within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field} must be a whole number, got {value!r} ({type(value).__name__})")
    _bounded(field, value, minimum, maximum)
    return value


def number(field: str, value: Any, *, minimum: float | None = None, maximum: float | None = None) -> float:
    """`value` as a finite number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field} must be a number, got {value!r} ({type(value).__name__})")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{field} must be a finite number, got {value!r}")
    _bounded(field, value, minimum, maximum)
    return value


def text(field: str, value: Any, *, pattern: str | None = None, example: str = "") -> str:
    """`value` as a non-empty string of the given form."""
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a string, got {value!r} ({type(value).__name__})")
    if not value or (pattern is not None and not re.fullmatch(pattern, value)):
        raise ValueError(
            f"{field}={value!r} is not valid" + (f"; write it like {example!r}" if example else "")
        )
    return value


def one_of(field: str, value: Any, allowed: Sequence[str]) -> str:
    """`value` if it is one of `allowed`."""
    if not isinstance(value, str):
        choices = ", ".join(map(repr, allowed))
        raise TypeError(f"{field} must be one of {choices}, got {value!r} ({type(value).__name__})")
    if value in allowed:
        return value
    choices = ", ".join(map(repr, allowed))
    raise ValueError(f"{field}={value!r} is not one of {choices}{nearest(value, allowed, cutoff=0.6)}")


def texts(field: str, value: Any) -> tuple[str, ...]:
    """A list or tuple of non-empty strings, as a tuple."""
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise TypeError(
            f"{field} must be a list of strings, got {value!r}; write it like ['numpy', 'pandas']"
        )
    return tuple(text(f"{field}[{position}]", item) for position, item in enumerate(value))


def mapping(field: str, value: Any) -> dict[str, str]:
    """A mapping of strings to strings, as a dict."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{field} must be a dict of strings, got {value!r}")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise TypeError(f"{field} must be a dict of strings, got {key!r}: {item!r} in it")
    return dict(value)


def instance[T](field: str, value: Any, kind: type[T], example: str) -> T:
    """`value` if it is a `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{field} must be like {example}, got {value!r} ({type(value).__name__})")
    return value


def _bounded(field: str, value: float, minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and value < minimum:
        raise ValueError(f"{field} must be at least {minimum}, got {value!r}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{field} must be at most {maximum}, got {value!r}")
