"""The whole of placement: what a node buys next, and what came of it.

Everything that is remembered here is shared by all nodes of the operator: a refusal to one spares the others
theirs.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from skyward.contract.names import POOL
from skyward.contract.reasons import NodeReason, PoolReason
from skyward_operator.nodes.accounts import refusal
from skyward_operator.nodes.observation import Offers, Refusal
from skyward_operator.placement.admission import Admission
from skyward_operator.placement.board import Board
from skyward_operator.placement.history import History
from skyward_operator.placement.market import Market
from skyward_operator.placement.ordering import key
from skyward_operator.placement.purse import OpenPurse, Purse
from skyward_operator.placement.sellers import seller_of
from skyward_operator.placement.survey import Refused, survey
from skyward_operator.placement.tried import LAUNCHED, MOST, Entry, Tried, of_offer
from skyward_operator.placement.unavailable import Unavailable
from skyward_operator.placement.words import price_words, words
from skyward_operator.providers.errors import PriceTooHigh, ProviderError, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from skyward.contract.node import ComputeNode
    from skyward.contract.pool import ComputePool
    from skyward_operator.context import Context
    from skyward_operator.kube.store import Key
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.nodes.book import Account
    from skyward_operator.placement.ordering import OfferKey
    from skyward_operator.placement.sellers import Seller
    from skyward_operator.providers.contract import Offer

MOST_REJECTED: Final = 5
"""Offers that a provider refused one node as wrong: then the request is, and no further one is asked for."""
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
"""Between two looks of a node that has nothing to ask for. A look costs no request while all is known."""
MOVING: Final = (NodeReason.PRICE_CAP_EXCEEDED, NodeReason.QUOTA_EXCEEDED)
"""What refuses today may not tomorrow, without a change of the pool."""
SHOWN_FROM_SECONDS: Final = 20.0
"""A next try that is nearer than that is not worth a write."""


class Placement:
    """Chooses offers for nodes, with what all of them learnt."""

    def __init__(
        self,
        context: Context,
        accounts: Accounts,
        look_again: Callable[[Key], None],
        purse: Purse | None = None,
    ) -> None:
        self._context = context
        self._clock = context.clock
        self._look_again = look_again
        self._waiting: dict[str, Key] = {}
        self._short: dict[str, Key] = {}
        """Those of them that a budget keeps waiting."""
        """Nodes that have nothing to ask for, by uid."""
        self.unavailable = Unavailable()
        self.history = History()
        self.tried = Tried(context.clock)
        self.market = Market(accounts, context.clock, context.supervisor, self.unavailable)
        self.admission = Admission(self.market, self.unavailable, purse or OpenPurse(), context.clock)

    async def offers(self, node: ComputeNode, rejected: Mapping[OfferKey, Refusal]) -> Offers:
        """The offer that this node is to ask for next, or why there is none and when to look again.

        An offer that comes back has its price in force, is within every cap, and was admitted by the purse.
        """
        wrong = [each for each in rejected.values() if each.reason == NodeReason.REQUEST_REJECTED]
        if len(wrong) >= MOST_REJECTED:
            return Offers((), tuple(wrong))
        namespace, pool = node.metadata.namespace or "", node.spec.pool_ref
        answers = await self.market.answers(namespace, node.spec.candidates)
        found = survey(
            answers,
            self._selection(node),
            self.unavailable,
            self.history,
            rejected,
            node.metadata.uid or "",
            self._clock.monotonic(),
        )
        refused = list(found.refused)
        offer = await self.admission.first(node, found, refused)
        refused = [replace(each, refusal=self._moving(node, each.refusal)) for each in refused]
        for each in refused[:MOST]:
            self.tried.note(pool.uid, self._entry(each), again=False)
        self._remember_wait(node, [] if offer else refused)
        reasons = tuple(each.refusal for each in refused)
        return Offers((offer,) if offer else (), reasons, self._pause(node, refused))

    async def board(self, pool: ComputePool) -> Board:
        """What nodes of this pool could ask for now, without asking for anything."""
        namespace = pool.metadata.namespace or ""
        answers = await self.market.answers(namespace, pool.spec.candidates)
        now = self._clock.monotonic()
        found = survey(answers, pool.spec.selection, self.unavailable, self.history, {}, "", now)
        return Board(found, answers)

    def blocked(self, node: ComputeNode, offer: Offer) -> Refusal | None:
        """Why a recorded intent is not worth an order any more: the offer was refused meanwhile."""
        seller = seller_of(node, offer)
        block = self.unavailable.block(
            seller.account,
            self.admission.whole(seller, offer),
            self._clock.monotonic(),
            who=node.metadata.uid or "",
            cap=seller.candidate.max_hourly_price,
        )
        return block.refusal if block is not None else None

    def refused(self, node: ComputeNode, offer: Offer, error: ProviderError) -> Refusal:
        """A provider refused an order of this node: have it left alone for a while, and keep its words."""
        seller, said = seller_of(node, offer), self._moving(node, refusal(error))
        until = None
        if not isinstance(error, Rejected):
            until = self.admission.refuse(seller, offer, said)
        if isinstance(error, PriceTooHigh):
            self.market.outdate(seller.account)
        self._note(node, Refused(seller.candidate, said, offer, until))
        return said

    def bought(self, node: ComputeNode, offer: Offer) -> None:
        """A machine of this offer was made for the node."""
        seller = seller_of(node, offer)
        self._tell_fallback(node, seller, offer)
        if self.unavailable.succeeded(seller.account, self.admission.whole(seller, offer)):
            self.wake()
        now = self._clock.now()
        self.tried.note(node.spec.pool_ref.uid, of_offer(seller.candidate.name, offer, LAUNCHED, "", now))

    def took_away(self, account: Account, offer: Offer) -> None:
        """The provider took a machine of this offer back: no replacement is looked for there for a while."""
        text = f"{words(offer)} was taken back"
        said = Refusal(NodeReason.INTERRUPTED, text, permanent=False)
        self.unavailable.refuse(account, offer, said, self._clock.monotonic())

    def freed(self, node: ComputeNode, offer: Offer) -> None:
        """The node's machine is gone: what a quota refused may be had again."""
        if self.unavailable.freed(seller_of(node, offer).account):
            self.wake()

    def machine_ended(self, namespace: str) -> None:
        """A machine costs nothing any more: what a budget refused in its namespace may be had again."""
        for node in self._short.values():
            if node[0] == namespace:
                self._look_again(node)

    def wake(self) -> None:
        """Something that was refused can be had again: whoever waits looks now."""
        for node in self._waiting.values():
            self._look_again(node)

    def forget(self, node_uid: str, pool_uid: str) -> None:
        """A node is gone."""
        self.tried.waits(pool_uid, node_uid, None)
        self._waiting.pop(node_uid, None)
        self._short.pop(node_uid, None)

    # -- what is remembered -------------------------------------------------------------------------------

    def _moving(self, node: ComputeNode, said: Refusal) -> Refusal:
        """A price or quota that refuses a pool which had machines has moved, and may move back: it is waited
        for. To a new pool it says that the pool cannot be as it is written."""
        if said.permanent and said.reason in MOVING and self._has_bought(node):
            return replace(said, permanent=False)
        return said

    def _has_bought(self, node: ComputeNode) -> bool:
        """Whether the node's pool had a machine, as far as that is known."""
        reference, namespace = node.spec.pool_ref, node.metadata.namespace or ""
        pool = self._context.store.get(POOL, namespace, reference.name) or {}
        cost = (pool.get("status") or {}).get("cost") or {}
        return self.tried.has_launched(reference.uid) or Decimal(cost.get("accrued") or 0) > 0

    def _note(self, node: ComputeNode, refused: Refused) -> None:
        self.tried.note(node.spec.pool_ref.uid, self._entry(refused))

    def _entry(self, refused: Refused) -> Entry:
        said, now = refused.refusal, self._clock.now()
        retry = self._moment(refused.until) if refused.until is not None else None
        if refused.offer is not None:
            name = refused.candidate.name
            return of_offer(name, refused.offer, str(said.reason), said.message, now, retry)
        return Entry(
            candidate=refused.candidate.name,
            provider=refused.candidate.provider,
            outcome=str(said.reason),
            message=said.message,
            time=now,
            retry=retry,
        )

    def _remember_wait(self, node: ComputeNode, refused: list[Refused]) -> None:
        """For the pool's status: when this node has something to ask for again."""
        times = [each.until for each in refused if each.until is not None]
        now = self._clock.monotonic()
        until = min(times, default=now)
        shown = self._moment(until) if until - now >= SHOWN_FROM_SECONDS else None
        meta = node.metadata
        self.tried.waits(node.spec.pool_ref.uid, meta.uid or "", shown)
        uid, key = meta.uid or "", (meta.namespace or "", meta.name)
        if refused:
            self._waiting[uid] = key
        else:
            self._waiting.pop(uid, None)
        if any(each.refusal.reason == NodeReason.AWAITING_BUDGET for each in refused):
            self._short[uid] = key
        else:
            self._short.pop(uid, None)

    def _pause(self, node: ComputeNode, refused: list[Refused]) -> float:
        """Seconds until the next look. Nodes that wait for the same do not come in the same moment."""
        times = [each.until for each in refused if each.until is not None]
        wait = min(times, default=self._clock.monotonic() + LONGEST_SECONDS) - self._clock.monotonic()
        spread = 1.0 + zlib.crc32((node.metadata.uid or "").encode()) / 2**32 / 5
        return min(LONGEST_SECONDS, max(SHORTEST_SECONDS, wait)) * spread

    def _moment(self, until: float) -> datetime:
        seconds = max(0.0, until - self._clock.monotonic())
        return self._clock.now() + timedelta(seconds=seconds)

    def _selection(self, node: ComputeNode) -> str:
        pool = self._context.store.get(POOL, node.metadata.namespace or "", node.spec.pool_ref.name)
        return str(pool["spec"].get("selection", "cheapest")) if pool else "cheapest"

    # -- what people are told -----------------------------------------------------------------------------

    def _tell_fallback(self, node: ComputeNode, seller: Seller, offer: Offer) -> None:
        """An event on pool and node where on-demand was bought because spot could not be had."""
        if seller.candidate.market != "spot-if-available" or offer.market == "spot":
            return
        spot = [each for each in self.market.known(seller.account, seller.candidate) if each.market == "spot"]
        if not spot:
            return
        cheapest = min(spot, key=lambda each: (each.hourly_price is None, each.hourly_price, key(each)))
        cap, now = seller.candidate.max_hourly_price, self._clock.monotonic()
        block = self.unavailable.block(seller.account, cheapest, now, cap=cap)
        why = block.refusal.message if block is not None else "it was not to be had"
        text = (
            f"{words(offer)} at {price_words(offer)} was bought, since {words(cheapest)} at "
            f"{price_words(cheapest)} was refused: {why}; later nodes try spot again"
        )
        store, namespace, pool = self._context.store, node.metadata.namespace or "", node.spec.pool_ref
        if (pool_object := store.get(POOL, namespace, pool.name)) is not None:
            self._context.events.emit(pool_object, "Warning", PoolReason.FELL_BACK_TO_ON_DEMAND, text)
        self._context.events.emit(reference(node), "Warning", NodeReason.FELL_BACK_TO_ON_DEMAND, text)


def reference(node: ComputeNode) -> dict[str, object]:
    """What an event needs to know of a node."""
    meta = node.metadata
    return {
        "apiVersion": node.api_version,
        "kind": node.kind,
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
    }
