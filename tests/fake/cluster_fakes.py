"""An API server and nodes in memory, for the parts of the operator that stand between the two.

`FakeApi` keeps objects as the API server would and tells the store of every change, as the intake does.
`FakeNode` is a node with its agent: it keeps what it was sent and answers when the test says so.
"""

from __future__ import annotations

import asyncio
import copy
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from skyward.contract.names import API_VERSION, NODE, POOL, TASK, Kind
from skyward.wire.envelopes import ErrorInfo, attempt_id, parse_attempt
from skyward.wire.frames import Frame
from skyward.wire.outcomes import Outcome, pack_outcomes
from skyward_operator.context import Context
from skyward_operator.engine.clock import SystemClock
from skyward_operator.engine.supervisor import Supervisor
from skyward_operator.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from skyward_operator.kube.merge import merged
from skyward_operator.kube.store import Store
from skyward_operator.metrics import Metrics
from skyward_operator.nodes.fleet import Fleet, ReadyNode
from skyward_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from skyward.wire.frames import FrameKind

type Object = dict[str, Any]


class FakeApi:
    """Objects by kind and name; each change reaches the store at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.status_writes: list[tuple[str, Object]] = []
        self.failures: list[ApiError] = []
        """Errors that the next writes of status meet, in order."""
        self._version = 100

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """The object; raises NotFound."""
        try:
            return copy.deepcopy(self.objects[kind.plural, namespace or "", name])
        except KeyError:
            raise NotFound(f"{kind.plural} {namespace}/{name} not found", code=404) from None

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        """Create an object with the metadata that the server adds."""
        obj = copy.deepcopy(dict(obj)) | {"apiVersion": API_VERSION, "kind": kind.kind}
        metadata = obj["metadata"]
        key = (kind.plural, metadata["namespace"], metadata["name"])
        if key in self.objects:
            raise AlreadyExists(f"{kind.plural} {metadata['name']} exists", code=409)
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("generation", 1)
        metadata.setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        return self._keep(kind, key, obj)

    async def patch_status(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        status: Mapping[str, Any],
        *,
        resource_version: str | None = None,
        current: Mapping[str, Any] | None = None,
    ) -> Object | None:
        """Merge into the status."""
        await asyncio.sleep(0)
        if current is not None and merged(current, status) == dict(current):
            return None
        if self.failures:
            raise self.failures.pop(0)
        obj = await self.get(kind, namespace, name)
        self._check(obj, resource_version)
        obj["status"] = merged(obj.get("status") or {}, status)
        self.status_writes.append((name, copy.deepcopy(dict(status))))
        return self._keep(kind, (kind.plural, namespace, name), obj)

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        *,
        resource_version: str | None = None,
    ) -> Object:
        """Merge into metadata and spec."""
        obj = await self.get(kind, namespace, name)
        self._check(obj, resource_version)
        new = merged(obj, body)
        if new.get("spec") != obj.get("spec"):
            new["metadata"]["generation"] += 1
        key = (kind.plural, namespace or "", name)
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
            self._drop(kind, key)
            return new
        return self._keep(kind, key, new)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
    ) -> None:
        """Delete, or mark as deleted while there are finalizers."""
        key = (kind.plural, namespace or "", name)
        obj = self.objects.get(key)
        if obj is None:
            return
        if uid is not None and obj["metadata"]["uid"] != uid:
            raise Conflict("another uid", code=409)
        if not obj["metadata"].get("finalizers"):
            self._drop(kind, key)
        elif "deletionTimestamp" not in obj["metadata"]:
            obj = copy.deepcopy(obj)
            obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._keep(kind, key, obj)

    def task(self, name: str) -> Object:
        """The Task of that name in the default namespace."""
        return self.objects[TASK.plural, "default", name]

    def status(self, name: str) -> Object:
        """The status of a Task; empty when it has none."""
        return cast("Object", self.task(name).get("status") or {})

    def _check(self, obj: Object, resource_version: str | None) -> None:
        if resource_version not in (None, obj["metadata"]["resourceVersion"]):
            raise Conflict("the object has been modified", code=409)

    def _keep(self, kind: Kind, key: tuple[str, str, str], obj: Object) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = obj
        self.store.put(kind, copy.deepcopy(obj))
        return copy.deepcopy(obj)

    def _drop(self, kind: Kind, key: tuple[str, str, str]) -> None:
        obj = self.objects.pop(key, None)
        if obj is not None:
            self.store.remove(kind, key[1], key[2], obj["metadata"]["uid"])


@dataclass
class FakeNode:
    """A node, its agent and the link to it."""

    fleet: Fleet
    name: str
    rank: int
    slots: int = 1
    python: str = "3.13.1"
    pool: str = "pool"
    boot_id: str = "boot-1"
    functions: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[Object, bytes | None]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """How many calls of a slice are left, from the one that is held on."""
    cancelled: list[str] = field(default_factory=list)
    recalled: list[str] = field(default_factory=list)
    limits: list[tuple[str, float | None]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    passed_on: list[Frame] = field(default_factory=list)
    logged_until: dict[str, int] = field(default_factory=dict)
    refuse: Callable[[Object], str | None] = lambda header: None
    draining: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return "default", self.name

    def up(self) -> None:
        """Answer: take calls from now on."""
        ready = ReadyNode(
            "default",
            self.name,
            self.pool,
            self.rank,
            self.slots,
            self.python,
            f"10.0.0.{self.rank}",
            self.boot_id,
            dict(self.held),
            self.draining,
            {attempt: count for attempt, count in self.counts.items() if attempt in self.held},
        )
        self.fleet.up(self.key, ready, self)

    def down(self) -> None:
        """Lose the connection, with everything running."""
        self.fleet.down(self.key)

    def die(self, reason: str = "MachineLost") -> None:
        """Be given up for good."""
        self.held.clear()
        self.counts.clear()
        self.fleet.lost(self.key, reason)

    def waiting(self) -> list[str]:
        """The attempts that it holds and has not ended."""
        return [attempt for attempt, state in self.held.items() if state == "running"]

    def items(self) -> list[tuple[int, int]]:
        """Index and attempt number of every call that it was sent."""
        sent = [(header, len(header.get("sizes", [0]))) for header, _ in self.calls]
        return [(header["index"] + place, header["number"]) for header, n in sent for place in range(n)]

    def finish(
        self, attempt: str | None = None, body: bytes = b"", error: Object | None = None, **more: Any
    ) -> str:
        """End an attempt (the oldest by default) with a value or an error; of a slice, the first call."""
        attempt = attempt or self.waiting()[0]
        if attempt in self.counts:
            return self.finish_some(attempt, [(body, error)], **more)
        self.held[attempt] = "done"
        header = {
            "attempt": attempt,
            "ok": error is None,
            "started": time.time(),
            "duration": 0.001,
            "size": len(body),
            "chunked": False,
        } | more
        if error is not None:
            header["error"] = error
        self.fleet.listener.result("default", self.name, header, body)
        return attempt

    def finish_some(
        self, attempt: str, ends: Sequence[tuple[bytes, Object | None]], duration: float = 0.001, **more: Any
    ) -> str:
        """End the first calls of a slice, in one batch."""
        uid, first, number = parse_attempt(attempt)
        began, records = time.time(), []
        for index, (body, error) in enumerate(ends, first):
            info = ErrorInfo.from_json(error) if error is not None else None
            name, start = attempt_id(uid, index, number), began + (index - first) * duration
            made = Outcome(index, error is None, body, info, self.name, self.rank, name, start, duration)
            records.append(pack_outcomes([made]))
        header = {
            "attempt": attempt,
            "count": len(ends),
            "failed": [place for place, (_, error) in enumerate(ends) if error is not None],
            "lengths": [len(record) for record in records],
        }
        rest = self._rest(attempt, len(ends))
        if rest is not None:
            self.held[rest] = "running"
        self.held[attempt], self.counts[attempt] = "done", len(ends)
        self.fleet.listener.result("default", self.name, header | more, b"".join(records))
        return attempt

    def give_back(self, attempt: str, begun: int = 0) -> None:
        """Return what has not begun of a slice, or a call that waits."""
        count = self.counts.setdefault(attempt, 1) - begun
        back = attempt if begun == 0 else self._rest(attempt, begun)
        assert back is not None
        self.counts.pop(back)
        if begun:
            self.counts[attempt] = begun
        else:
            del self.held[attempt]
        answer = {"attempt": back, "count": count, "reason": "Returned", "message": "", "refused": True}
        self.fleet.listener.result("default", self.name, answer, b"")

    def _rest(self, attempt: str, count: int) -> str | None:
        """The name of what is left of a slice behind so many calls."""
        uid, first, number = parse_attempt(attempt)
        left = self.counts.pop(attempt, 1) - count
        if left < 1:
            return None
        rest = attempt_id(uid, first + count, number)
        self.counts[rest] = left
        return rest

    # nodes.fleet.Link

    def ensure_function(self, digest: str, data: bytes) -> None:
        """Keep a function."""
        self.functions[digest] = data

    def send_call(self, header: Mapping[str, Any], args: bytes | None) -> None:
        """Hold a call, unless it is known or refused."""
        attempt = header["attempt"]
        self.calls.append((dict(header), args))
        reason = "Duplicate" if attempt in self.held else self.refuse(dict(header))
        if reason is None:
            self.held[attempt] = "running"
            if "sizes" in header:
                assert sum(header["sizes"]) == len(args or b"")
                self.counts[attempt] = len(header["sizes"])
            return
        answer = {"attempt": attempt, "ok": False, "refused": True, "reason": reason, "message": "no"}
        asyncio.get_running_loop().call_soon(self.fleet.listener.result, "default", self.name, answer, b"")

    def send_blob(self, digest: str, chunks: Iterable[bytes], size: int) -> None:
        """Keep a blob."""
        self.blobs[digest] = b"".join(chunks)
        assert len(self.blobs[digest]) == size

    def cancel(self, attempt: str, grace: float) -> None:
        """Note what is to be cancelled; the test ends it."""
        self.cancelled.append(attempt)

    def pass_on(self, frame: Frame) -> None:
        """Keep a frame of a stream."""
        self.passed_on.append(frame)

    def streams(self, kind: FrameKind, attempt: str | None = None, body: bytes = b"", **header: Any) -> None:
        """Say a frame of a stream of an attempt (the oldest by default)."""
        frame = Frame(kind, {"attempt": attempt or self.waiting()[0], **header}, body)
        self.fleet.listener.streamed("default", self.name, frame)

    def recall(self, attempt: str) -> None:
        """Note what is asked back; the test returns it."""
        self.recalled.append(attempt)

    def limit(self, attempt: str, timeout: float | None) -> None:
        """Note how long an attempt may run now."""
        self.limits.append((attempt, timeout))

    def logged(self, attempts: Mapping[str, int]) -> None:
        """Forget output."""
        self.logged_until.update(attempts)

    def ack(self, attempts: Sequence[str]) -> None:
        """Forget results."""
        self.acknowledged += attempts
        for attempt in attempts:
            self.held.pop(attempt, None)
            self.counts.pop(attempt, None)

    def index_of(self, attempt: str) -> int:
        """The index of an attempt's call."""
        return parse_attempt(attempt)[1]


