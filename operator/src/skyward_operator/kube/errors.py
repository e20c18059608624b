"""What can go wrong between the operator and the API server, named by what the caller should do.

    ApiError
    ├── NotFound         the object is not there: often that is the wished state
    ├── AlreadyExists    the name is taken by an object that is not ours to claim
    ├── Conflict         the object moved on: read it again and decide again
    ├── Expired          a continue token or resourceVersion is too old: list from the start
    ├── Invalid          the request can never succeed as it is
    ├── Forbidden        the operator's role lacks a rule, or its credentials are refused
    ├── Throttled        still refused with 429 after every retry
    └── Unavailable      no answer, or 5xx, after every retry: the outcome of a write is unknown
    CredentialsError     there is no usable way to reach an API server
    NotLeader            this process may not act any more

NotLeader stands apart on purpose: nothing that handles an ApiError may swallow it.
Messages name verb and object; they never carry the bodies that were sent.
"""

from __future__ import annotations

from typing import Any, Final

_LONGEST_MESSAGE: Final = 600


class ApiError(Exception):
    """A request to the API server that did not succeed."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """The HTTP status, or 0 where there was no answer."""


class NotFound(ApiError):
    """The object does not exist."""


class AlreadyExists(ApiError):
    """An object of that name exists and differs from what was to be created."""


class Conflict(ApiError):
    """The precondition (resourceVersion, uid) does not hold any more."""


class Expired(ApiError):
    """The requested resourceVersion or continue token is too old."""


class Invalid(ApiError):
    """The API server refuses the request as it is."""


class Forbidden(ApiError):
    """The credentials are not accepted, or lack the right."""


class Throttled(ApiError):
    """The API server asks for patience, beyond the deadline of the call."""


class Unavailable(ApiError):
    """The API server gave no usable answer within the deadline of the call."""


class CredentialsError(Exception):
    """No usable kubeconfig and no service account; the message says what to do."""


class NotLeader(Exception):
    """The Lease is not safely held: stop acting."""


def from_response(verb: str, what: str, code: int, status: dict[str, Any]) -> ApiError:
    """The error for an answer with an HTTP status of 400 or more and a Kubernetes Status body."""
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or reason or f"HTTP {code}")[:_LONGEST_MESSAGE]
    return _kind_of(code, reason)(f"{verb} {what}: {message}", code=code)


def _kind_of(code: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    match code:
        case 401 | 403:
            return Forbidden
        case 404:
            return NotFound
        case 409:
            return Conflict
        case 410:
            return Expired
        case 429:
            return Throttled
        case _ if code >= 500:
            return Unavailable
        case _:
            return Invalid
