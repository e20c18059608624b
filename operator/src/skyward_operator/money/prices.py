"""Follows prices that move while machines run: a spot machine costs what the market asks.

Each market is asked once for all of its machines. A rise counts from when the old price was last confirmed, a
fall from when it is seen: what stands in the statuses is never less than the bill.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import NODE
from skyward.contract.node import ComputeNode
from skyward_operator.engine.clock import timestamp
from skyward_operator.kube.errors import ApiError
from skyward_operator.nodes.accounts import NoAccount, chosen
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.launch import recorded_offer
from skyward_operator.placement.ordering import key
from skyward_operator.providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from skyward.contract.node_status import ComputeNodeStatus
    from skyward_operator.context import Context
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.placement.ordering import OfferKey

logger = logging.getLogger(__name__)

ROUND_SECONDS: Final = 20.0
"""A market is asked this often."""
FRESH_SECONDS: Final = 5.0
"""A price that is not older needs no further question."""
QUOTE_SECONDS: Final = 10.0
AT_ONCE: Final = 4
MOST_CHANGES: Final = 64

type Market = tuple[Account, OfferKey]
type Change = tuple[datetime, Decimal]
"""Since when, and how much per hour."""


class Prices:
    """The markets in which machines run."""

    def __init__(self, context: Context, accounts: Accounts) -> None:
        self._context = context
        self._accounts = accounts
        self._confirmed: dict[Market, Change] = {}
        """When a market last said what its price is, and what it said."""

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._context.clock.sleep(ROUND_SECONDS)
            await self.round()

    async def round(self) -> None:
        """Ask every market once, and write down what has moved."""
        markets = self._markets()
        self._confirmed = {each: said for each, said in self._confirmed.items() if each in markets}
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(market: Market, nodes: Sequence[ComputeNode]) -> None:
            async with slots:
                await self._follow(market, nodes)

        async with asyncio.TaskGroup() as group:
            for market, nodes in markets.items():
                group.create_task(one(market, nodes))

    def _markets(self) -> dict[Market, list[ComputeNode]]:
        found: defaultdict[Market, list[ComputeNode]] = defaultdict(list)
        for obj in self._context.store.list(NODE):
            node = ComputeNode.read(obj)
            if is_on_the_market(node.status):
                found[self._market(node)].append(node)
        return dict(found)

    async def last(self, node: ComputeNode) -> list[dict[str, Any]] | None:
        """The changes of price of a machine that has just ended, if there is one more: it is asked for a last
        time, since it may have risen after the last round."""
        market = self._market(node)
        known = self._confirmed.get(market)
        now = self._context.clock.now()
        if known is None or (now - known[0]).total_seconds() > FRESH_SECONDS:
            said = await self._ask(market, node)
            known, price = self._confirmed.get(market), said[1] if said is not None else None
        else:
            price = known[1]
        changes = moved(node, price, known, now)
        return None if changes is None else documents(changes)

    def _market(self, node: ComputeNode) -> Market:
        return Account.of(node.metadata.namespace or "", chosen(node)), key(recorded_offer(node))

    async def _follow(self, market: Market, nodes: Sequence[ComputeNode]) -> None:
        said = await self._ask(market, nodes[0])
        if said is None:
            return
        confirmed, written = self._confirmed.get(market), True
        for node in nodes:
            written = await self._write(node, said[1], confirmed) and written
        if written:
            self._confirmed[market] = said

    async def _ask(self, market: Market, node: ComputeNode) -> Change | None:
        """The price in force, and when it was asked for; None if it does not move or is not known."""
        account, _ = market
        asked = self._context.clock.now()
        try:
            async with asyncio.timeout(QUOTE_SECONDS):
                provider = await self._accounts.of(account)
                if not provider.capabilities.prices_move:
                    return None
                price = (await provider.quote(recorded_offer(node))).hourly_price
        except (NoAccount, ProviderError, ApiError, TimeoutError) as error:
            logger.warning("the price of %s is not known now: %s", account, error or "time-out")
            return None
        return None if price is None else (asked, price)

    async def _write(self, node: ComputeNode, price: Decimal, confirmed: Change | None) -> bool:
        """Whether the status says this price now."""
        changes = moved(node, price, confirmed, self._context.clock.now())
        if changes is None:
            return True
        meta = node.metadata
        patch = {"billing": {"prices": documents(changes)}, "display": {"hourly": f"{price:f}"}}
        try:
            await self._context.api.patch_status(
                NODE, meta.namespace or "", meta.name, patch, resource_version=meta.resource_version
            )
        except ApiError as error:
            logger.info("the price of node %s/%s is written later: %s", meta.namespace, meta.name, error)
            return False
        return True


def documents(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes as a status has them."""
    return [{"sinceTime": timestamp(since), "hourlyPrice": f"{hourly:f}"} for since, hourly in changes]


def is_on_the_market(status: ComputeNodeStatus) -> bool:
    """Whether a node's machine is a spot machine that is paid for now."""
    offer, billing = status.launch.offer if status.launch else None, status.billing
    if offer is None or billing is None or billing.start_time is None or billing.end_time is not None:
        return False
    return offer.market == "spot" and billing.hourly_price is not None


def moved(
    node: ComputeNode, price: Decimal | None, confirmed: Change | None, now: datetime
) -> list[Change] | None:
    """The changes of a node's price with this one, or None if it stands there already. Pure.

    A rise counts from when the old price was last `confirmed` by the market. If it never was by this process,
    it counts from when the old price began: the market may have moved between the intent and the order.
    """
    billing = node.status.billing
    if price is None or billing is None or billing.start_time is None or billing.hourly_price is None:
        return None
    changes = [
        (each.since_time, each.hourly_price)
        for each in billing.prices
        if each.since_time is not None and each.hourly_price is not None
    ]
    since, hourly = changes[-1] if changes else (billing.start_time, billing.hourly_price)
    if price == hourly:
        return None
    began = now
    if price > hourly:
        began = max(since, confirmed[0]) if confirmed is not None and confirmed[1] == hourly else since
    changes.append((began, price))
    while len(changes) > MOST_CHANGES:
        (first, one), (_, two), *rest = changes
        changes = [(first, max(one, two)), *rest]
    return changes
