"""JSON merge patch (RFC 7386), worked out on this side: to know what a write would change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`target` after the merge patch; neither argument is changed."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def contains(whole: object, part: object) -> bool:
    """Whether `whole` holds everything that `part` does; defaults and fields of others may come on top."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            value is None or (key in whole and contains(whole[key], value)) for key, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(whole) == len(part)
            and all(contains(ours, theirs) for ours, theirs in zip(whole, part, strict=True))
        )
    return bool(whole == part)
