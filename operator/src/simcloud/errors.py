"""What the API refuses with: a status, a code that programs read, and words for people."""

from __future__ import annotations


class Refusal(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Dropped(Exception):
    """The connection is cut instead of an answer."""


def unauthorized() -> Refusal:
    """The key is not known."""
    return Refusal(401, "Unauthorized", "the API key is missing or not known")


def forbidden(permission: str) -> Refusal:
    """The key is known and may not do this."""
    return Refusal(403, "Forbidden", f"the API key lacks the permission {permission!r}")


def invalid(message: str) -> Refusal:
    """The request is wrong and stays wrong."""
    return Refusal(400, "InvalidParameter", message)


def not_found(what: str) -> Refusal:
    """There is no such thing in this account."""
    return Refusal(404, "NotFound", f"{what} does not exist")


def in_use(what: str, users: int) -> Refusal:
    """A side resource that instances still use."""
    return Refusal(409, "InUse", f"{what} is used by {users} instances")


def token_mismatch(token: str) -> Refusal:
    """A client token was used before, for another order."""
    return Refusal(409, "IdempotencyMismatch", f"client token {token!r} was used with other parameters")


def no_capacity(instance_type: str, region: str, market: str) -> Refusal:
    """Nothing left of this just now."""
    return Refusal(503, "InsufficientCapacity", f"no {market} capacity for {instance_type} in {region}")


def quota_exceeded(quota: str, limit: int) -> Refusal:
    """The account may not have more."""
    return Refusal(422, "QuotaExceeded", f"quota {quota!r} of this account is {limit}")


def too_many_requests(retry_after: float) -> Refusal:
    """Slow down."""
    return Refusal(429, "TooManyRequests", "too many requests", retry_after)


def internal() -> Refusal:
    """The cloud is unwell. Nobody knows what was done."""
    return Refusal(500, "InternalError", "an internal error occurred")


def unavailable() -> Refusal:
    """The cloud is unwell, and nothing was done."""
    return Refusal(503, "Unavailable", "the service is unavailable")
