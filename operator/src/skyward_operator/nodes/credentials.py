"""The data of the Secrets that candidates refer to, read at most once in a few seconds each.

A step of a node that talks to a provider needs its credentials, and there are many steps in a second. The
operator watches no Secrets: that would take the right to read all of them. So what was read is used for a
short while, also that there is none: a Secret that was changed, deleted or made is seen within SHORT_SECONDS.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skyward_operator.kube.errors import NotFound
from skyward_operator.kube.kinds import SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api

SHORT_SECONDS = 5.0

type Place = tuple[str, str]
"""Namespace and name."""


@dataclass(slots=True)
class _Known:
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    until: float = float("-inf")
    data: Mapping[str, str] | None = field(default=None, repr=False)


class Credentials:
    """What Secrets hold, as it was a moment ago; belongs to one event loop."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[Place, _Known] = {}

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """The data, decoded; None where there is no such Secret. Raises ApiError, which is not remembered."""
        known = self._known.setdefault((namespace, name), _Known())
        async with known.reading:  # those who ask meanwhile get the same answer
            if self._clock.monotonic() >= known.until:
                began = self._clock.monotonic()
                known.data = await self._ask(namespace, name)
                known.until = began + SHORT_SECONDS
                self._forget_old()
            return known.data

    async def _ask(self, namespace: str, name: str) -> Mapping[str, str] | None:
        try:
            secret = await self._api.get(SECRET, namespace, name)
        except NotFound:
            return None
        return {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}

    def _forget_old(self) -> None:
        """Keep no credentials in memory that nobody asks for."""
        now = self._clock.monotonic()
        kept = {
            place: each for place, each in self._known.items() if each.reading.locked() or now < each.until
        }
        self._known = kept
