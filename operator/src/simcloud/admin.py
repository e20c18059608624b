"""The other side of the counter: the cloud's own staff, and what a machine can ask about itself.

Staff may change the script, the clock and the prices, take machines away, and read the ledger. Their key is
another one than the customers'.
"""

from __future__ import annotations

import hmac
from dataclasses import asdict
from typing import TYPE_CHECKING

from aiohttp import web

from simcloud import errors, present
from simcloud.api import document, read, refused
from simcloud.bill import audit
from simcloud.scenario import Scenario

if TYPE_CHECKING:
    from simcloud.api import Handler
    from simcloud.cloud import Cloud
    from simcloud.state import Instance


class Admin:
    """Routes under /admin and /metadata."""

    def __init__(self, cloud: Cloud, key: str) -> None:
        self._cloud = cloud
        self._key = key

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.put("/admin/scenario", self._staff(self.scenario)),
            web.post("/admin/clock", self._staff(self.clock)),
            web.post("/admin/instances/{id}/interrupt", self._staff(self.interrupt)),
            web.post("/admin/instances/{id}/vanish", self._staff(self.vanish)),
            web.post("/admin/instances/{id}/hang", self._staff(self.hang)),
            web.get("/admin/ledger", self._staff(self.ledger)),
            web.get("/admin/audit", self._staff(self.audit)),
            web.get("/metadata/{key}/interruption", self.metadata),
        ]

    def _staff(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            try:
                if not hmac.compare_digest(given.encode(), self._key.encode()):
                    raise errors.unauthorized()
                return await handler(request)
            except errors.Refusal as refusal:
                return refused(refusal)

        return handle

    async def scenario(self, request: web.Request) -> web.Response:
        """Follow another script from now on."""
        self._cloud.follow(await read(request, Scenario))
        return web.Response(status=204)

    async def clock(self, request: web.Request) -> web.Response:
        """Move the clock forward: {"seconds": 3600}."""
        seconds = (await document(request)).get("seconds")
        if not isinstance(seconds, int | float) or seconds < 0:
            raise errors.invalid("seconds: a number of seconds, not below 0")
        self._cloud.record("clock", seconds=float(seconds))
        return web.Response(status=204)

    async def interrupt(self, request: web.Request) -> web.Response:
        """Take a machine back, with notice: {"notice_seconds": 120}."""
        notice = (await document(request)).get("notice_seconds", 0)
        if not isinstance(notice, int | float) or notice < 0:
            raise errors.invalid("notice_seconds: a number of seconds, not below 0")
        instance = self._instance(request)
        self._cloud.record("noticed", id=instance.id, at=self._cloud.clock.now() + notice)
        return web.Response(status=204)

    async def vanish(self, request: web.Request) -> web.Response:
        """Lose a machine without a word."""
        self._cloud.record("doomed", id=self._instance(request).id, fate={"vanish_seconds": 0.0})
        return web.Response(status=204)

    async def hang(self, request: web.Request) -> web.Response:
        """Have a machine die while the API goes on to say that it runs."""
        self._cloud.record("doomed", id=self._instance(request).id, fate={"hang_seconds": 0.0})
        return web.Response(status=204)

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        """The ledger, line by line."""
        return web.FileResponse(self._cloud.ledger.path, headers={"Content-Type": "application/jsonl"})

    async def audit(self, request: web.Request) -> web.Response:
        """What is left, what was bought twice, and what it all cost: ?owner_tag=."""
        found = audit(self._cloud.state, self._cloud.clock.now(), request.query.get("owner_tag", ""))
        return web.json_response(asdict(found) | {"amount": f"{found.amount:f}"})

    async def metadata(self, request: web.Request) -> web.Response:
        """Inside a machine: whether it will be interrupted. 404 while nothing is announced."""
        key = request.match_info["key"]
        for instance in self._cloud.state.live():
            mine = hmac.compare_digest(instance.metadata_key.encode(), key.encode())
            if mine and instance.noticed is not None:
                return web.json_response(present.notice(instance))
        return web.Response(status=404)

    def _instance(self, request: web.Request) -> Instance:
        instance = self._cloud.state.instances.get(request.match_info["id"])
        if instance is None or instance.gone is not None:
            raise errors.not_found(f"instance {request.match_info['id']}")
        return instance
