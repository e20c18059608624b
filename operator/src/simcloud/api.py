"""The customers' API: JSON over HTTP, `Authorization: Bearer <key>`.

Errors are `{"error": {"code": …, "message": …}}`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

from simcloud import errors, present, side
from simcloud.accounts import Account
from simcloud.bill import bill
from simcloud.catalog import regions
from simcloud.clock import iso
from simcloud.orders import Order
from simcloud.scenario import Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from simcloud.accounts import Accounts
    from simcloud.cloud import Cloud

ACCOUNT: web.RequestKey[Account] = web.RequestKey("account", Account)
EFFECTS: web.RequestKey[list[Fault]] = web.RequestKey("effects", list)
BODY_BYTES = 64 * 1024
EFFECTS_BEFORE = {
    "internal-error": errors.internal,
    "unavailable": errors.unavailable,
    "unauthorized": errors.unauthorized,
}

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The routes under /v1, with the faults that the scenario has for them."""

    def __init__(self, cloud: Cloud, accounts: Accounts) -> None:
        self._cloud = cloud
        self._accounts = accounts

    def routes(self) -> list[web.RouteDef]:
        """Each route under the name of its operation, which is also the permission for it."""
        return [
            web.get("/v1/regions", self._faulty("offers", self.regions)),
            web.get("/v1/offers", self._faulty("offers", self.offers)),
            web.get("/v1/quote", self._faulty("quote", self.quote)),
            web.post("/v1/instances", self._faulty("create", self.create)),
            web.get("/v1/instances", self._faulty("list", self.list)),
            web.get("/v1/instances/{id}", self._faulty("describe", self.describe)),
            web.delete("/v1/instances/{id}", self._faulty("terminate", self.terminate)),
            web.get("/v1/instances/{id}/console", self._faulty("console", self.console)),
            web.get("/v1/interruptions", self._faulty("notices", self.interruptions)),
            web.post("/v1/side", self._faulty("side", self.create_side)),
            web.get("/v1/side", self._faulty("side", self.list_side)),
            web.delete("/v1/side/{id}", self._faulty("side", self.delete_side)),
            web.get("/v1/bill", self._faulty("describe", self.bill)),
        ]

    def _faulty(self, operation: str, handler: Handler) -> Handler:
        """Authenticate, let happen what the script has for this request, answer, and note it all."""

        async def handle(request: web.Request) -> web.StreamResponse:
            account, effects = None, list[Fault]()
            response: web.StreamResponse
            try:
                account = self._authenticate(request, operation)
                effects = self._cloud.faults.of_request(operation, await facts(request, account))
                request[ACCOUNT], request[EFFECTS] = account, effects
                await before(effects)
                response = await handler(request)
                after(effects)
            except errors.Refusal as refusal:
                response = refused(refusal)
            except errors.Dropped:
                response = web.Response(status=499)
                if request.transport is not None:
                    request.transport.abort()
            self._cloud.ledger.note(
                "request",
                self._cloud.clock.now(),
                operation=operation,
                account=account.name if account else None,
                path=request.path,
                status=response.status,
                effects=[fault.effect for fault in effects],
            )
            return response

        return handle

    def _authenticate(self, request: web.Request, permission: str) -> Account:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        account = self._accounts.by_key(key.strip()) if scheme == "Bearer" else None
        if account is None:
            raise errors.unauthorized()
        if permission not in account.permissions:
            raise errors.forbidden(permission)
        return account

    async def regions(self, request: web.Request) -> web.Response:
        """Where machines are sold."""
        return web.json_response({"regions": regions()})

    async def offers(self, request: web.Request) -> web.Response:
        """What is sold, with prices: ?region= &instance_type= &market=."""
        query = request.query
        found = self._cloud.market.offers(
            query.get("region"), query.get("instance_type"), query.get("market")
        )
        return web.json_response({"offers": list(found)})

    async def quote(self, request: web.Request) -> web.Response:
        """The price in force of one offer."""
        query = request.query
        words = [query.get(name, "") for name in ("region", "instance_type", "market")]
        price = self._cloud.market.quote(*words)
        return web.json_response({"hourly": f"{price:f}", "at": iso(self._cloud.clock.now())})

    async def create(self, request: web.Request) -> web.Response:
        """Order a machine. Answers at once; the machine is pending."""
        order = await read(request, Order)
        account, effects = account_of(request), request[EFFECTS]
        instance = self._cloud.create(account, order, effects)
        if any(fault.effect == "duplicate" for fault in effects):
            instance = self._cloud.create(account, order, effects)
        return web.json_response(present.instance(instance, account, self._cloud.vms.user), status=202)

    async def list(self, request: web.Request) -> web.Response:
        """Machines by tags (?tag.NAME=VALUE), in pages: ?page= &limit=."""
        account = account_of(request)
        effects = request[EFFECTS]
        found, complete = self._cloud.listing(account, tags_of(request), effects)
        rows = [present.instance(one, account, self._cloud.vms.user, condition) for one, condition in found]
        return web.json_response(
            page(rows, request.query, self._cloud.scenario.page_size) | {"complete": complete}
        )

    async def describe(self, request: web.Request) -> web.Response:
        """One machine."""
        account = account_of(request)
        instance = self._cloud.describe(account, request.match_info["id"])
        return web.json_response(present.instance(instance, account, self._cloud.vms.user))

    async def terminate(self, request: web.Request) -> web.Response:
        """Have a machine end."""
        account = account_of(request)
        instance = self._cloud.terminate(account, request.match_info["id"])
        return web.json_response(present.instance(instance, account, self._cloud.vms.user), status=202)

    async def console(self, request: web.Request) -> web.Response:
        """What the machine itself said."""
        instance = self._cloud.describe(account_of(request), request.match_info["id"])
        text = await asyncio.to_thread(self._cloud.vms.console, instance.id)
        return web.json_response({"console": text})

    async def interruptions(self, request: web.Request) -> web.Response:
        """Machines that will be taken away, and when."""
        found = self._cloud.notices(account_of(request), tags_of(request))
        return web.json_response({"interruptions": [present.notice(one) for one in found]})

    async def create_side(self, request: web.Request) -> web.Response:
        """Make an SSH key or a security group."""
        made = side.create(self._cloud, account_of(request), await read(request, side.Wanted))
        return web.json_response(present.side(made), status=201)

    async def list_side(self, request: web.Request) -> web.Response:
        """Side resources by tags."""
        found = side.find(self._cloud, account_of(request), tags_of(request))
        return web.json_response({"side": [present.side(one) for one in found]})

    async def delete_side(self, request: web.Request) -> web.Response:
        """Remove a side resource."""
        side.delete(self._cloud, account_of(request), request.match_info["id"])
        return web.Response(status=204)

    async def bill(self, request: web.Request) -> web.Response:
        """What this account has to pay until now."""
        return web.json_response(bill(self._cloud.state, account_of(request).name, self._cloud.clock.now()))


