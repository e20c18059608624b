"""`sky.offers(...)`: what a pool could buy now, best first. Nothing is ordered, and no price is held.

Credentials are the operator's to read, so it is asked. It answers whoever may create a pool: one is made for
the question, suspended so that it buys nothing, and deleted again.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Unpack

from skyward.cluster.api import Api, ApiError
from skyward.cluster.gateway import Gateway
from skyward.console import open_console
from skyward.contract.names import API_VERSION, POOL
from skyward.contract.reasons import next_step
from skyward.errors import PoolError
from skyward.manifest import candidate_objects, object_name
from skyward.offer import Offer, Refused
from skyward.spec import ELSEWHERE, Options, Spec, SpecFields
from skyward.validation import instance, reject_unknown

MOST_CHOSEN = 16
"""As many candidates as a pool may have."""
LEASE_SECONDS = 60
"""A pool that was made for a question goes by itself after this long, if whoever asked was killed."""


def offers(*specs: Spec, options: Options | None = None, **fields: Unpack[SpecFields]) -> list[Offer]:
    """What `sky.Compute` with the same arguments could buy now, in the order in which it would ask for it.

    Raises PoolError, saying why, where nothing fits.
    """
    reject_unknown("offers", fields, (*Spec.__dataclass_fields__, "options"), ELSEWHERE)
    if specs and fields:
        raise TypeError(f"offers() takes Specs or keywords, not both; put {', '.join(fields)} into each Spec")
    if fields and "provider" not in fields:
        raise TypeError("offers() needs a provider, such as sky.offers(provider=sky.AWS())")
    specs = specs or (Spec(**fields),)
    wanted = instance("options", options or Options(), Options, "sky.Options(namespace='team')")
    from skyward.session import open_api  # who only looks at a type pays for no connection

    console = open_console(wanted.console)
    try:
        with open_api(console) as api:
            namespace = wanted.namespace or api.connection.namespace
            spec = {"candidates": candidate_objects(specs), "selection": reading_order(wanted)}
            return some(*read_offers(api, namespace, spec))
    finally:
        console.close()


def read_offers(
    api: Api, namespace: str, spec: Mapping[str, Any], title: str = "offers"
) -> tuple[list[Offer], list[Refused]]:
    """What a pool with this spec could buy, and which of its candidates have no offer at all.

    Raises PoolError for a spec that the API server refuses, and GatewayError where the operator does not say.
    """
    with _asking(api, namespace, spec, title) as (name, ticket):
        gateway = Gateway(api, ticket)
        try:
            told = gateway.offers(namespace, name)
        finally:
            gateway.close()
    return [_offer(each) for each in told["offers"]], [Refused(**each) for each in told["refused"]]


def reading_order(options: Options) -> str:
    """In which order offers are read: a function gets them as `cheapest` would ask for them."""
    return options.selection if isinstance(options.selection, str) else "cheapest"


def some(found: Sequence[Offer], refused: Sequence[Refused]) -> list[Offer]:
    """The offers. Raises PoolError where there is none, with what was refused."""
    if found:
        return list(found)
    text = "; ".join(dict.fromkeys(each.message for each in refused)) or "no candidate has an offer"
    reason = refused[0].reason if refused else "NoMatchingOffer"
    raise PoolError(f"nothing can be bought: {text}", reason=reason, remedy=next_step(reason) or None)


def chosen_candidates(
    candidates: Sequence[Mapping[str, Any]], found: Sequence[Offer], chosen: Any
) -> list[dict[str, Any]]:
    """Candidates for exactly the offers that a `selection` function chose, in its order, at most 16."""
    ordered = [chosen] if isinstance(chosen, Offer) else chosen
    if isinstance(ordered, str | bytes) or not isinstance(ordered, Sequence):
        raise TypeError(f"selection must return an offer or a list of offers, got {type(chosen).__name__}")
    for each in ordered:
        if each not in found:
            raise ValueError(f"selection must return offers that it was given, got {each!r}")
    if not ordered:
        raise PoolError(
            f"selection chose none of {len(found)} offers",
            reason="NoMatchingOffer",
            remedy="have the function return those that will do, best first",
        )
    by_name = {each["name"]: each for each in candidates}
    return [
        {
            **by_name[offer.candidate],
            "name": f"o{place}",
            "regions": [offer.region],
            "instanceTypes": [offer.instance_type],
            "market": offer.market,
        }
        for place, offer in enumerate(list(ordered)[:MOST_CHOSEN])
    ]


@contextmanager
def _asking(api: Api, namespace: str, spec: Mapping[str, Any], title: str) -> Iterator[tuple[str, str]]:
    """A pool that buys nothing, for as long as somebody asks about it; its name and its ticket."""
    ticket, name = secrets.token_hex(32), object_name(title, 6)
    body = {
        "apiVersion": API_VERSION,
        "kind": POOL.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            **spec,
            "suspend": True,
            "lease": {"durationSeconds": LEASE_SECONDS},
            "ticketHash": hashlib.sha256(ticket.encode()).hexdigest(),
        },
    }
    try:
        api.create(POOL, body)
    except ApiError as error:
        raise PoolError(f"the pool was refused: {error.message}", remedy=error.remedy) from None
    try:
        yield name, ticket
    finally:
        api.delete(POOL, namespace, name)


def _offer(told: Mapping[str, Any]) -> Offer:
    def money(field: str) -> Decimal | None:
        return Decimal(told[field]) if field in told else None

    return Offer(
        told["provider"],
        told["region"],
        told["instanceType"],
        told["market"],
        money("hourlyPrice"),
        money("onDemandPrice"),
        told.get("vcpus"),
        told.get("memoryGiB"),
        told.get("diskGiB"),
        told.get("architecture"),
        told.get("accelerator"),
        money("acceleratorCount"),
        told.get("acceleratorMemoryGiB"),
        told["candidate"],
        told.get("refusal"),
    )
