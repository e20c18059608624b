"""The gateway's HTTP interface: bytes and output that are no business of the API server.

    PUT /v1/namespaces/{ns}/tasks/{name}/payload   the calls of a task, once, or the rest of them from
                                                   byte Upload-Offset on; HEAD says how much is there
    GET /v1/namespaces/{ns}/tasks/{name}/result    the outcomes of an ended task
    GET /v1/namespaces/{ns}/tasks/{name}/results   outcomes as they become durable, in parts (see
                                                   skyward.wire.delivery); ?from=BYTE goes on there,
                                                   ?follow=1 goes on until the task has ended
    GET /v1/namespaces/{ns}/tasks/{name}/session   the calls of an open task, over a WebSocket
    GET /v1/namespaces/{ns}/tasks/{name}/logs      its output; ?follow=1 goes on until it ends,
                                                   ?since=TIME begins with what was kept after that,
                                                   marks where that ends, and ends with {"end":true}
    GET /v1/namespaces/{ns}/pools/{name}/logs      the output of all its tasks, and how its nodes were made,
                                                   by time; ?follow=1 goes on until the pool is gone
    GET /v1/namespaces/{ns}/nodes/{name}/logs      how a node was made, also when it is gone; ?follow=1
    GET /v1/namespaces/{ns}/pools/{name}/offers    what it could buy now, best first; nothing is ordered
    POST /v1/sweep                                 look for machines without a node now, for administrators
    GET /v1/logs?namespace={ns}                    output of its tasks with the caller's ticket; &follow=1,
                                                   and &since=TIME for what was kept after that, first
    GET /v1/healthz

Every request but the last carries `Skyward-Ticket`: its creator's, or, to read one object, one whose hash was
added to it. Errors are plain sentences.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from base64 import b64decode
from typing import TYPE_CHECKING, Final

from aiohttp import web

from skyward.contract.names import TASK
from skyward_operator.gateway.access import Access
from skyward_operator.gateway.guard import GuardedFile
from skyward_operator.gateway.offers import OfferRoutes
from skyward_operator.gateway.output_routes import OutputRoutes, follows
from skyward_operator.gateway.reap import ReapRoutes
from skyward_operator.gateway.results import Delivery, check_start, size_of, start_of
from skyward_operator.gateway.session import serve
from skyward_operator.gateway.stores import Blob, StoreError
from skyward_operator.gateway.stores.sending import send_kept
from skyward_operator.gateway.uploads import COMPLETE, KEPT, OFFSET, Uploads
from skyward_operator.tasks.work import is_final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from skyward_operator.context import Context
    from skyward_operator.placement.placement import Placement
    from skyward_operator.sweep.loop import Sweep
    from skyward_operator.tasks.service import GatewayBackend

logger = logging.getLogger(__name__)

_CLIENT_LEFT: Final = 499
type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The handlers."""

    def __init__(
        self,
        context: Context,
        backend: GatewayBackend,
        *,
        largest_payload: int | None = None,
        placement: Placement | None = None,
        sweep: Sweep | None = None,
    ) -> None:
        self._context = context
        self._backend = backend
        self._access = Access(context)
        largest = largest_payload or context.settings.largest_payload
        self._output = OutputRoutes(context, backend, self._access)
        self._offers = OfferRoutes(self._access, placement) if placement is not None else None
        self._reap = ReapRoutes(self._access, sweep) if sweep is not None else None
        self._uploads = Uploads(
            backend.blobs, backend.store, largest, backend.payload_progressed, backend.payload_arrived
        )

    def app(self) -> web.Application:
        """The application, ready to be served."""
        app = web.Application(middlewares=[_report])
        one = "/v1/namespaces/{namespace}"
        app.add_routes(
            [
                web.put(f"{one}/tasks/{{name}}/payload", self.put_payload),
                web.head(f"{one}/tasks/{{name}}/payload", self.head_payload),
                web.get(f"{one}/tasks/{{name}}/result", self.get_result),
                web.get(f"{one}/tasks/{{name}}/results", self.get_results),
                web.get(f"{one}/tasks/{{name}}/session", self.get_session),
                *self._output.routes(),
                *(self._offers.routes() if self._offers is not None else ()),
                *(self._reap.routes() if self._reap is not None else ()),
                web.get("/v1/healthz", self.get_health),
            ]
        )
        return app

    async def put_payload(self, request: web.Request) -> web.Response:
        """Take in the calls of a task."""
        task = await self._access.owned(TASK, request)
        if is_final(task):
            raise web.HTTPGone(text=f"Task {task['metadata']['name']} has ended: its payload is not needed")
        copy = await self._uploads.take(task, request)
        metadata = task["metadata"]
        known = self._context.store.get(TASK, metadata["namespace"], metadata["name"])
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            await self._uploads.drop(task)
            raise web.HTTPGone(text=f"Task {metadata['name']} was deleted meanwhile")
        if copy is not None:
            return web.Response(status=202, headers={OFFSET: str(copy.size), KEPT: str(max(0, copy.moved))})
        self._backend.payload_arrived(metadata["uid"])
        return web.Response(status=204)

    async def head_payload(self, request: web.Request) -> web.Response:
        """How much of a task's payload is there."""
        offset, is_whole = await self._uploads.offset(await self._access.owned(TASK, request))
        return web.Response(headers={OFFSET: str(offset), COMPLETE: f"?{int(is_whole)}"})

    async def get_result(self, request: web.Request) -> web.StreamResponse:
        """The packed outcomes of an ended task."""
        task = await self._access.readable(TASK, request)
        if not is_final(task):
            task = await self._access.newest(TASK, task)
        name, status = task["metadata"]["name"], task.get("status") or {}
        if not is_final(task):
            raise web.HTTPConflict(text=f"Task {name} has not ended: it is {status.get('phase', 'new')}")
        result = status.get("result") or {}
        if package := result.get("package"):
            try:
                return web.Response(body=b64decode(package), content_type="application/octet-stream")
            except binascii.Error as error:
                raise web.HTTPInternalServerError(text=f"the result of {name} is damaged: {error}") from error
        path = self._backend.blobs.results(task["metadata"]["namespace"], task["metadata"]["uid"])
        if "blob" in result and await asyncio.to_thread(path.exists):
            return GuardedFile(path, headers={"Content-Type": "application/octet-stream"})
        if "blob" in result and (kept := await send_kept(request, self._backend.store, task)) is not None:
            return kept
        raise web.HTTPNotFound(text=f"Task {name} ended as {status.get('reason')}, without a result")

    async def get_results(self, request: web.Request) -> web.StreamResponse:
        """Outcomes as they come. The END is sent only when the Task itself says how it ended."""
        task, start = await self._access.readable(TASK, request), start_of(request)
        name, uid = task["metadata"]["name"], task["metadata"]["uid"]
        live = self._backend.ledger.get(uid)
        if live is None and not is_final(task):
            task = await self._access.newest(TASK, task)
            live = self._backend.ledger.get(uid)
        if live is None and not is_final(task):
            raise web.HTTPServiceUnavailable(
                text=f"Task {name} is not known yet: the operator was started again, or another one has it",
                headers={"Retry-After": "1"},
            )
        result = (task.get("status") or {}).get("result") or {}
        check_start(name, start, live.results.size if live is not None else size_of(result))
        namespace = task["metadata"]["namespace"]
        path = self._backend.blobs.results(namespace, uid)
        delivery = Delivery(request, path, start, self._backend.store, Blob(namespace, uid, path.name))
        await delivery.begin()
        try:
            if live is not None and follows(request):
                await delivery.follow(live)
            elif live is not None:
                await delivery.send_file(live.results.size)
            if live is not None:
                task = await self._access.newest(TASK, task)
            if is_final(task) and task["metadata"]["uid"] == uid:
                await delivery.send_end((task.get("status") or {}).get("result") or {})
        except (web.HTTPForbidden, ConnectionError, FileNotFoundError):
            pass  # the Task went while its results were read, or the reader did
        except StoreError as error:
            logger.warning("the results of Task %s break off: %s", name, error)
        return await delivery.close()

    async def get_session(self, request: web.Request) -> web.StreamResponse:
        """The calls and outcomes of an open task, for as long as its client stays."""
        task = await self._access.owned(TASK, request)
        name = task["metadata"]["name"]
        if is_final(task):
            raise web.HTTPGone(text=f"Task {name} has ended")
        live = self._backend.live(task["metadata"]["uid"])
        if live is None:
            raise web.HTTPServiceUnavailable(text=f"Task {name} is not known yet; try again")
        if live.open is None:
            raise web.HTTPConflict(text=f"Task {name} is not open: spec.calls.open is not true")
        return await serve(request, live, self._backend.reception)

    async def get_health(self, request: web.Request) -> web.Response:
        """The gateway answers."""
        return web.json_response({"status": "ok", "leader": self._context.leadership.is_leader})


@web.middleware
async def _report(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (web.HTTPException, asyncio.CancelledError):
        raise
    except ConnectionError:
        if request.transport is not None and not request.transport.is_closing():
            raise
        return web.Response(status=_CLIENT_LEFT)  # to nobody: that readers leave is no error of ours
    except Exception:
        # The path names objects; headers (the ticket) and bodies are never logged.
        logger.exception("%s %s failed", request.method, request.path)
        raise web.HTTPInternalServerError(
            text="the gateway failed; the operator's log has the details"
        ) from None
