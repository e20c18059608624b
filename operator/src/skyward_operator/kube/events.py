"""Kubernetes events about Skyward's objects: what `kubectl describe` shows under Events.

Events are for people and may be lost: emitting one never waits and never fails, the memory for them
is bounded, and a storm of equal ones becomes one event with a count.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from skyward_operator.engine.clock import timestamp
from skyward_operator.kube.connection import Patience
from skyward_operator.kube.errors import ApiError, NotFound
from skyward_operator.kube.kinds import EVENT

if TYPE_CHECKING:
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api
    from skyward_operator.metrics import Metrics

logger = logging.getLogger(__name__)

type EventType = Literal["Normal", "Warning"]
type _Key = tuple[str, str, str, str]

_COMPONENT: Final = "skyward-operator"
_WAITING: Final = 1_000
_REMEMBERED: Final = 2_000
_LONGEST_MESSAGE: Final = 1_000  # the API server takes 1,024 characters
_REPEAT_SECONDS: Final = 10.0
_PATIENCE: Final = Patience(attempt=5.0, deadline=10.0)


@dataclass(slots=True)
class _Record:
    involved: dict[str, Any]
    first: str
    last: str
    count: int = 0
    name: str = ""
    written: float = float("-inf")


class Events:
    """Collects events and writes them in the background; `run()` must be running for that."""

    def __init__(self, api: Api, clock: Clock, *, metrics: Metrics | None = None) -> None:
        self._api = api.with_patience(_PATIENCE)
        self._clock = clock
        self._metrics = metrics
        self._records: OrderedDict[_Key, _Record] = OrderedDict()
        self._waiting: OrderedDict[_Key, None] = OrderedDict()
        self._wake = asyncio.Event()

    def emit(self, obj: dict[str, Any], type: EventType, reason: str, message: str) -> None:
        """Tell people that something happened to `obj`; returns at once."""
        message = message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"
        key = (str(obj["metadata"].get("uid", "")), type, reason, message)
        now = timestamp(self._clock.now())
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record(_reference(obj), first=now, last=now)
        record.count += 1
        record.last = now
        self._records.move_to_end(key)
        self._waiting[key] = None
        self._bound()
        self._wake.set()

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            key = self._next()
            if key is None:
                self._wake.clear()
                if self._waiting:
                    # Only repeats that were written a moment ago: let them add up.
                    await self._clock.sleep(1.0)
                else:
                    await self._wake.wait()
                continue
            del self._waiting[key]
            await self._write(key, self._records[key])

    def _next(self) -> _Key | None:
        now = self._clock.monotonic()
        for key in self._waiting:
            if now - self._records[key].written >= _REPEAT_SECONDS:
                return key
        return None

    async def _write(self, key: _Key, record: _Record) -> None:
        record.written = self._clock.monotonic()
        namespace = str(record.involved.get("namespace") or "default")
        try:
            if record.name:
                try:
                    seen = {"count": record.count, "lastTimestamp": record.last}
                    await self._api.patch(EVENT, namespace, record.name, seen)
                    return
                except NotFound:
                    pass  # the API server keeps events for an hour
            name = f"{record.involved['name'][:200]}.{uuid.uuid4().hex[:16]}"
            await self._api.create(EVENT, _body(key, record, namespace, name))
            record.name = name
        except ApiError as error:
            self._drop()
            logger.debug("an event was not written: %s", error)

    def _bound(self) -> None:
        while len(self._waiting) > _WAITING:
            self._waiting.popitem(last=False)
            self._drop()
        while len(self._records) > _REMEMBERED:
            oldest, _ = self._records.popitem(last=False)
            self._waiting.pop(oldest, None)

    def _drop(self) -> None:
        if self._metrics is not None:
            self._metrics.events_dropped.inc()


def _reference(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = obj["metadata"]
    fields = {"name": metadata["name"], "namespace": metadata.get("namespace"), "uid": metadata.get("uid")}
    kind = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind")}
    return {key: value for key, value in (kind | fields).items() if value}


def _body(key: _Key, record: _Record, namespace: str, name: str) -> dict[str, Any]:
    _, type_, reason, message = key
    return {
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": record.involved,
        "type": type_,
        "reason": reason,
        "message": message,
        "firstTimestamp": record.first,
        "lastTimestamp": record.last,
        "count": record.count,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": _COMPONENT,
    }
