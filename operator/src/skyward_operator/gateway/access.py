"""Who may use the gateway for what: the ticket whose hash stands in the object.

The API server decides who may create a Task or a pool; its creator keeps a ticket and puts the hash into the
spec. It also decides who may update one: whoever may can add the hash of a ticket as an annotation, which
opens it for reading. The gateway knows no users: it compares hashes, in constant time, and never tells
whether an object exists to somebody without its ticket.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from skyward.contract.names import ACCOUNTS_SUFFIX, ANNOTATION_TICKET, NODE, POOL
from skyward_operator.gateway.guesses import Guesses
from skyward_operator.kube.errors import NotFound
from skyward_operator.kube.kinds import CONFIG_MAP

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward.contract.names import Kind
    from skyward_operator.context import Context

TICKET_HEADER: Final = "Skyward-Ticket"
PROVED: Final[web.RequestKey[Callable[[], None]]] = web.RequestKey("proved")
"""In a request: what to call once its ticket has opened something."""
_LONGEST_TICKET: Final = 512
_LONGEST_NAME: Final = 253
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NOBODY: Final = "no-node"
"""Stands for the pool of a node that is not there."""


class Access:
    """Finds objects for those who have their ticket."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._guesses = Guesses()

    async def owned(self, kind: Kind, request: web.Request) -> dict[str, Any]:
        """The object that the path names, for its creator; 403 for others as for one that is not there."""
        return await self._opened(kind, request, *place(request), matches)

    async def readable(self, kind: Kind, request: web.Request) -> dict[str, Any]:
        """The object that the path names, for its creator and for readers; 403 for all others."""
        return await self._opened(kind, request, *place(request), opens)

    async def readable_node(self, request: web.Request) -> dict[str, Any]:
        """The node that the path names, for those who may read its pool; 403 for all others."""
        namespace, name = place(request)
        node = self._context.store.get(NODE, namespace, name)
        pool = node["spec"]["poolRef"]["name"] if node is not None else ""
        try:
            # Where there is no node a pool is looked for that cannot be: as long, and with the same answer.
            await self._opened(POOL, request, namespace, pool or _NOBODY, opens)
        except web.HTTPForbidden:
            raise refusal(NODE.kind, namespace, name) from None
        if node is None:
            raise refusal(NODE.kind, namespace, name)
        return node

    async def administrator(self, request: web.Request) -> None:
        """Whether a request comes from somebody who may change what the operator keeps beside its Lease: the
        ticket's hash has to stand there. Raises 403 for all others."""
        given, peer, settings = ticket_hash(request), request.remote or "", self._context.settings
        if self._guesses.too_many(peer):
            raise web.HTTPTooManyRequests(text="too many wrong tickets came from here; try again in a moment")
        namespace, name = settings.lease_namespace, f"{settings.lease_name}{ACCOUNTS_SUFFIX}"
        try:
            kept = await self._context.api.get(CONFIG_MAP, namespace, name)
        except NotFound:
            kept = {"metadata": {}}
        if not _is_same((kept["metadata"].get("annotations") or {}).get(ANNOTATION_TICKET), given):
            self._guesses.wrong(peer)
            raise refusal(CONFIG_MAP.kind, namespace, name)
        prove(request)

    async def _opened(
        self,
        kind: Kind,
        request: web.Request,
        namespace: str,
        name: str,
        is_opened: Callable[[dict[str, Any], str], bool],
    ) -> dict[str, Any]:
        """An object that the request's ticket opens. Where it opens nothing known here, the API server is
        asked, whether there is an object or not: a client may be ahead of our watch."""
        given, peer = ticket_hash(request), request.remote or ""
        obj = self._context.store.get(kind, namespace, name)
        if obj is not None and is_opened(obj, given):
            prove(request)
            return obj
        if self._guesses.too_many(peer):
            raise web.HTTPTooManyRequests(
                text=f"too many requests with a wrong {TICKET_HEADER} came from here; try again in a moment",
                headers={"Retry-After": "1"},
            )
        obj = await self._find(kind, namespace, name)
        if obj is None or not is_opened(obj, given):
            self._guesses.wrong(peer)
            raise refusal(kind.kind, namespace, name)
        prove(request)
        return obj

    async def newest(self, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
        """The same object as the API server has it now: a client's watch may be ahead of ours."""
        return await self._read(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])

    async def _read(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        obj = await self._find(kind, namespace, name)
        if obj is None:
            raise refusal(kind.kind, namespace, name)
        return obj

    async def _find(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            obj = await self._context.api.get(kind, namespace, name)
        except NotFound:
            return None
        self._context.store.put(kind, obj)
        return obj


def prove(request: web.Request) -> None:
    """The ticket of this request opens something: whoever watches its connection hears that."""
    if (proved := request.get(PROVED)) is not None:
        proved()


def matches(obj: dict[str, Any], given: str) -> bool:
    """Whether a ticket with this hash is that of the object's creator."""
    return _is_same(obj["spec"].get("ticketHash"), given)


def opens(obj: dict[str, Any], given: str) -> bool:
    """Whether a ticket with this hash lets its bearer read: the creator's, or one that was added since."""
    added = (obj["metadata"].get("annotations") or {}).get(ANNOTATION_TICKET)
    return matches(obj, given) or _is_same(added, given)


def _is_same(wanted: str | None, given: str) -> bool:
    return bool(wanted) and hmac.compare_digest(str(wanted).encode(), given.encode())


def is_namespace(text: str) -> bool:
    """Whether this can be the name of a namespace."""
    return _NAMESPACE.fullmatch(text) is not None


def place(request: web.Request) -> tuple[str, str]:
    """Namespace and name in a path; 404 for what can be no name, before it gets into any other path."""
    namespace, name = request.match_info["namespace"], request.match_info["name"]
    if not is_namespace(namespace) or not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise web.HTTPNotFound(text="the path holds what can be no namespace or no name of an object")
    return namespace, name


def ticket_hash(request: web.Request) -> str:
    """The hash of the ticket that a request carries; 401 without one."""
    ticket = request.headers.get(TICKET_HEADER, "")
    if not ticket or len(ticket) > _LONGEST_TICKET:
        raise web.HTTPUnauthorized(
            text=f"the header {TICKET_HEADER} is missing: the ticket whose hash is in spec.ticketHash"
        )
    return hash_ticket(ticket)


def hash_ticket(ticket: str) -> str:
    """What stands in `spec.ticketHash` for a ticket (hexadecimal text): the SHA-256 of its characters.

    A header may hold any bytes: those that are no text are hashed as they came, and are a wrong ticket.
    """
    return hashlib.sha256(ticket.encode(errors="surrogateescape")).hexdigest()


def refusal(kind: str, namespace: str, name: str) -> web.HTTPForbidden:
    """No entry, without saying whether there is anything."""
    return web.HTTPForbidden(
        text=f"{kind} {namespace}/{name} does not exist, or {TICKET_HEADER} does not open it"
    )