@asynccontextmanager
async def fake_context(
    folder: Path, api: FakeApi | None = None, **settings: Any
) -> AsyncIterator[tuple[Context, FakeApi]]:
    """A context over a fake API server. With `api`: another operator on the same objects."""
    store = Store()
    if api is None:
        api = FakeApi(store)
    else:
        api.store = store
        kinds = {kind.plural: kind for kind in (POOL, NODE, TASK)}
        for (plural, _, _), obj in list(api.objects.items()):
            if plural in kinds:
                store.put(kinds[plural], copy.deepcopy(obj))
    store.synced.set()
    async with Supervisor() as supervisor:
        context = Context(
            settings=Settings(data_dir=folder, **settings),
            api=cast("Any", api),
            store=store,
            events=cast("Any", SimpleNamespace(emit=lambda *_: None)),
            clock=SystemClock(),
            metrics=Metrics(),
            supervisor=supervisor,
            leadership=cast("Any", SimpleNamespace(is_leader=True, check=lambda: None)),
        )
        yield context, api


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds, turn by turn of the event loop."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def pool_object(name: str = "pool", nodes: int = 1, **spec: Any) -> Object:
    """A ComputePool as the API server holds it."""
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "candidates": [{"name": "here", "provider": "local"}],
            "nodes": {"desired": nodes},
            "image": {"python": "3.13"},
            "worker": {"concurrency": 1, "buffer": 0},
        }
        | spec,
    }


def node_object(name: str, rank: int, phase: str = "Ready", pool: str = "pool") -> Object:
    """A ComputeNode as the API server holds it."""
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {"poolRef": {"name": pool, "uid": "u"}, "rank": rank, "incarnation": 0},
        "status": {"phase": phase},
    }
