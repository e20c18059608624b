"""The provider behind a candidate, with the credentials that the candidate refers to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.observation import Refusal
from skyward_operator.providers.errors import (
    OutOfCapacity,
    PriceTooHigh,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward.contract.hardware import Candidate
    from skyward.contract.node import ComputeNode
    from skyward_operator.nodes.credentials import Credentials
    from skyward_operator.providers.contract import Provider
    from skyward_operator.providers.registry import Registry

PROVIDER_SECONDS = 60.0
"""The longest that one call to a provider may take."""


class NoAccount(Exception):
    """There is no provider to talk to; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Accounts:
    """Providers by candidate."""

    def __init__(self, credentials: Credentials, registry: Registry) -> None:
        self._credentials = credentials
        self._registry = registry

    async def provider(self, namespace: str, candidate: Candidate) -> Provider:
        """The adapter for a candidate. Raises NoAccount."""
        return await self.of(Account.of(namespace, candidate), f"candidate {candidate.name}")

    async def of(self, account: Account, who: str = "the account") -> Provider:
        """The adapter for an account, with its credentials as they were a few seconds ago at most. Raises
        NoAccount, and what the adapter says of them."""
        if account.provider not in self._registry:
            text = f"the operator has no adapter for provider {self._registry.missing(account.provider)}"
            raise NoAccount(Refusal(NodeReason.PROVIDER_UNKNOWN, text, permanent=True))
        return self._registry.provider(account.provider, await self._data(account, who))

    async def of_node(self, node: ComputeNode) -> Provider:
        """The adapter that a node's machine was asked from. Raises NoAccount."""
        return await self.provider(node.metadata.namespace or "", chosen(node))

    async def _data(self, account: Account, who: str) -> Mapping[str, str]:
        if not account.secret:
            return {}
        data = await self._credentials.read(account.namespace, account.secret)
        if data is None:
            text = f"{who} refers to Secret {account.secret}, which does not exist"
            raise NoAccount(Refusal(NodeReason.CREDENTIALS_NOT_FOUND, text, permanent=False))
        return data


def chosen(node: ComputeNode) -> Candidate:
    """The candidate that the node's machine was asked for."""
    launch = node.status.launch
    return candidate_named(node, launch.candidate if launch else None)


def candidate_named(node: ComputeNode, name: str | None) -> Candidate:
    """The candidate of that name; the first one where there is none."""
    return next((each for each in node.spec.candidates if each.name == name), node.spec.candidates[0])


def trouble(error: ProviderError | NoAccount | TimeoutError) -> Refusal:
    """What keeps a provider from being asked, or from answering."""
    match error:
        case NoAccount():
            return error.refusal
        case TimeoutError():
            return refusal(Transient(str(error) or "the provider did not answer in time"))
        case _:
            return refusal(error)


def refusal(error: ProviderError) -> Refusal:
    """What a provider's error means for a node."""
    match error:
        case PriceTooHigh():
            return Refusal(NodeReason.PRICE_CAP_EXCEEDED, str(error), permanent=False)
        case OutOfCapacity():
            return Refusal(NodeReason.INSUFFICIENT_CAPACITY, str(error), permanent=False)
        case QuotaExceeded(limit=limit):
            return Refusal(NodeReason.QUOTA_EXCEEDED, str(error), permanent=limit == 0)
        case Unauthorized():
            return Refusal(NodeReason.INVALID_CREDENTIALS, str(error), permanent=False)
        case Rejected():
            return Refusal(NodeReason.REQUEST_REJECTED, str(error), permanent=True)
        case RateLimited():
            return Refusal(NodeReason.RATE_LIMITED, str(error), permanent=False)
        case UnknownOutcome():
            return Refusal(NodeReason.UNKNOWN_OUTCOME, str(error), permanent=False)
        case _:
            return Refusal(NodeReason.PROVIDER_UNAVAILABLE, str(error), permanent=False)
