"""What AWS's error codes mean for whoever called. Pure.

The code decides, not the status: "no capacity" comes as a 500. AWS's own words are passed on, except where
credentials are refused: those texts may quote the request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward_operator.providers.errors import (
    OutOfCapacity,
    PriceTooHigh,
    QuotaExceeded,
    Rejected,
    Transient,
    Unauthorized,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from skyward_operator.providers.errors import ProviderError

MESSAGE_CHARACTERS = 500
NO_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientFreeAddressesInSubnet",
        "ReservationCapacityExceeded",
        "UnfulfillableCapacity",
        "Unsupported",  # this type is not in this zone, or not for spot there
    }
)
"""As Karpenter (pkg/errors/errors.go) and AWS ParallelCluster (slurm_resources.py) read them."""
QUOTA = frozenset({"MaxSpotInstanceCountExceeded", "MaxFleetCountExceeded", "ResourceCountExceeded"})
THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "TooManyRequestsException",
        "EC2ThrottledException",
    }
)
WRONG_KEYS = frozenset(
    {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "InvalidSecurity",
    }
)
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
FORBIDDEN = frozenset(
    {
        "UnauthorizedOperation",
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    }
)
CLOSED = frozenset({"OptInRequired", "PendingVerification", "Blocked", "SubscriptionRequiredException"})
"""The account, or the image's owner, has to be asked by a person first."""
MADE_AGAIN = frozenset(
    {"InvalidKeyPair.NotFound", "InvalidGroup.NotFound", "InvalidSecurityGroupID.NotFound", "InvalidGroupId"}
)
"""A key or group that went away between two requests."""
DENIED = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9*]+)")


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of AWS."""

    permission: str
    """As IAM writes it: ec2:RunInstances."""
    region: str
    buys: bool = False
    """A lost answer may have been a purchase."""

    def __str__(self) -> str:
        return f"{self.permission.partition(':')[2]} in {self.region}"


class Used(Rejected):
    """A token that bought a machine which has ended."""


class Differs(UnknownOutcome):
    """A token that was sent before with other parameters."""


class NotThere(Rejected):
    """AWS has no such thing."""


class There(Rejected):
    """It is there already."""


class InUse(Rejected):
    """Something needs it still."""


def meaning(code: str, message: str, status: int, call: Call) -> ProviderError:
    """The error that an answer stands for; throttling is told by `is_throttled`, before."""
    code = code.removeprefix("Server.").removeprefix("Client.")
    text = f"aws: {call}: {code}: {message[:MESSAGE_CHARACTERS]}"
    if code in FORBIDDEN:
        return Unauthorized(forbidden(code, message, call))
    if code in WRONG_KEYS:
        return Unauthorized(f"aws: {call}: {code}: AWS does not accept the access keys; correct them")
    if code in EXPIRED:
        hint = "the session token has expired, or the operator's clock is wrong; renew it, or set the clock"
        return Unauthorized(f"aws: {call}: {code}: {hint}")
    if code in CLOSED:
        return Unauthorized(text)
    if code in NO_CAPACITY:
        return OutOfCapacity(text)
    if code == "SpotMaxPriceTooLow":
        return PriceTooHigh(text)
    if code in QUOTA or code.endswith("LimitExceeded"):
        limit = re.search(r"\blimit of (\d+)\b", message)
        hint = f"ask AWS for more in Service Quotas of {call.region}"
        return QuotaExceeded(f"{text}; {hint}", int(limit[1]) if limit else None)
    if code == "IdempotentInstanceTerminated":
        return Used(text)
    if code == "IdempotentParameterMismatch":
        return Differs(text)
    if call.buys and code in MADE_AGAIN:
        return Transient(f"{text}; it is made again")
    if code.endswith((".NotFound", "NotFoundException")) or code in ("ParameterNotFound", "InvalidGroupId"):
        return NotThere(text)
    if code.endswith(".Duplicate"):
        return There(text)
    if code in ("DependencyViolation", "InvalidGroup.InUse"):
        return InUse(text)
    return unsorted(text, status, call)


def unsorted(text: str, status: int, call: Call) -> ProviderError:
    """What an answer with a code that is not known means: a 5xx does not tell what was done."""
    if status < 500:
        return Rejected(text)
    return UnknownOutcome(text) if call.buys else Transient(text)


def is_throttled(code: str) -> bool:
    """Whether AWS asks for a pause. It never says how long."""
    return code.removeprefix("Client.") in THROTTLED


def forbidden(code: str, message: str, call: Call) -> str:
    """Words for a permission that is missing, which they name."""
    if code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted":
        role = "iam:CreateServiceLinkedRole for spot.amazonaws.com"
        return f"aws: {call}: the permission {role} is missing; allow it, or create that role once"
    found = DENIED.search(message)
    permission = found.group(1) if found else call.permission
    # A policy of the organisation often closes whole regions.
    hint = "allow it (docs/providers/aws.md has a policy), or name the regions that are used"
    return f"aws: {call}: the permission {permission} is missing; {hint} in SKYWARD_AWS_REGIONS"
