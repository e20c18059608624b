"""A control plane in this process for tests of the SDK: API server, operator, gateway, but no machine.

The operator here makes nodes that are only objects, and runs calls in a thread of this process. It can be
told to misbehave: `answer` replaces what it does with a Task.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiohttp import web
from tests.fake.kube_server import FakeKube, Object, collection, eventually

from skyward.contract.names import (
    ANNOTATION_GATEWAY,
    ANNOTATION_TICKET,
    API_VERSION,
    LABEL_POOL,
    LEASE_NAME,
    POOL_FINALIZER,
    SYSTEM_NAMESPACE,
    node_name,
)
from skyward.runtime import call
from skyward.wire import codec
from skyward.wire.delivery import End, data_part, end_part
from skyward.wire.outcomes import digest_outcomes
from skyward.wire.package import CallPackage, Outcome, pack_outcomes
from skyward.wire.raised import dumps_error

if TYPE_CHECKING:
    from collections.abc import Iterator

POOLS, NODES, TASKS = collection("computepools"), collection("computenodes"), collection("tasks")
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"
INLINE_RESULT = 64 * 1024

type Answer = Callable[["FakePlane", Object], Object | None]


class FakePlane(FakeKube):
    """`with FakePlane() as plane`: everything runs on a loop in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Answer | None = None
        self._history: list[tuple[int, str, str, Object]] = []
        self.node_phases: list[Object] = [
            {"phase": "Launching"},
            {"phase": "Bootstrapping", "bootstrap": {"step": "pip"}},
            {"phase": "Ready"},
        ]
        self.pool_status: Object | None = None
        """Replaces the status that a pool gets, and no nodes are made."""
        self.waits_for_watchers = False
        """Nodes are made only when somebody watches them."""
        self.keep_pools = False
        """A pool that is deleted stays: its machines cannot be proved absent."""
        self.offers: Callable[[Object], Object] = lambda pool: {"offers": [], "refused": []}
        """What a pool could buy."""
        self.payloads: dict[str, bytes] = {}
        self.results: dict[str, bytes] = {}
        self.records: dict[str, bytearray] = {}
        """Outcomes so far, by task."""
        self.cut_results_after: int | None = None
        """Each delivery of results breaks after so many bytes."""
        self.cut_downloads_after: int | None = None
        """Each download of a whole result breaks after so many bytes."""
        self.downloads: list[int] = []
        """Where each of them began."""
        self.task_logs: dict[str, list[Object]] = {}
        """By the name of a task, node or pool: what was printed before somebody asks."""
        self.new_logs: dict[str, list[Object]] = {}
        """The same, printed while somebody follows."""
        self.refuse_payload = 0
        self.cut_uploads_after: list[int] = []
        """The next uploads break after so many bytes each."""
        self.uploads: list[int] = []
        """Where each of them began."""
        self._folder = TemporaryDirectory(prefix="skyward-plane-")
        self._uploaded: dict[str, bytearray] = {}
        self.python: str | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-plane", daemon=True)
        self._workers = ThreadPoolExecutor(8, thread_name_prefix="fake-worker")
        self._log_lines: list[Object] = []
        self._log_ends: list[Object] = []
        self._log_queues: list[asyncio.Queue[Object | None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.on_loop(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.on_loop(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._loop.close()
        self._folder.cleanup()

    def on_loop[T](self, work: Any) -> Any:
        """Run a coroutine on the plane's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def write_kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig for this server."""
        path = folder / "config"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.server}}],
            "users": [{"name": "fake", "user": {"token": "let-me-in"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        }
        path.write_text(json.dumps(document))
        return path

    def names(self, where: str) -> list[str]:
        """The names of the objects in a collection."""
        return list(self.objects.get(where, {}))

    def only(self, where: str) -> Object:
        """The one object of a collection."""
        (found,) = self.objects.get(where, {}).values()
        return found

    def change(self, where: str, name: str, **status: Any) -> None:
        """Write a status, from any thread."""

        async def write() -> None:
            self._status(where, name, status)

        self.on_loop(write())

    def drop(self, where: str, name: str) -> None:
        """Delete an object past everybody, from any thread."""

        async def remove() -> None:
            self.remove(where, name)

        self.on_loop(remove())

    def log(
        self, task: str, text: str, rank: int = 0, stream: str = "stdout", namespace: str = "default"
    ) -> None:
        """Print as a function on a node does, from any thread."""
        line = {
            "namespace": namespace,
            "task": task,
            "index": 0,
            "node": f"n{rank}",
            "rank": rank,
            "stream": stream,
            "text": text,
        }
        line["time"] = time.time()

        def send() -> None:
            line["kept"] = len(self._log_lines) + 1.0
            self._log_lines.append(line)
            for queue in self._log_queues:
                queue.put_nowait(line)

        self._loop.call_soon_threadsafe(send)

    def log_done(self, task: str) -> None:
        """Say that all output of a task has come, from any thread."""

        def send() -> None:
            self._log_ends.append({"namespace": "default", "task": task, "done": True})
            for queue in self._log_queues:
                queue.put_nowait(self._log_ends[-1])

        self._loop.call_soon_threadsafe(send)

    def cut_logs(self) -> None:
        """Break the live output, from any thread."""

        def cut() -> None:
            for queue in self._log_queues:
                queue.put_nowait(None)

        self._loop.call_soon_threadsafe(cut)

    # -- the operator -------------------------------------------------------------------------------------

    def _tell(self, collection: str, type_: str, obj: Object) -> None:
        self._history.append((int(obj["metadata"]["resourceVersion"]), collection, type_, obj))
        for path, queue in list(self._watchers):
            where, _, selector = path.partition("?")
            if where == collection and _selected(selector, obj):
                queue.put_nowait({"type": type_, "object": obj})
        self._loop.call_soon(self._act, collection, type_, obj)

    def _act(self, collection: str, type_: str, obj: Object) -> None:
        if collection == POOLS and type_ == "ADDED":
            self._loop.create_task(self._make_pool(obj))
        elif collection == POOLS and obj["metadata"].get("deletionTimestamp") and type_ == "MODIFIED":
            self._delete_pool(obj)
        elif collection == TASKS and type_ == "ADDED":
            self._loop.create_task(self._run_task(obj))
        elif collection == TASKS and obj["spec"].get("cancel") and not _has_ended(obj):
            self._end_task(obj, "Cancelled", "Cancelled", "cancelled as asked")

    async def _make_pool(self, pool: Object) -> None:
        metadata = pool["metadata"] | {"finalizers": [POOL_FINALIZER], "generation": 1}
        self.put(POOLS, pool | {"metadata": metadata})
        name, wanted = metadata["name"], pool["spec"]["nodes"]["desired"]
        if self.pool_status is not None:
            self._status(POOLS, name, self.pool_status)
            return
        self._status(POOLS, name, {"phase": "Provisioning", "reason": "Launching", "usable": False})
        if self.waits_for_watchers:
            await eventually(lambda: any(path.startswith(NODES) for path, _ in self._watchers))
        for rank in range(wanted):
            labels = {LABEL_POOL: name}
            node = node_name(name, metadata["uid"], rank, 1)
            self.put(NODES, {"metadata": {"name": node, "namespace": "default", "labels": labels},
                             "apiVersion": API_VERSION, "kind": "ComputeNode",
                             "spec": {"rank": rank, "poolRef": {"name": name}}})  # fmt: skip
            for phase in self.node_phases:
                self._status(NODES, node, phase)
                await asyncio.sleep(0)
        counts = {"total": wanted, "ready": wanted}
        ready = {
            "phase": "Ready",
            "reason": "AllNodesReady",
            "usable": True,
            "nodes": counts,
            "observedGeneration": 1,
        }
        self._status(POOLS, name, ready | {"observedGeneration": 1, "cost": {"accrued": "0"}})

    def _delete_pool(self, pool: Object) -> None:
        if self.keep_pools or not pool["metadata"].get("finalizers"):
            return
        name = pool["metadata"]["name"]
        for node, obj in list(self.objects.get(NODES, {}).items()):
            if obj["metadata"]["labels"][LABEL_POOL] == name:
                self.remove(NODES, node)
        if name in self.objects[POOLS]:
            self.remove(POOLS, name)

    async def _run_task(self, task: Object) -> None:
        name = task["metadata"]["name"]
        if self.answer is not None and (status := self.answer(self, task)) is not None:
            if status:
                self._status(TASKS, name, status)
            return
        while "blob" in task["spec"]["calls"] and name not in self.payloads:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        package = task["spec"]["calls"].get("package")
        data = base64.b64decode(package) if package else self.payloads[name]
        outcomes = await self._loop.run_in_executor(self._workers, self._outcomes, task, data)
        if (self.objects[TASKS].get(name, {}).get("status") or {}).get("phase") == "Cancelled":
            return
        failed = [outcome for outcome in outcomes if not outcome.ok]
        packed = pack_outcomes(outcomes)
        if len(packed) <= INLINE_RESULT:
            result: Object = {"package": base64.b64encode(packed).decode()}
        else:
            self.results[name] = packed
            result = {"blob": {"digest": digest_outcomes(BytesIO(packed)), "sizeBytes": len(packed)}}
        reason = "UserException" if failed else "Succeeded"
        self._end_task(task, "Failed" if failed else "Succeeded", reason, "", result, len(outcomes))

    def _outcomes(self, task: Object, data: bytes) -> list[Outcome]:
        ranks = [node["spec"]["rank"] for node in self.objects.get(NODES, {}).values()]
        size = len(data) if "package" in task["spec"]["calls"] else task["spec"]["calls"]["blob"]["sizeBytes"]
        with CallPackage(memoryview(data)[:size]) as package:
            files = {}
            for part, length in package.parts.items():
                files[part] = Path(self._folder.name) / part
                files[part].write_bytes(data[size : size + length])
                size += length
            assert size == len(data)
            if task["spec"].get("target", {}).get("mode") == "All":
                which = [(index, index, 0) for index in range(len(ranks))]
            else:
                which = [(index, index % max(len(ranks), 1), index) for index in range(package.count)]
            records = self.records.setdefault(task["metadata"]["name"], bytearray())
            outcomes = []
            for place in which:
                outcomes.append(self._outcome(package, files, task, *place, len(ranks)))
                records += pack_outcomes(outcomes[-1:])
            return outcomes

    def _outcome(
        self,
        package: CallPackage,
        files: dict[str, Path],
        task: Object,
        index: int,
        rank: int,
        number: int,
        size: int,
    ) -> Outcome:
        name = task["metadata"]["name"]
        if (failed := package.failed(number)) is not None:
            return failed
        function, payload = package.call(number)
        place = {"node": rank, "total_nodes": size, "rank": rank, "task": name, "index": index, "number": 1}
        try:
            called = codec.loads(package.functions[function][1], files)
            args, kwargs = codec.loads(payload, files)
            with call(place):
                value = called(*args, **kwargs)
        except Exception as error:
            body, info = dumps_error(error)
            return Outcome(index, False, body, info, f"n{rank}", rank, f"uid.{index}.1")
        return Outcome(index, True, codec.dumps(value), None, f"n{rank}", rank, f"uid.{index}.1")

    def _end_task(
        self, task: Object, phase: str, reason: str, message: str, result: Object | None = None, done: int = 0
    ) -> None:
        counts = {"total": done, "succeeded": done, "failed": 0, "running": 0}
        status = {"phase": phase, "reason": reason, "message": message, "counts": counts}
        self._status(TASKS, task["metadata"]["name"], status | ({"result": result} if result else {}))

    def _status(self, where: str, name: str, status: Object) -> None:
        obj = self.objects[where].get(name)
        if obj is not None:
            self.put(where, obj | {"status": {**obj.get("status", {}), **status}})

    # -- HTTP ---------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self.__aenter__()
        annotations = {ANNOTATION_GATEWAY: self.server}
        self.put(LEASES, {"metadata": {"name": LEASE_NAME, "annotations": annotations}, "spec": {}})

    async def _end(self) -> None:
        for queue in self._log_queues:
            queue.put_nowait(None)
        await self.__aexit__(None, None, None)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for _ in range(5):  # a transport that was closed lets go of its socket in one of the next turns
            await asyncio.sleep(0)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v1/"):
            return await self._gateway(request)
        return await super()._handle(request)

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        ticket = sha256(request.headers["Skyward-Ticket"].encode()).hexdigest()
        if request.path == "/v1/logs":
            return await self._logs(request)
        name, what = request.path.split("/")[-2:]
        if "/nodes/" in request.path:
            node = self.objects[NODES].get(name)  # one that is gone belonged to the only pool
            task = self.objects[POOLS][node["spec"]["poolRef"]["name"]] if node else self.only(POOLS)
        elif "/pools/" in request.path:
            task = self.objects[POOLS][name]
        else:
            task = self.objects[TASKS][name]
        added = (task["metadata"].get("annotations") or {}).get(ANNOTATION_TICKET)
        if ticket not in (task["spec"].get("ticketHash"), added if request.method == "GET" else None):
            return web.json_response({"message": "not your ticket"}, status=403)
        if what == "payload":
            return await self._take_payload(request, name, task["spec"]["calls"]["blob"])
        if what == "results":
            return await self._deliver(request, name)
        if what == "offers":
            assert task["spec"]["suspend"]
            return web.json_response(self.offers(task))
        if what == "logs":
            ends: list[Object] = [{"kept": 0.0}, *self.new_logs.get(name, []), {"end": True}]
            lines = [json.dumps(line, ensure_ascii=False) for line in [*self.task_logs.get(name, []), *ends]]
            return web.Response(text="".join(f"{line}\n" for line in lines))
        return await self._send_result(request, self.results[name])

    async def _take_payload(self, request: web.Request, name: str, blob: Object) -> web.Response:
        there = self._uploaded.setdefault(name, bytearray())
        if request.method == "HEAD":
            headers = {"Upload-Offset": str(len(there)), "Upload-Complete": f"?{int(name in self.payloads)}"}
            return web.Response(headers=headers)
        start = int(request.headers.get("Upload-Offset", "0"))
        self.uploads.append(start)
        assert start <= len(there)
        del there[start:]
        most = self.cut_uploads_after.pop(0) if self.cut_uploads_after else None
        async for piece in request.content.iter_any():
            there += piece if most is None else piece[: max(0, most - (len(there) - start))]
            if most is not None and len(there) - start >= most:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
        if self.refuse_payload:
            return web.json_response({"message": "more than 1 GiB"}, status=self.refuse_payload)
        assert sha256(there[: blob["sizeBytes"]]).hexdigest() == blob["digest"]
        self.payloads[name] = bytes(there)
        return web.Response(status=204)

    async def _send_result(self, request: web.Request, data: bytes) -> web.StreamResponse:
        start = request.http_range.start or 0
        self.downloads.append(start)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        await response.prepare(request)
        await response.write(data[start:][: self.cut_downloads_after])
        if self.cut_downloads_after is not None and request.transport is not None:
            request.transport.close()
        return response

    async def _deliver(self, request: web.Request, name: str) -> web.StreamResponse:
        response, at, left = web.StreamResponse(), int(request.query["from"]), self.cut_results_after
        await response.prepare(request)
        while True:
            task = self.objects[TASKS].get(name)
            records = bytes(self.records.get(name, b""))
            if task is None:
                return response
            if news := records[at:][:left]:
                await response.write(data_part(news))
                at += len(news)
                left = None if left is None else left - len(news)
            if left == 0:
                return response
            if _has_ended(task) and at == len(records):
                await response.write(end_part(End(at, digest_outcomes(BytesIO(records)))))
                return response
            await asyncio.sleep(0.002)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        for line in self._log_lines:
            if line["kept"] > float(request.query["since"]):
                queue.put_nowait(line)
        for end in self._log_ends:
            queue.put_nowait(end)
        queue.put_nowait({"kept": float(len(self._log_lines))})
        if "follow" not in request.query:
            queue.put_nowait(None)
        self._log_queues.append(queue)
        while (entry := await queue.get()) is not None:
            await response.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._log_queues.remove(queue)
        return response

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        selector = request.query.get("labelSelector") or request.query.get("fieldSelector") or ""
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        since = int(request.query.get("resourceVersion", "0"))
        for version, where, type_, obj in self._history:
            if version > since and where == request.path and _selected(selector, obj):
                queue.put_nowait({"type": type_, "object": obj})
        entry = (f"{request.path}?{selector}", queue)
        self._watchers.append(entry)
        try:
            await self._stream(response, queue)
        except ConnectionError:
            pass
        finally:
            self._watchers.remove(entry)
        return response

    def _list(self, request: web.Request) -> web.Response:
        selector = request.query.get("labelSelector") or request.query.get("fieldSelector") or ""
        found = [obj for obj in self._within(request.path) if _selected(selector, obj)]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": found})


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlane]:
    """A plane that this process's environment points at, and a home of its own for Skyward."""
    with FakePlane() as plane:
        monkeypatch.setenv("KUBECONFIG", str(plane.write_kubeconfig(tmp_path)))
        monkeypatch.setenv("SKYWARD_HOME", str(tmp_path / "home"))
        yield plane


def wait_until(claim: Callable[[], object]) -> None:
    """Wait, in a thread that is not the plane's, until something is true."""
    pause = threading.Event()
    for _ in range(3000):
        if claim():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within 30 s")


def _has_ended(task: Object) -> bool:
    return (task.get("status") or {}).get("phase") in ("Succeeded", "Failed", "Cancelled")


def _selected(selector: str, obj: Object) -> bool:
    if not selector:
        return True
    key, _, value = selector.partition("=")
    if key == "metadata.name":
        return bool(obj["metadata"]["name"] == value)
    return bool((obj["metadata"].get("labels") or {}).get(key) == value)
