"""The newest known object of each kind, by name and by pool.

Fed from three sides: the watch, the periodic list, and the answers to our own writes. They overtake
one another, so nothing here trusts arrival order: an object replaces another only with a newer
resourceVersion (compared as numbers, which Kubernetes guarantees to be meaningful within a kind), and
a deleted uid never comes back. Objects are shared, not copied: whoever reads one must not change it.
They are kept without `managedFields`, which nobody here reads and which are more than half of a Task.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from skyward.contract.names import KINDS, POOL, Kind

logger = logging.getLogger(__name__)

type Object = dict[str, Any]
type Key = tuple[str, str]
type Subscriber = Callable[[Object | None, Object | None], None]

_TOMBSTONES: Final = 50_000
"""Deleted uids remembered per kind: far more than can be in flight between list, watch and writes."""


@dataclass(slots=True)
class _Shelf:
    objects: dict[Key, Object] = field(default_factory=dict)
    pools: dict[Key, dict[Key, Object]] = field(default_factory=dict)
    tombstones: OrderedDict[str, None] = field(default_factory=OrderedDict)
    subscribers: list[Subscriber] = field(default_factory=list)


class Store:
    """An in-memory mirror of Skyward's objects; belongs to one event loop.

    `synced` is set once every kind was listed completely: before that, absence means nothing.
    """

    def __init__(self, kinds: Sequence[Kind] = KINDS) -> None:
        self._shelves: dict[str, _Shelf] = {kind.plural: _Shelf() for kind in kinds}
        self.kinds: Final = tuple(kinds)
        self.synced: Final = asyncio.Event()

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The newest known object of that name."""
        return self._shelves[kind.plural].objects.get((namespace, name))

    def list(self, kind: Kind, namespace: str | None = None) -> Sequence[Object]:
        """All known objects of a kind, or those of one namespace."""
        objects = self._shelves[kind.plural].objects
        return [obj for (place, _), obj in objects.items() if namespace in (None, place)]

    def by_pool(self, kind: Kind, namespace: str, pool: str) -> Sequence[Object]:
        """The nodes or tasks that belong to a pool by `spec.poolRef.name`; of pools, the one itself."""
        return [*self._shelves[kind.plural].pools.get((namespace, pool), {}).values()]

    def count(self, kind: Kind) -> int:
        """How many objects of a kind are known."""
        return len(self._shelves[kind.plural].objects)

    def subscribe(self, kind: Kind, callback: Subscriber) -> None:
        """Call `callback(old, new)` on every change: old is None for a new object, new for a deleted one.

        Objects that are known already are not replayed. Callbacks must return at once.
        """
        self._shelves[kind.plural].subscribers.append(callback)

    def put(self, kind: Kind, obj: Object) -> bool:
        """Take in an object; False where the store knows better, or does not hold its kind."""
        shelf = self._shelves.get(kind.plural)
        if shelf is None:
            return False
        if not self.is_news(kind, obj):
            return False
        obj["metadata"].pop("managedFields", None)
        uid, key = uid_of(obj), key_of(obj)
        old = shelf.objects.get(key)
        if old is not None and uid_of(old) != uid:
            # Deleted and created again between two looks: subscribers get to see both halves.
            self._take_out(kind, shelf, key, old)
            old = None
        shelf.objects[key] = obj
        if old is not None and (before := _pool_of(kind, old)) not in (None, _pool_of(kind, obj)):
            _leave(shelf, before, key)
        if (pool := _pool_of(kind, obj)) is not None:
            shelf.pools.setdefault(pool, {})[key] = obj
        _tell(shelf, old, obj)
        return True

    def is_news(self, kind: Kind, obj: Object) -> bool:
        """Whether the object is newer than what is known of it."""
        shelf = self._shelves[kind.plural]
        old = shelf.objects.get(key_of(obj))
        return uid_of(obj) not in shelf.tombstones and (old is None or version_of(obj) > version_of(old))

    def remove(self, kind: Kind, namespace: str, name: str, uid: str) -> bool:
        """The object with that uid is gone for good; False where it was not known."""
        shelf = self._shelves.get(kind.plural)
        if shelf is None:
            return False
        key = (namespace, name)
        old = shelf.objects.get(key)
        if old is None or uid_of(old) != uid:
            _remember(shelf, uid)
            return False
        self._take_out(kind, shelf, key, old)
        return True

    def replace(
        self, kind: Kind, objects: Iterable[Object], resource_version: str, namespace: str | None = None
    ) -> Difference:
        """Take in a complete list made at `resource_version`, in which absence means deletion.

        With a namespace the list speaks for that namespace only. What the store learnt after that
        version (by watch or by own writes) stays.
        """
        shelf = self._shelves[kind.plural]
        listed: set[str] = set()
        newer = 0
        for obj in objects:
            listed.add(uid_of(obj))
            newer += self.put(kind, obj)
        gone = [
            obj
            for (place, _), obj in shelf.objects.items()
            if namespace in (None, place)
            and uid_of(obj) not in listed
            and version_of(obj) <= int(resource_version)
        ]
        for obj in gone:
            self._take_out(kind, shelf, key_of(obj), obj)
        return Difference(newer, len(gone))

    def _take_out(self, kind: Kind, shelf: _Shelf, key: Key, old: Object) -> None:
        _remember(shelf, uid_of(old))
        del shelf.objects[key]
        if (pool := _pool_of(kind, old)) is not None:
            _leave(shelf, pool, key)
        _tell(shelf, old, None)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a complete list taught the store."""

    newer: int
    gone: int

    def __bool__(self) -> bool:
        return bool(self.newer or self.gone)


def uid_of(obj: Object) -> str:
    """`metadata.uid`."""
    return str(obj["metadata"].get("uid", ""))


def version_of(obj: Object) -> int:
    """`metadata.resourceVersion` as the number that it is."""
    return int(obj["metadata"].get("resourceVersion") or 0)


def key_of(obj: Object) -> Key:
    """Namespace and name."""
    metadata = obj["metadata"]
    return str(metadata.get("namespace", "")), str(metadata["name"])


def _pool_of(kind: Kind, obj: Object) -> Key | None:
    namespace, name = key_of(obj)
    if kind.plural == POOL.plural:
        return namespace, name
    pool = ((obj.get("spec") or {}).get("poolRef") or {}).get("name")
    return (namespace, str(pool)) if pool else None


def _leave(shelf: _Shelf, pool: Key | None, key: Key) -> None:
    if pool is not None and (members := shelf.pools.get(pool)) is not None:
        members.pop(key, None)
        if not members:
            del shelf.pools[pool]


def _remember(shelf: _Shelf, uid: str) -> None:
    shelf.tombstones[uid] = None
    while len(shelf.tombstones) > _TOMBSTONES:
        shelf.tombstones.popitem(last=False)


def _tell(shelf: _Shelf, old: Object | None, new: Object | None) -> None:
    for subscriber in _each(shelf.subscribers):
        try:
            subscriber(old, new)
        except Exception:
            # One part's mistake must not make the others deaf to the same event.
            logger.exception("a subscriber failed on %s", key_of(new or old or {"metadata": {"name": "?"}}))


def _each(subscribers: list[Subscriber]) -> Iterator[Subscriber]:
    yield from tuple(subscribers)
