"""The `sim` provider: the simulated cloud, on which a manifest can be rehearsed without spending.

An account is given by a Secret with `endpoint`, `key` and perhaps `profile: bare`, or by the variables
SKYWARD_SIM_ENDPOINT, SKYWARD_SIM_KEY and SKYWARD_SIM_PROFILE in the operator's environment. What the account
can do follows from its profile: `full` and `user-data` are like the large clouds, `bare` like most that rent
out GPUs.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from skyward_operator.providers.contract import (
    TAG_INSTALLATION,
    TAG_POOL,
    Capabilities,
    Listing,
    MachineState,
    Metadata,
    Notice,
)
from skyward_operator.providers.errors import (
    OutOfCapacity,
    PriceTooHigh,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Transient,
    UnknownOutcome,
)
from skyward_operator.providers.fit import fitting
from skyward_operator.providers.http import Http
from skyward_operator.providers.sim import documents
from skyward_operator.providers.sim.account import account

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.contract import CreateRequest, Machine, Offer, Setup
    from skyward_operator.providers.http import Answer

NAME = "sim"
VISIBILITY_SECONDS = 2.0
POWER_OFF = "skyward-power-off"
"""Its machines are processes of a computer: `shutdown` would be about that."""
MOST_PAGES = 1000
METADATA = Metadata("", "/interruption", "at", base_variable="SIM_METADATA_URL", every=1.0)


class SimProvider:
    """One account of a simulated cloud."""

    name = NAME

    def __init__(self, setup: Setup) -> None:
        """Raises Unauthorized when endpoint or key are missing."""
        self._account = account(setup.credentials, os.environ)
        headers = {"Authorization": f"Bearer {self._account.key}"}
        self._http = Http(NAME, self._account.endpoint, headers, meaning)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the account's profile."""
        profile = self._account.profile
        return Capabilities(
            idempotency_token=profile != "bare",
            visibility_seconds=VISIBILITY_SECONDS,
            host_key=profile == "full",
            stop_ends_billing=profile != "bare",
            user_data=profile == "user-data",
            power_off=POWER_OFF,
            side_resources=True,
            spot=True,
            regions=True,
            interruption_notice_seconds=120.0,
            prices_move=True,
            metadata=METADATA,
        )

    async def offers(self, candidate: Candidate) -> Sequence[Offer]:
        """All that is sold and fits."""
        refuse_parameters(candidate.parameters)
        found = read(documents.Offers, await self._http.get("/v1/offers"))
        return fitting(candidate, [each.offer(NAME, candidate.name) for each in found.offers])

    async def quote(self, offer: Offer) -> Offer:
        """The price in force."""
        asked = {"region": offer.region, "instance_type": offer.instance_type, "market": offer.market}
        found = read(documents.Quote, await self._http.get("/v1/quote", asked))
        return replace(offer, hourly_price=found.hourly)

    async def create(self, request: CreateRequest) -> Machine:
        """Register the key and the security group, then order the machine."""
        refuse_parameters(request.parameters)
        order = {
            "client_token": request.token,
            "region": request.offer.region,
            "instance_type": request.offer.instance_type,
            "market": request.offer.market,
            "name": request.name,
            "tags": dict(request.tags),
            "ssh_key": await self._ssh_key(request),
            "security_group": await self._security_group(request),
            "user_data": request.user_data,
            "max_hourly": f"{cap:f}" if (cap := request.max_hourly_price) is not None else None,
        }
        ordered = await self._http.post("/v1/instances", order, buys=True)
        try:
            return read(documents.Instance, ordered).machine()
        except Transient as error:
            raise UnknownOutcome(str(error)) from error

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """All pages; one that may lack some makes the whole incomplete."""
        machines: list[Machine] = []
        complete, page = True, ""
        for _ in range(MOST_PAGES):
            asked = tag_query(tags) | ({"page": page} if page else {})
            found = read(documents.Page, await self._http.get("/v1/instances", asked))
            machines += [each.machine() for each in found.instances]
            complete = complete and found.complete
            if not found.next_page:
                return Listing(machines, complete)
            page = found.next_page
        return Listing(machines, complete=False)

    async def describe(self, machine_id: str) -> Machine | None:
        """The machine as the cloud shows it."""
        try:
            found = await self._http.get(f"/v1/instances/{path_word(machine_id)}")
        except NotThere:
            return None
        return read(documents.Instance, found).machine()

    async def terminate(self, machine_id: str, token: str) -> bool:
        """Have it end, if it is ours. True once the cloud says that it is gone."""
        machine = await self.describe(machine_id)
        if machine is None or machine.token != token or machine.state is MachineState.GONE:
            return True
        if machine.state is not MachineState.STOPPING:
            try:
                await self._http.delete(f"/v1/instances/{path_word(machine_id)}")
            except NotThere:
                return True
        return False

    async def interruptions(self, tags: Mapping[str, str]) -> Sequence[Notice]:
        """What the cloud announces."""
        found = await self._http.get("/v1/interruptions", tag_query(tags))
        return [Notice(each.instance, each.at) for each in read(documents.Interruptions, found).interruptions]

    async def console(self, machine_id: str) -> str:
        """The machine's console; empty for one that is not there."""
        try:
            found = await self._http.get(f"/v1/instances/{path_word(machine_id)}/console")
        except NotThere:
            return ""
        return read(documents.Console, found).console

    async def clean_up(self, tags: Mapping[str, str]) -> bool:
        """Remove keys and security groups that no machine uses any more; the cloud counts the users."""
        left = False
        found = read(documents.SideResources, await self._http.get("/v1/side", tag_query(tags)))
        for resource in found.side:
            try:
                await self._http.delete(f"/v1/side/{path_word(resource.id)}")
            except NotThere:
                continue
            except StillUsed:
                left = True
        return not left

    async def aclose(self) -> None:
        """Close the connections; machines stay."""
        await self._http.aclose()

    async def _ssh_key(self, request: CreateRequest) -> str:
        key = request.ssh_public_key.strip()
        return await self._side("ssh-key", side_name(request, key), {"public_key": key}, request)

    async def _security_group(self, request: CreateRequest) -> str:
        return await self._side("security-group", side_name(request), {"allow": "tcp/22"}, request)

    async def _side(self, kind: str, name: str, content: dict[str, str], request: CreateRequest) -> str:
        """The id of a side resource that is there afterwards; the same one for the same name."""
        wanted = {"kind": kind, "name": name, "tags": shared_tags(request.tags), "content": content}
        return read(documents.SideResource, await self._http.post("/v1/side", wanted)).id


