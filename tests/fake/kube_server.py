"""An API server in this process, for the faults that a real one cannot be told to have.

It keeps objects, resourceVersions, pages, watches and finalizers as the real one does, as far as the
operator's client looks; it has no schemas and no authorization. `fault` arms what happens to the next
matching requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from skyward.contract.names import GROUP, KINDS, VERSION
from skyward_operator.engine.clock import timestamp
from skyward_operator.kube.credentials import Credentials
from skyward_operator.kube.merge import merged

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from skyward_operator.kube.tokens import TokenSource

type Object = dict[str, Any]


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests that match."""

    method: str = ""
    path: str = ""
    query: str = ""
    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    lose_answer: bool = False
    """The request is carried out, then the connection breaks."""
    hang: bool = False
    """Nothing is answered, ever; the connection stays open."""
    times: int = 1
    seen: int = 0

    def matches(self, request: web.Request) -> bool:
        """Whether this request is to suffer."""
        return (
            self.seen < self.times
            and self.method in ("", request.method)
            and self.path in request.path
            and (not self.query or self.query in request.query)
        )


class FakeKube:
    """The server; `async with FakeKube() as kube`."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Object]] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.bodies: list[Any] = []
        self.version = 100
        self.server = ""
        self.bookmark_seconds = 0.2
        self.bookmarks = 0
        self.silent_watches = False
        """Watches accept, stay open, and tell nothing: as behind a load balancer that forgot them."""
        self.deaf_watches = False
        """Watches send bookmarks but no events."""
        self.is_down = False
        """Every connection is cut before anything is done, and nobody is told of anything."""
        self.told: list[Callable[[str, str, Object], None]] = []
        """Who hears of each change as it is made: the collection, the type of the event, the object."""
        self._faults: list[Fault] = []
        self._watchers: list[tuple[str, asyncio.Queue[Object | None]]] = []
        self._runner: web.AppRunner | None = None
        self._released = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.server = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._released.set()
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()

    def credentials(self, token: TokenSource | None = None) -> Credentials:
        """How to reach it."""
        return Credentials(server=self.server, source="the fake", token=token)

    def fault(self, **how: Any) -> Fault:
        """Arm a fault."""
        fault = Fault(**how)
        self._faults.append(fault)
        return fault

    def count(self, method: str, part: str = "") -> int:
        """How many requests of a method came, whose path and query contain `part`."""
        return sum(1 for verb, path in self.requests if verb == method and part in path)

    def put(self, collection: str, obj: Object) -> Object:
        """Write an object past the HTTP side, as another client would; tells the watches."""
        objects = self.objects.setdefault(collection, {})
        name = obj["metadata"]["name"]
        old = objects.get(name)
        self.version += 1
        born = {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(datetime.now(UTC))}
        metadata = born | obj["metadata"] | {"resourceVersion": str(self.version)}
        if old is not None:
            metadata |= {name: old["metadata"][name] for name in born}
        stored = obj | {"metadata": metadata}
        objects[name] = stored
        self._tell(collection, "ADDED" if old is None else "MODIFIED", stored)
        return stored

    def remove(self, collection: str, name: str, *, tell: bool = True) -> None:
        """Delete an object past the HTTP side; `tell=False` is a deletion in a gap of the watches."""
        gone = self.objects[collection].pop(name)
        self.version += 1
        gone = gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self.version)}}
        if tell:
            self._tell(collection, "DELETED", gone)

    def cut_watches(self, error: int = 0) -> None:
        """End every open watch, with an ERROR event of that code before it unless 0."""
        for _, queue in self._watchers:
            if error:
                status = {"kind": "Status", "code": error, "reason": "Expired", "message": "too old"}
                queue.put_nowait({"type": "ERROR", "object": status})
            queue.put_nowait(None)

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    def _tell(self, collection: str, type_: str, obj: Object) -> None:
        for hear in self.told:
            hear(collection, type_, obj)
        place, _, plural = collection.rpartition("/")
        everywhere = place.split("/namespaces/")[0] + "/" + plural
        for path, queue in self._watchers:
            if path in (collection, everywhere):
                queue.put_nowait({"type": type_, "object": obj})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.is_down:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.requests.append((request.method, request.path_qs))
        self.tokens.append(request.headers.get("Authorization", ""))
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.bodies.append(body)
        fault = next((fault for fault in self._faults if fault.matches(request)), None)
        if fault is not None:
            fault.seen += 1
            if fault.hang:
                await self._released.wait()
            if fault.status:
                return _status(fault.status, fault.reason, fault.headers)
        if fault is not None and fault.lose_answer:
            self._serve(request, body)
            assert request.transport is not None
            request.transport.abort()
        if "watch" in request.query:
            return await self._watch(request)
        return self._serve(request, body)

    def _serve(self, request: web.Request, body: Any) -> web.Response:
        if (found := _discovery(request.path)) is not None:
            return web.json_response(found)
        path = request.path.removesuffix("/status")
        if request.method == "POST":
            return self._create(path, body)
        if request.method == "GET" and (path in self.objects or _is_collection(path)):
            return self._list(request)
        collection, _, name = path.rpartition("/")
        obj = self.objects.get(collection, {}).get(name)
        if obj is None:
            return _status(404, "NotFound")
        match request.method:
            case "GET":
                return web.json_response(obj)
            case "PATCH":
                return self._patch(collection, obj, body)
            case "DELETE":
                return self._delete(collection, obj, body or {})
            case _:
                return _status(405, "MethodNotAllowed")

    def _create(self, collection: str, body: Object) -> web.Response:
        name = body["metadata"]["name"]
        if name in self.objects.get(collection, {}):
            return _status(409, "AlreadyExists")
        return web.json_response(self.put(collection, body), status=201)

    def _patch(self, collection: str, obj: Object, body: Object) -> web.Response:
        wanted = (body.get("metadata") or {}).get("resourceVersion")
        if wanted not in (None, obj["metadata"]["resourceVersion"]):
            return _status(409, "Conflict")
        fresh = merged(obj, body)
        if fresh["metadata"].get("deletionTimestamp") and not fresh["metadata"].get("finalizers"):
            self.remove(collection, fresh["metadata"]["name"])
            return web.json_response(fresh)
        return web.json_response(self.put(collection, fresh) if fresh != obj else obj)

    def _delete(self, collection: str, obj: Object, options: Object) -> web.Response:
        metadata = obj["metadata"]
        for key, wanted in (options.get("preconditions") or {}).items():
            if metadata.get(key) != wanted:
                return _status(409, "Conflict")
        if metadata.get("finalizers"):
            stamp = {"deletionTimestamp": "2026-11-22T00:00:00Z"}
            return web.json_response(self.put(collection, obj | {"metadata": metadata | stamp}))
        self.remove(collection, metadata["name"])
        return web.json_response({"kind": "Status", "status": "Success"})

    def _list(self, request: web.Request) -> web.Response:
        objects = self._within(request.path)
        start = int(request.query.get("continue", "0"))
        limit = int(request.query.get("limit", "0")) or len(objects) or 1
        page = objects[start : start + limit]
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(objects):
            metadata["continue"] = str(start + limit)
        bare = [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in page]
        return web.json_response({"kind": "List", "metadata": metadata, "items": bare})

    def _within(self, path: str) -> list[Object]:
        """The objects of a collection: of one namespace, or of all."""
        root, _, plural = path.rpartition("/")
        found = [*self.objects.get(path, {}).values()]
        if "/namespaces/" not in path:
            for collection, objects in self.objects.items():
                if collection.startswith(root + "/namespaces/") and collection.endswith("/" + plural):
                    found.extend(objects.values())
        return found

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        since = int(request.query.get("resourceVersion", "0"))
        for obj in self._within(request.path):
            if int(obj["metadata"]["resourceVersion"]) > since:
                queue.put_nowait({"type": "ADDED", "object": obj})
        entry = (request.path, queue)
        self._watchers.append(entry)
        try:
            with contextlib.suppress(ConnectionError):
                await self._stream(response, queue)
        finally:
            self._watchers.remove(entry)
        return response

    async def _stream(self, response: web.StreamResponse, queue: asyncio.Queue[Object | None]) -> None:
        while True:
            try:
                async with asyncio.timeout(self.bookmark_seconds):
                    event = await queue.get()
            except TimeoutError:
                metadata = {"resourceVersion": str(self.version)}
                event = {"type": "BOOKMARK", "object": {"metadata": metadata}}
                self.bookmarks += 1
            if event is None:
                return
            if self.silent_watches or (self.deaf_watches and event["type"] not in ("BOOKMARK", "ERROR")):
                continue
            await response.write(json.dumps(event).encode() + b"\n")


def collection(plural: str, namespace: str = "default") -> str:
    """The path of Skyward's objects of a kind in a namespace."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{plural}"