async def before(effects: list[Fault]) -> None:
    """What goes wrong before anything is done."""
    for fault in effects:
        if fault.effect == "slow":
            await asyncio.sleep(fault.seconds)
        elif fault.effect == "cut":
            raise errors.Dropped
        elif fault.effect == "rate-limit":
            raise errors.too_many_requests(fault.seconds)
        elif fault.effect in EFFECTS_BEFORE:
            raise EFFECTS_BEFORE[fault.effect]()


def after(effects: list[Fault]) -> None:
    """What goes wrong when all is done, and only the answer is missing."""
    kinds = {fault.effect for fault in effects}
    if "lose-answer" in kinds:
        raise errors.Dropped
    if "lose-with-error" in kinds:
        raise errors.internal()


async def facts(request: web.Request, account: Account) -> Mapping[str, str]:
    """What a fault can be limited to."""
    known = {"account": account.name}
    asked: Any = await document(request) if request.method == "POST" else request.query
    for name in ("region", "instance_type", "market"):
        if isinstance(asked.get(name), str):
            known[name] = asked[name]
    return known


async def document(request: web.Request) -> dict[str, Any]:
    """The JSON object in a request's body."""
    try:
        read = json.loads(await request.read())
    except ConnectionResetError:
        raise errors.Dropped from None
    except ValueError:
        raise errors.invalid("the body is not JSON") from None
    if not isinstance(read, dict):
        raise errors.invalid("the body is not a JSON object")
    return read


async def read[T: BaseModel](request: web.Request, model: type[T]) -> T:
    """The body as a model. A refusal names fields and never shows what was in them."""
    try:
        return model.model_validate(await document(request))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        words = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)
        raise errors.invalid(words) from None


def page(rows: list[dict[str, Any]], query: Mapping[str, str], size: int) -> dict[str, Any]:
    """The rows after the last one of the page before. Ids stand for places, so nothing is skipped."""
    wanted = query.get("limit", "")
    limit = min(int(wanted), size) if wanted.isdecimal() and int(wanted) else size
    rows = sorted(rows, key=lambda row: (row["created"], row["id"]))
    last = query.get("page", "")
    if last:
        rows = [row for row in rows if f"{row['created']}/{row['id']}" > last]
    shown = rows[:limit]
    more = f"{shown[-1]['created']}/{shown[-1]['id']}" if len(rows) > limit else None
    return {"instances": shown, "next_page": more}


def tags_of(request: web.Request) -> dict[str, str]:
    """The tags that are asked for."""
    return {
        name.removeprefix("tag."): value for name, value in request.query.items() if name.startswith("tag.")
    }


def account_of(request: web.Request) -> Account:
    """Whose request it is."""
    return request[ACCOUNT]


def refused(refusal: errors.Refusal) -> web.Response:
    """A refusal as JSON."""
    headers = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
    document = {"error": {"code": refusal.code, "message": str(refusal)}}
    return web.json_response(document, status=refusal.status, headers=headers)
