"""What can go wrong at a provider, sorted by what the caller should do next.

    ProviderError
    ├── OutOfCapacity    try the next offer; this one may be back in some minutes
    │   └── PriceTooHigh the same; the market has moved above the highest price allowed
    ├── QuotaExceeded    try another provider or account; tell the person which quota
    ├── Rejected         never retry this request: it is wrong, and stays wrong
    ├── Unauthorized     stop using these credentials until they change
    ├── RateLimited      the same again, after `retry_after` seconds
    ├── Transient        the same again, after a pause; nothing was bought
    └── UnknownOutcome   the request may have bought a machine: look it up by token before anything else

Adapters translate vendor errors at their edge. A message names the object, what happened and what to do,
and never holds a secret.
"""

from __future__ import annotations


class ProviderError(Exception):
    """Anything that a provider refused or failed to do."""


class OutOfCapacity(ProviderError):
    """The provider has no such machine now."""


class PriceTooHigh(OutOfCapacity):
    """The market asks for more than the highest price that the order allows."""


class QuotaExceeded(ProviderError):
    """The account may not have more of these. A `limit` of 0 is never enough, whatever else ends."""

    def __init__(self, message: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class Rejected(ProviderError):
    """The request is wrong and will stay wrong."""


class Unauthorized(ProviderError):
    """The credentials are missing, wrong or lack a permission."""


class RateLimited(ProviderError):
    """Too many requests; the same request is fine later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Transient(ProviderError):
    """The provider is unwell; nothing was bought or released."""


class UnknownOutcome(ProviderError):
    """The answer was lost: a machine may or may not have been bought."""
