"""What accounts sell, asked once in a while for all nodes together, never by each node.

An account that does not answer holds up nobody for long: the question goes on in the background, and whoever
asked comes again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.accounts import PROVIDER_SECONDS, NoAccount, refusal
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.observation import Refusal
from skyward_operator.placement.ordering import key
from skyward_operator.placement.survey import Answer
from skyward_operator.providers.errors import ProviderError, RateLimited, Rejected, Transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from skyward.contract.hardware import Candidate
    from skyward_operator.engine.clock import Clock
    from skyward_operator.engine.supervisor import Supervisor
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.placement.ordering import OfferKey
    from skyward_operator.placement.unavailable import Unavailable
    from skyward_operator.providers.contract import Offer

logger = logging.getLogger(__name__)

FRESH_SECONDS: Final = 30.0
"""So long an answer holds for whoever asks the same. Prices are asked for again before a purchase."""
QUOTE_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 2.0
"""So long a node waits for an answer before it lets others go first."""
MOST_ANSWERS: Final = 100
"""Answers and prices that are kept: an answer of a large cloud has thousands of offers."""

type Question = tuple[Account, str]


@dataclass(frozen=True, slots=True)
class _Known:
    offers: tuple[Offer, ...]
    refusal: Refusal | None
    at: float


@dataclass(frozen=True, slots=True)
class _Price:
    quoted: Offer | ProviderError
    at: float


class Market:
    """Offers by account and hardware, and prices in force."""

    def __init__(
        self, accounts: Accounts, clock: Clock, supervisor: Supervisor, unavailable: Unavailable
    ) -> None:
        self._accounts = accounts
        self._clock = clock
        self._supervisor = supervisor
        self._unavailable = unavailable
        self._known: dict[Question, _Known] = {}
        self._prices: dict[tuple[Account, OfferKey], _Price] = {}
        self._asking: dict[object, asyncio.Task[None]] = {}

    async def answers(self, namespace: str, candidates: Iterable[Candidate]) -> list[Answer]:
        """What the accounts of these candidates sell of them, all asked at the same time."""
        return await asyncio.gather(*(self.answer(namespace, each) for each in candidates))

    async def answer(self, namespace: str, candidate: Candidate) -> Answer:
        """What the candidate's account sells of it, not older than `FRESH_SECONDS`."""
        account = Account.of(namespace, candidate)
        question = account, hardware(candidate)
        if not self._is_fresh(question):
            if block := self._unavailable.block(account, None, self._clock.monotonic()):
                return Answer(candidate, account, (), block.refusal, block.until)
            await self._wait(question, lambda: self._ask(question, account, candidate))
        known = self._known.get(question)
        now = self._clock.monotonic()
        if known is not None and self._is_fresh(question):
            return Answer(
                candidate,
                account,
                answering(candidate, known.offers),
                known.refusal,
                known.at + FRESH_SECONDS,
            )
        if block := self._unavailable.block(account, None, now):
            return Answer(candidate, account, (), block.refusal, block.until)
        text = f"candidate {candidate.name}: {account} is being asked for its offers"
        return Answer(candidate, account, (), Refusal(NodeReason.ACCEPTED, text, permanent=False), now + 1.0)

    async def quote(self, namespace: str, candidate: Candidate, offer: Offer) -> Offer | None:
        """The offer at the price in force, not older than `QUOTE_SECONDS`; None while that is asked.

        Raises what the provider says: Rejected for what is not sold any more.
        """
        account = Account.of(namespace, candidate)
        question = account, key(offer)
        if (price := self._price(question)) is None:
            await self._wait(question, lambda: self._ask_price(question, candidate, offer))
            price = self._price(question)
        if price is None:
            return None
        if isinstance(price.quoted, ProviderError):
            raise price.quoted
        return replace(offer, hourly_price=price.quoted.hourly_price)

    def known(self, account: Account, candidate: Candidate) -> tuple[Offer, ...]:
        """What was last heard of that hardware at that account, however long ago, without asking."""
        known = self._known.get((account, hardware(candidate)))
        return known.offers if known is not None else ()

    def outdate(self, account: Account) -> None:
        """Prices have moved: ask this account anew."""
        for question in [each for each in self._known if each[0] == account]:
            self._known[question] = replace(self._known[question], at=float("-inf"))
        for priced in [each for each in self._prices if each[0] == account]:
            del self._prices[priced]

    def _is_fresh(self, question: Question) -> bool:
        known = self._known.get(question)
        return known is not None and self._clock.monotonic() - known.at < FRESH_SECONDS

    def _price(self, question: tuple[Account, OfferKey]) -> _Price | None:
        price = self._prices.get(question)
        return price if price and self._clock.monotonic() - price.at < QUOTE_SECONDS else None

    async def _wait(self, question: object, ask: Callable[[], Awaitable[None]]) -> None:
        """Wait a moment for the answer that is being asked for, and ask if nobody does."""
        task = self._asking.get(question)
        if task is None:

            async def run() -> None:
                try:
                    await ask()
                finally:
                    self._asking.pop(question, None)

            task = self._asking[question] = self._supervisor.spawn("market", run())
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS)

    async def _ask(self, question: Question, account: Account, candidate: Candidate) -> None:
        try:
            provider = await self._accounts.of(account, f"candidate {candidate.name}")
            async with asyncio.timeout(PROVIDER_SECONDS):
                offers = tuple(await provider.offers(candidate))
        except Rejected as error:
            said = replace(refusal(error), message=f"candidate {candidate.name}: {error}")
            self._keep(question, (), said)
        except (NoAccount, ProviderError, TimeoutError) as error:
            if isinstance(error, NoAccount) and error.refusal.permanent:
                self._keep(question, (), error.refusal)
            else:
                self._fail(account, error)
        else:
            self._unavailable.succeeded(account)
            self._keep(question, offers, None)

    def _keep(self, question: Question, offers: tuple[Offer, ...], said: Refusal | None) -> None:
        self._known[question] = _Known(offers, said, self._clock.monotonic())
        while len(self._known) > MOST_ANSWERS:
            del self._known[min(self._known, key=lambda each: self._known[each].at)]

    def _fail(self, account: Account, error: NoAccount | ProviderError | TimeoutError) -> None:
        if isinstance(error, TimeoutError):
            error = Transient(f"provider {account.provider} gave no offers within {PROVIDER_SECONDS:.0f} s")
        said = error.refusal if isinstance(error, NoAccount) else refusal(error)
        pause = error.retry_after if isinstance(error, RateLimited) else None
        self._unavailable.refuse(account, None, said, self._clock.monotonic(), seconds=pause)
        logger.warning("%s says nothing about its offers: %s", account, said.message)

    async def _ask_price(
        self, question: tuple[Account, OfferKey], candidate: Candidate, offer: Offer
    ) -> None:
        quoted: Offer | ProviderError
        try:
            provider = await self._accounts.of(question[0], f"candidate {candidate.name}")
            async with asyncio.timeout(PROVIDER_SECONDS):
                quoted = await provider.quote(offer)
        except TimeoutError:
            quoted = Transient(f"provider {candidate.provider} gave no price within {PROVIDER_SECONDS:.0f} s")
        except NoAccount as none:
            quoted = Transient(none.refusal.message)
        except ProviderError as error:
            quoted = error
        self._prices[question] = _Price(quoted, self._clock.monotonic())
        while len(self._prices) > MOST_ANSWERS:
            del self._prices[next(iter(self._prices))]


def answering(candidate: Candidate, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    """The same offers as an answer to this candidate; another one may have asked for them."""
    if all(offer.candidate == candidate.name for offer in offers):
        return offers
    return tuple(replace(offer, candidate=candidate.name) for offer in offers)


def hardware(candidate: Candidate) -> str:
    """What a candidate asks a provider for, whatever its name and its price cap."""
    asked = candidate.model_dump(mode="json", exclude={"name", "max_hourly_price", "credentials_ref"})
    return repr(sorted(asked.items()))
