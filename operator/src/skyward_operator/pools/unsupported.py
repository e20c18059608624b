"""Which fields of a pool this version does not act on. Pure.

A field that is ignored in silence is a promise that nobody keeps: whoever sets a budget must read that there
is none. A field leaves the list in the commit that makes it work.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from skyward.contract.hardware import Candidate
from skyward.contract.meta import camel
from skyward.contract.pool import ComputePoolSpec

if TYPE_CHECKING:
    from skyward.contract.pool import ComputePool

IGNORED: Final = (
    "volumes",
    "plugins",
    "lifetime.linger_seconds",
    "image.includes_digest",
    "image.metrics",
)
"""Attributes of a pool's spec that change nothing, whatever they say."""

_UNTOUCHED: Final = ComputePoolSpec(candidates=(Candidate(name="any", provider="local"),))


def ignored_fields(pool: ComputePool) -> tuple[str, ...]:
    """The fields that the pool sets in vain, as they are written in its spec."""
    asked = [path for path in IGNORED if attrgetter(path)(pool.spec) != attrgetter(path)(_UNTOUCHED)]
    return tuple(".".join(["spec", *map(camel, path.split("."))]) for path in asked)
