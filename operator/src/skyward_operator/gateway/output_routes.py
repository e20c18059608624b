"""Who may read which output, and what of it: of a task, of a node, of a pool, of one ticket's tasks.

The ticket of a pool opens the output of its tasks as well: who may update a pool decides what its machines
run, and so sees all that they print.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from skyward.contract.names import NODE, POOL, TASK
from skyward.contract.reasons import NodePhase
from skyward_operator.gateway.access import is_namespace, matches, opens, place, prove, ticket_hash
from skyward_operator.gateway.follower import Follower
from skyward_operator.gateway.node_output import NodeOutput, PoolNodes
from skyward_operator.gateway.streams import END, Lines, send_node_log, send_output, send_pool_output
from skyward_operator.nodes.log import SUFFIX, folder_of
from skyward_operator.tasks.work import is_final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from skyward_operator.context import Context
    from skyward_operator.gateway.access import Access
    from skyward_operator.tasks.service import GatewayBackend

_MAKING: Final = (NodePhase.PENDING, NodePhase.LAUNCHING, NodePhase.CONNECTING, NodePhase.BOOTSTRAPPING)


class OutputRoutes:
    """The handlers that send output."""

    def __init__(self, context: Context, backend: GatewayBackend, access: Access) -> None:
        self._context = context
        self._backend = backend
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        one = "/v1/namespaces/{namespace}"
        return [
            web.get(f"{one}/tasks/{{name}}/logs", self.get_task),
            web.get(f"{one}/pools/{{name}}/logs", self.get_pool),
            web.get(f"{one}/nodes/{{name}}/logs", self.get_node),
            web.get("/v1/logs", self.get_all),
        ]

    async def get_task(self, request: web.Request) -> web.StreamResponse:
        """The output of one task."""
        task = await self._access.readable(TASK, request)
        namespace, uid = task["metadata"]["namespace"], task["metadata"]["uid"]
        follower, since = None, _since(request)
        if follows(request) and not is_final(task):
            follower = Follower(lambda work: work.uid == uid, uid)

        def mine() -> list[tuple[str, str]]:
            return [(namespace, uid)]

        lines = Lines(request)
        await lines.begin()
        await send_output(lines, self._backend.logs, mine, since or 0.0, follower, marks=since is not None)
        if since is not None and (follower is None or not follower.behind):
            await lines.write(END)
        return await lines.end()

    async def get_pool(self, request: web.Request) -> web.StreamResponse:
        """The output of all tasks of a pool, and how its nodes were made."""
        pool = await self._access.readable(POOL, request)
        store, metadata = self._context.store, pool["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        follower = None
        if follows(request):
            follower = Follower(lambda work: (work.namespace, work.pool) == (namespace, name))

        def tasks() -> list[tuple[str, str]]:
            return [(namespace, task["metadata"]["uid"]) for task in store.by_pool(TASK, namespace, name)]

        def ended() -> list[tuple[str, str]]:
            return self._ended(store.by_pool(TASK, namespace, name))

        def goes_on() -> bool:
            now = store.get(POOL, namespace, name)
            return now is not None and now["metadata"]["uid"] == uid

        lines, nodes = Lines(request), PoolNodes(self._context, pool)
        await lines.begin()
        since = _since(request) or 0.0
        await send_pool_output(lines, self._backend.logs, nodes, tasks, since, follower, goes_on, ended)
        if follower is None or not follower.behind:
            await lines.write(END)
        return await lines.end()

    async def get_all(self, request: web.Request) -> web.StreamResponse:
        """The output of all tasks of a namespace that carry the caller's ticket: what comes, or what is kept.

        The hash of a ticket is no secret to who can read its objects, and may be written into objects of
        another namespace: without a namespace, whoever writes there would speak to the caller.
        """
        given, namespace = ticket_hash(request), _namespace(request)
        lines, logs, since = Lines(request), self._backend.logs, _since(request)

        def tasks() -> list[dict[str, Any]]:
            return [task for task in self._context.store.list(TASK, namespace) if matches(task, given)]

        def mine() -> list[tuple[str, str]]:
            return [(namespace, task["metadata"]["uid"]) for task in tasks()]

        if mine() or any(matches(pool, given) for pool in self._context.store.list(POOL, namespace)):
            prove(request)
        follower = None
        if follows(request):
            follower = Follower(
                lambda work: (
                    work.namespace == namespace and hmac.compare_digest(work.ticket_hash or "", given)
                )
            )
        await lines.begin()
        begin = (since or 0.0) if follower is None else since
        marks = since is not None
        await send_output(lines, logs, mine, begin, follower, marks=marks, ended=lambda: self._ended(tasks()))
        return await lines.end()

    async def get_node(self, request: web.Request) -> web.StreamResponse:
        """How a node was made; the ticket is that of its pool."""
        output = self._released(request)
        if output is not None:
            prove(request)
        else:
            await self._access.readable_node(request)
            namespace, name = place(request)
            output = NodeOutput(folder_of(self._context.settings.data_dir, namespace) / f"{name}{SUFFIX}")
        lines, marks = Lines(request), _since(request) is not None
        await lines.begin()
        await send_node_log(lines, output, lambda: self._is_made(request), marks=marks)
        if marks:
            await lines.write(END)
        return await lines.end()

    def _released(self, request: web.Request) -> NodeOutput | None:
        """The log of a node that is gone, for who may read its pool; nobody else learns anything from it."""
        (namespace, name), given = place(request), ticket_hash(request)
        if self._context.store.get(NODE, namespace, name) is not None:
            return None
        for pool in self._context.store.list(POOL, namespace):
            if opens(pool, given) and (found := PoolNodes(self._context, pool).released(name)) is not None:
                return found
        return None

    def _ended(self, tasks: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
        """Those of which nothing more comes: all of it is on disk."""
        logs = self._backend.logs
        over = (
            task["metadata"] for task in tasks if is_final(task) or logs.has_ended(task["metadata"]["uid"])
        )
        return [(metadata["namespace"], metadata["name"]) for metadata in over]

    def _is_made(self, request: web.Request) -> bool:
        """Whether somebody follows a node that is still being made."""
        node = self._context.store.get(NODE, *place(request))
        phase = (node.get("status") or {}).get("phase", NodePhase.PENDING) if node is not None else None
        return follows(request) and phase in _MAKING


def follows(request: web.Request) -> bool:
    """Whether the reader wants what comes as well."""
    return request.query.get("follow", "") in ("1", "true")


def _namespace(request: web.Request) -> str:
    namespace = request.query.get("namespace", "")
    if not is_namespace(namespace):
        raise web.HTTPBadRequest(text="namespace must be that of the tasks whose output is wanted")
    return namespace


def _since(request: web.Request) -> float | None:
    try:
        return float(request.query["since"]) if "since" in request.query else None
    except ValueError:
        raise web.HTTPBadRequest(text="since must be a number of seconds, as in the records' kept") from None
