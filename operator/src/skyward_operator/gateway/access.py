"""Who may use the gateway for what: the ticket whose hash stands in the object.

The API server decides who may create a Task or a pool; its creator keeps a ticket and puts the hash into the
spec. It also decides who may update one: whoever may can add the hash of a ticket as an annotation, which
opens it for reading. The gateway knows no users: it compares hashes, in constant time, and never tells
whether an object exists to somebody without its ticket.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from skyward.contract.names import ANNOTATION_TICKET
from skyward_operator.kube.errors import NotFound

if TYPE_CHECKING:
    from skyward.contract.names import Kind
    from skyward_operator.context import Context

TICKET_HEADER: Final = "Skyward-Ticket"
_LONGEST_TICKET: Final = 512


class Access:
    """Finds objects for those who have their ticket."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def owned(self, kind: Kind, request: web.Request) -> dict[str, Any]:
        """The object that the path names, for its creator; 403 for others as for one that is not there."""
        given, namespace, name = ticket_hash(request), *_place(request)
        obj = self._context.store.get(kind, namespace, name)
        if obj is None:
            # A client may be here before its own create has come back through the watch.
            obj = await self._read(kind, namespace, name)
        if not matches(obj, given):
            raise refusal(kind.kind, namespace, name)
        return obj

    async def readable(self, kind: Kind, request: web.Request) -> dict[str, Any]:
        """The object that the path names, for its creator and for readers; 403 for all others."""
        given, namespace, name = ticket_hash(request), *_place(request)
        return await self.read(kind, namespace, name, given)

    async def read(self, kind: Kind, namespace: str, name: str, given: str) -> dict[str, Any]:
        """One object, if a ticket with this hash lets its bearer read it."""
        obj = self._context.store.get(kind, namespace, name)
        if obj is None or not opens(obj, given):
            # A reader may be here before the annotation has come back through the watch.
            obj = await self._read(kind, namespace, name)
        if not opens(obj, given):
            raise refusal(kind.kind, namespace, name)
        return obj

    async def newest(self, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
        """The same object as the API server has it now: a client's watch may be ahead of ours."""
        return await self._read(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])

    async def _read(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        try:
            obj = await self._context.api.get(kind, namespace, name)
        except NotFound:
            raise refusal(kind.kind, namespace, name) from None
        self._context.store.put(kind, obj)
        return obj


def matches(obj: dict[str, Any], given: str) -> bool:
    """Whether a ticket with this hash is that of the object's creator."""
    return _is_same(obj["spec"].get("ticketHash"), given)


def opens(obj: dict[str, Any], given: str) -> bool:
    """Whether a ticket with this hash lets its bearer read: the creator's, or one that was added since."""
    added = (obj["metadata"].get("annotations") or {}).get(ANNOTATION_TICKET)
    return matches(obj, given) or _is_same(added, given)


def _is_same(wanted: str | None, given: str) -> bool:
    return bool(wanted) and hmac.compare_digest(str(wanted).encode(), given.encode())


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


def ticket_hash(request: web.Request) -> str:
    """The hash of the ticket that a request carries; 401 without one."""
    ticket = request.headers.get(TICKET_HEADER, "")
    if not ticket or len(ticket) > _LONGEST_TICKET:
        raise web.HTTPUnauthorized(
            text=f"the header {TICKET_HEADER} is missing: the ticket whose hash is in spec.ticketHash"
        )
    return hash_ticket(ticket)


def hash_ticket(ticket: str) -> str:
    """What stands in `spec.ticketHash` for a ticket (hexadecimal text): the SHA-256 of its characters."""
    return hashlib.sha256(ticket.encode()).hexdigest()


def refusal(kind: str, namespace: str, name: str) -> web.HTTPForbidden:
    """No entry, without saying whether there is anything."""
    return web.HTTPForbidden(
        text=f"{kind} {namespace}/{name} does not exist, or {TICKET_HEADER} does not open it"
    )
