"""One thread that keeps a set of objects current: a list, then watches with bookmarks.

The invariant: `on_object` sees the newest state of every object at least once, in order of its resource
version, and `on_gone` sees every object that was seen and is no more, whatever was missed in between (a
list after `410 Gone` or after a restart of the API server is compared with what was known).
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from skyward.cluster.api import Api, ApiError
from skyward.cluster.cutter import Cutter
from skyward.contract.names import Kind
from skyward.errors import SkywardError

SILENCE_SECONDS = 70.0
"""The API server sends a bookmark about every minute: more silence than this is a dead connection."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
_EXPIRED = 410
_RECONNECT_AFTER = 3

type OnObject = Callable[[dict[str, Any]], None]
type OnTrouble = Callable[[str | None], None]


class Watch:
    """Keeps objects of one kind, selected by label or field, current in `objects`."""

    def __init__(
        self,
        api: Api,
        kind: Kind,
        namespace: str,
        *,
        on_object: OnObject,
        on_gone: OnObject,
        on_trouble: OnTrouble,
        selectors: Mapping[str, str],
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self._api = api
        self._kind = kind
        self._namespace = namespace
        self._selectors = selectors
        self._on_object = on_object
        self._on_gone = on_gone
        self._on_trouble = on_trouble
        self._silence = silence
        self._stopped = threading.Event()
        self._cutter = Cutter()
        self._listed = threading.Event()
        self._failure: Exception | None = None
        self._version: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"skyward-watch-{kind.plural}", daemon=True)

    def start(self) -> "Watch":
        """Begin; returns after the first list, so nothing created from here on is missed."""
        self._thread.start()
        self._listed.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        """End, without waiting for the thread; nothing is reported any more."""
        self._stopped.set()
        self._cutter.cut()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                if self._version is None:
                    self._list()
                self._follow()
                failures = 0
            except (SkywardError, RuntimeError) as error:  # RuntimeError: the client was closed or replaced
                if self._stopped.is_set() or self._is_fatal(error):
                    return
                if isinstance(error, ApiError) and error.status == _EXPIRED:
                    self._version = None
                    continue
                self._recover(error, failures)
                failures += 1

    def _is_fatal(self, error: Exception) -> bool:
        """Before the first list every refusal is the caller's to hear; later ones are waited out."""
        if self._listed.is_set():
            return False
        self._failure = error
        self._listed.set()
        return True

    def _recover(self, error: Exception, failures: int) -> None:
        self._on_trouble(error.message if isinstance(error, SkywardError) else str(error))
        if failures >= _RECONNECT_AFTER:
            self._reconnect()
        self._stopped.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])

    def _reconnect(self) -> None:
        server = self._api.connection.server
        try:
            self._api.reconnect()
        except SkywardError as error:
            self._on_trouble(error.message)
        if self._api.connection.server != server:
            self._version = None

    def _list(self) -> None:
        items, version = self._api.list(self._kind, self._namespace, **self._selectors)
        listed = {item["metadata"]["name"]: item for item in items}
        known = self.objects
        for name, old in list(known.items()):
            if name not in listed or _uid(listed[name]) != _uid(old):
                del known[name]
                self._on_gone(old)
        for name, item in listed.items():
            if name not in known or _version(known[name]) != _version(item):
                known[name] = item
                self._on_object(item)
        self._version = version
        self._listed.set()

    def _follow(self) -> None:
        query = {"resourceVersion": self._version or "", "timeoutSeconds": "290", **self._selectors}
        began = time.monotonic()
        for line in self._api.watch_lines(
            self._kind, self._namespace, query, self._silence, self._cutter, self._opened
        ):
            if self._stopped.is_set():
                return
            self._take(json.loads(line))
        if time.monotonic() - began < _PAUSES[0]:  # a server that ends watches at once must not be hammered
            self._stopped.wait(_PAUSES[1])

    def _opened(self) -> None:
        self._on_trouble(None)

    def _take(self, event: dict[str, Any]) -> None:
        item = event["object"]
        match event["type"]:
            case "BOOKMARK":
                pass
            case "ERROR":
                raise ApiError(item.get("message", "watch error"), status=int(item.get("code", 500)))
            case "DELETED":
                self.objects.pop(item["metadata"]["name"], None)
                self._on_gone(item)
            case _:
                self.objects[item["metadata"]["name"]] = item
                self._on_object(item)
        self._version = item["metadata"]["resourceVersion"]


def _uid(item: dict[str, Any]) -> str:
    return str(item["metadata"].get("uid", ""))


def _version(item: dict[str, Any]) -> str:
    return str(item["metadata"]["resourceVersion"])