async def eventually(claim: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the claim is true, looking at it often; fails with the claim after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not claim():  # noqa: ASYNC110 - the claim is about another task's state
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not true within {seconds} s") from None


def _is_collection(path: str) -> bool:
    return path.rsplit("/", 1)[-1] in {kind.plural for kind in KINDS} | {
        "leases",
        "events",
        "secrets",
        "configmaps",
    }


def _status(code: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": f"the fake: {reason}",
    }
    return web.json_response(body, status=code, headers=headers)


_NAMESPACES = {
    "name": "namespaces",
    "singularName": "namespace",
    "kind": "Namespace",
    "namespaced": False,
    "verbs": ["get", "list", "watch"],
}
"""kopf waits for this kind before it watches any other."""


def _discovery(path: str) -> Object | None:
    group = f"{GROUP}/{VERSION}"
    match path:
        case "/api":
            return {"versions": ["v1"]}
        case "/api/v1":
            return {"groupVersion": "v1", "resources": [_NAMESPACES]}
        case "/apis":
            preferred = {"groupVersion": group, "version": VERSION}
            return {"groups": [{"name": GROUP, "versions": [preferred], "preferredVersion": preferred}]}
        case _ if path == f"/apis/{group}":
            verbs = ["get", "list", "watch", "create", "patch", "delete"]
            return {
                "groupVersion": group,
                "resources": [
                    {"name": kind.plural, "singularName": kind.singular, "kind": kind.kind,
                     "namespaced": True, "shortNames": [kind.short], "verbs": verbs}
                    for kind in KINDS
                ],
            }  # fmt: skip
        case _:
            return None
