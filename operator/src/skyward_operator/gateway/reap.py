"""A look for machines that belong to no node, when a person asks for it: `skyward reap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skyward_operator.kube.errors import ApiError

if TYPE_CHECKING:
    from skyward_operator.gateway.access import Access
    from skyward_operator.sweep.loop import Sweep


class Asked(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    dry_run: bool = Field(False, alias="dryRun")
    """Only say what would be ended."""
    end: int = Field(0, ge=0, le=100_000)
    """So many machines may be ended at once in an account, although they are too many to be believed."""


class ReapRoutes:
    """The handler."""

    def __init__(self, access: Access, sweep: Sweep) -> None:
        self._access = access
        self._sweep = sweep

    def routes(self) -> list[web.RouteDef]:
        """Where it is."""
        return [web.post("/v1/sweep", self.post)]

    async def post(self, request: web.Request) -> web.Response:
        """Look now. Answers with what was found at each account."""
        await self._access.administrator(request)
        try:
            asked = Asked.model_validate_json(await request.read() or b"{}")
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"this cannot be asked for: {_words(error)}") from error
        try:
            if asked.dry_run:
                found = await self._sweep.rehearse()
            else:
                found = await self._sweep.round(asked.end)
        except ApiError as error:
            text = f"nothing was looked through: the nodes cannot be read: {error}"
            raise web.HTTPServiceUnavailable(text=text) from error
        body: dict[str, Any] = {"dryRun": asked.dry_run, "accounts": found.accounts}
        return web.json_response(body)


def _words(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