class NotThere(Rejected):
    """The cloud has no such thing."""


class StillUsed(Rejected):
    """A side resource that a machine uses."""


def meaning(answer: Answer) -> ProviderError | None:
    """What the cloud's codes mean. A side resource that went away between two requests is made again."""
    text = f"sim: {answer.message}"
    match answer.code:
        case "InsufficientCapacity":
            return OutOfCapacity(text)
        case "QuotaExceeded":
            limit = re.search(r" is (\d+)$", answer.message)
            return QuotaExceeded(text, int(limit[1]) if limit else None)
        case "PriceTooHigh":
            return PriceTooHigh(text)
        case "NotFound" if answer.message.startswith(("ssh-key", "security-group")):
            return Transient(f"{text}; it is made again")
        case "NotFound":
            return NotThere(text)
        case "InUse":
            return StillUsed(text)
        case "IdempotencyMismatch":
            return UnknownOutcome(f"{text}: look for its machine")
        case "InvalidParameter" | "NameTaken":
            return Rejected(text)
        case _:
            return None


def read[T: BaseModel](model: type[T], document: Any) -> T:
    """An answer as a model. Raises Transient, naming the fields, for one of another shape."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, each["loc"])) for each in error.errors(include_input=False))
        raise Transient(f"sim answered with a document that lacks or has wrong: {fields}") from None


def shared_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of what the nodes of a pool share."""
    return {name: tags[name] for name in (TAG_INSTALLATION, TAG_POOL) if name in tags}


def side_name(request: CreateRequest, content: str = "") -> str:
    """The name of a side resource: one for each pool, and another for other content."""
    identity = "/".join([*shared_tags(request.tags).values(), content])
    return f"skyward-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def tag_query(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as the cloud is asked for them."""
    return {f"tag.{name}": value for name, value in tags.items()}


def path_word(word: str) -> str:
    """An id as part of a path. Raises Rejected for what is none."""
    if not word.replace("-", "").isalnum() or not word.isascii():
        raise Rejected(f"{word[:64]!r} is not an id of the sim provider")
    return word


def refuse_parameters(parameters: Mapping[str, str]) -> None:
    """There are none."""
    if parameters:
        raise Rejected(f"parameters: the sim provider has none, not {', '.join(sorted(parameters))}")
