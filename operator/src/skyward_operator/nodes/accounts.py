"""The provider behind a candidate, with the credentials that the candidate refers to."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from skyward.contract.reasons import NodeReason
from skyward_operator.kube.errors import NotFound
from skyward_operator.kube.kinds import SECRET
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.observation import Refusal
from skyward_operator.providers.errors import (
    OutOfCapacity,
    PriceTooHigh,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unauthorized,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from skyward.contract.hardware import Candidate
    from skyward.contract.node import ComputeNode
    from skyward_operator.kube.api import Api
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

    def __init__(self, api: Api, registry: Registry) -> None:
        self._api = api
        self._registry = registry

    async def provider(self, namespace: str, candidate: Candidate) -> Provider:
        """The adapter for a candidate. Raises NoAccount."""
        return await self.of(Account.of(namespace, candidate), f"candidate {candidate.name}")

    async def of(self, account: Account, who: str = "the account") -> Provider:
        """The adapter for an account, with its credentials as they are now. Raises NoAccount, and what the
        adapter says of them."""
        if account.provider not in self._registry:
            known = ", ".join(self._registry.names)
            text = f"the operator has no adapter for provider {account.provider!r}; it has: {known}"
            raise NoAccount(Refusal(NodeReason.PROVIDER_UNKNOWN, text, permanent=True))
        return self._registry.provider(account.provider, await self._credentials(account, who))

    async def of_node(self, node: ComputeNode) -> Provider:
        """The adapter that a node's machine was asked from. Raises NoAccount."""
        return await self.provider(node.metadata.namespace or "", chosen(node))

    async def _credentials(self, account: Account, who: str) -> dict[str, str]:
        if not account.secret:
            return {}
        try:
            secret = await self._api.get(SECRET, account.namespace, account.secret)
        except NotFound:
            text = f"{who} refers to Secret {account.secret}, which does not exist"
            raise NoAccount(Refusal(NodeReason.CREDENTIALS_NOT_FOUND, text, permanent=False)) from None
        return {name: base64.b64decode(value).decode() for name, value in secret.get("data", {}).items()}


def chosen(node: ComputeNode) -> Candidate:
    """The candidate that the node's machine was asked for."""
    launch = node.status.launch
    name = launch.candidate if launch else None
    return next((each for each in node.spec.candidates if each.name == name), node.spec.candidates[0])


def refusal(error: ProviderError) -> Refusal:
    """What a provider's error means for a node."""
    match error:
        case PriceTooHigh():
            return Refusal(NodeReason.PRICE_CAP_EXCEEDED, str(error), permanent=False)
        case OutOfCapacity():
            return Refusal(NodeReason.INSUFFICIENT_CAPACITY, str(error), permanent=False)
        case QuotaExceeded():
            return Refusal(NodeReason.QUOTA_EXCEEDED, str(error), permanent=False)
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
