"""The price in force, and who has to agree to it, just before a purchase.

What was listed some seconds ago may cost more by now, and a budget may have no room for it: nothing is
recorded or ordered before both were asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.accounts import refusal
from skyward_operator.nodes.observation import Refusal
from skyward_operator.placement.ordering import is_affordable, key
from skyward_operator.placement.sellers import seller_of
from skyward_operator.placement.survey import Refused
from skyward_operator.placement.words import too_dear, words
from skyward_operator.providers.errors import ProviderError, Rejected

if TYPE_CHECKING:
    from skyward.contract.node import ComputeNode
    from skyward_operator.engine.clock import Clock
    from skyward_operator.placement.market import Market
    from skyward_operator.placement.purse import Purse
    from skyward_operator.placement.sellers import Seller
    from skyward_operator.placement.survey import Survey
    from skyward_operator.placement.unavailable import Unavailable
    from skyward_operator.providers.contract import Offer

MOST_QUOTES: Final = 8
"""Prices that are asked for in one look."""
AGAIN_SECONDS: Final = 1.0
"""After so long a price that could not be had is asked for again."""


class Admission:
    """Lets offers through to their purchase."""

    def __init__(self, market: Market, unavailable: Unavailable, purse: Purse, clock: Clock) -> None:
        self._market = market
        self._unavailable = unavailable
        self.purse = purse
        self._clock = clock

    async def first(self, node: ComputeNode, found: Survey, refused: list[Refused]) -> Offer | None:
        """The first offer that is allowed at its price in force; why the ones before it are not is added."""
        quotes, by_purse = 0, list[Refused]()
        for offer in found.offers:
            seller = seller_of(node, offer)
            if (said := self.purse.admit(node, offer)) is not None:
                by_purse.append(Refused(seller.candidate, said, offer))
                continue
            if quotes == MOST_QUOTES:
                break
            quotes += 1
            quoted = await self._quoted(node, seller, offer, refused)
            if quoted is None:
                continue
            if (said := self.purse.admit(node, quoted)) is not None:
                by_purse.append(Refused(seller.candidate, said, quoted))
                continue
            who = node.metadata.uid or ""
            self._unavailable.claim(seller.account, quoted, who, self._clock.monotonic())
            return quoted
        _add(refused, by_purse)
        return None

    async def _quoted(
        self, node: ComputeNode, seller: Seller, offer: Offer, refused: list[Refused]
    ) -> Offer | None:
        """The offer at its price in force, if that is within the candidate's cap."""
        candidate = seller.candidate
        now = self._clock.monotonic()
        try:
            quoted = await self._market.quote(node.metadata.namespace or "", candidate, offer)
        except Rejected as error:
            text = f"{words(offer)} is not sold any more: {error}"
            said = Refusal(NodeReason.INSUFFICIENT_CAPACITY, text, permanent=False)
            refused.append(Refused(candidate, said, offer, self.refuse(seller, offer, said)))
            return None
        except ProviderError as error:
            refused.append(Refused(candidate, refusal(error), offer, now + AGAIN_SECONDS))
            return None
        if quoted is None:
            text = f"the price of {words(offer)} is being asked for"
            said = Refusal(NodeReason.ACCEPTED, text, permanent=False)
            refused.append(Refused(candidate, said, offer, now + AGAIN_SECONDS))
            return None
        if is_affordable(quoted, candidate.max_hourly_price):
            return quoted
        self._market.outdate(seller.account)
        said = Refusal(NodeReason.PRICE_CAP_EXCEEDED, too_dear(candidate, [quoted]), permanent=False)
        refused.append(Refused(candidate, said, quoted, self.refuse(seller, quoted, said)))
        return None

    def refuse(self, seller: Seller, offer: Offer, said: Refusal) -> float:
        """Have an offer left alone for a while; returns until when."""
        cap = seller.candidate.max_hourly_price
        whole = self.whole(seller, offer)
        return self._unavailable.refuse(seller.account, whole, said, self._clock.monotonic(), cap=cap)

    def whole(self, seller: Seller, offer: Offer) -> Offer:
        """The offer with all that its provider told of it: a status keeps less."""
        known = self._market.known(seller.account, seller.candidate)
        whole = next((each for each in known if key(each) == key(offer)), offer)
        return replace(whole, hourly_price=offer.hourly_price, candidate=offer.candidate)


def _add(refused: list[Refused], by_purse: list[Refused]) -> None:
    """One refusal of the purse is told: of the best offer that waits for money, else of the best one.

    It comes first, as what a person has to act on; but behind those of offers that could be paid.
    """
    if not by_purse:
        return
    waits = [each for each in by_purse if each.refusal.reason == NodeReason.AWAITING_BUDGET]
    payable = any(not each.refusal.permanent and each.offer is not None for each in refused)
    refused.insert(0 if waits or not payable else len(refused), (waits or by_purse)[0])
