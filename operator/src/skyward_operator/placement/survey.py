"""What a node may buy now, and why the rest is not there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.observation import Refusal
from skyward_operator.placement.ordering import MARKETS, Standing, in_order, is_affordable, key
from skyward_operator.placement.words import too_dear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.nodes.book import Account
    from skyward_operator.placement.history import History
    from skyward_operator.placement.ordering import OfferKey
    from skyward_operator.placement.unavailable import Unavailable
    from skyward_operator.providers.contract import Offer


@dataclass(frozen=True, slots=True)
class Answer:
    """What an account said about one candidate: what it sells of it, or why it says nothing."""

    candidate: Candidate
    account: Account
    offers: tuple[Offer, ...] = ()
    refusal: Refusal | None = None
    again: float = 0.0
    """Monotonic time at which it is asked anew after a refusal."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that is not bought now, and why. Without an offer the whole candidate is not."""

    candidate: Candidate
    refusal: Refusal
    offer: Offer | None = None
    until: float | None = None
    """Monotonic time at which it may be asked for again; None: not as things are."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What is left, best first."""

    offers: tuple[Offer, ...]
    refused: tuple[Refused, ...]


def survey(
    answers: Sequence[Answer],
    selection: str,
    unavailable: Unavailable,
    history: History,
    rejected: Mapping[OfferKey, Refusal],
    who: str,
    now: float,
) -> Survey:
    """Sort out what a node `who` may ask for; `rejected` are offers that were refused to it for good."""
    accounts = {answer.candidate.name: answer.account for answer in answers}
    left: list[Offer] = []
    refused: list[Refused] = []
    for answer in answers:
        if answer.refusal is not None:
            refused.append(Refused(answer.candidate, answer.refusal, until=answer.again))
            continue
        fitting = affordable(answer)
        if isinstance(fitting, Refusal):
            refused.append(Refused(answer.candidate, fitting))
            continue
        cap = answer.candidate.max_hourly_price
        for offer in in_order(fitting, [answer.candidate], selection):
            if (final := rejected.get(key(offer))) is not None:
                refused.append(Refused(answer.candidate, final, offer))
            elif block := unavailable.block(answer.account, offer, now, who=who, cap=cap):
                refused.append(Refused(answer.candidate, block.refusal, offer, block.until))
            else:
                left.append(offer)

    def standing(offer: Offer) -> Standing:
        strikes = unavailable.strikes(accounts[offer.candidate], offer, now)
        return Standing(strikes, history.seconds(offer))

    candidates = [answer.candidate for answer in answers]
    return Survey(tuple(in_order(left, candidates, selection, standing)), tuple(refused))


def affordable(answer: Answer) -> list[Offer] | Refusal:
    """The offers in a market and below the price that the candidate allows, or why there is none."""
    candidate, cap = answer.candidate, answer.candidate.max_hourly_price
    if not answer.offers:
        text = f"candidate {candidate.name}: provider {candidate.provider} has no offer that fits now"
        return Refusal(NodeReason.NO_MATCHING_OFFER, text, permanent=False)
    sold = [offer for offer in answer.offers if offer.market in MARKETS[candidate.market]]
    if not sold:
        markets = ", ".join(sorted({offer.market for offer in answer.offers}))
        text = f"candidate {candidate.name}: what fits is sold {markets}, and market is {candidate.market}"
        return Refusal(NodeReason.NO_MATCHING_OFFER, text, permanent=True)
    if kept := [offer for offer in sold if is_affordable(offer, cap)]:
        return kept
    return Refusal(NodeReason.PRICE_CAP_EXCEEDED, too_dear(candidate, sold), permanent=True)
