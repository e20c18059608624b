"""`candidates[].parameters` of the aws provider, read strictly: unknown names and other forms are refused.

Messages name parameters and never show their values: somebody may have put a secret there by mistake.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skyward_operator.providers.aws.account import words
from skyward_operator.providers.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ADDRESSES = ("public", "private")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a pool asks for beside hardware."""

    ami: str | None = None
    ami_parameter: str | None = None
    """A public or own SSM parameter that holds an AMI's id."""
    subnets: tuple[str, ...] = ()
    """At most one for each zone; empty: the default subnet of the zone."""
    security_groups: tuple[str, ...] = ()
    """Used instead of one that is made."""
    instance_profile: str | None = None
    ssh_cidr: str | None = None
    """From where SSH may come."""
    ssh_user: str = "ubuntu"
    ssh_port: int = 22
    address: str = "public"
    """Which address of the machine the operator connects to."""


def pattern(expression: str, like: str) -> Callable[[str], str | None]:
    """A check for a form; the error says what it is like."""
    return lambda value: None if re.fullmatch(expression, value) else f"is not like {like}"


def several(expression: str, like: str) -> Callable[[str], str | None]:
    """The same for a list with commas."""
    check = pattern(expression, like)

    def each(value: str) -> str | None:
        found = words(value)
        return next(
            (text for word in found if (text := check(word))), None if found else f"is not like {like}"
        )

    return each


def network(value: str) -> str | None:
    """A block of IPv4 addresses."""
    try:
        ipaddress.IPv4Network(value)
    except ValueError:
        return "is not a block of IPv4 addresses such as 203.0.113.7/32"
    return None


def port(value: str) -> str | None:
    """A TCP port."""
    fits = value.isascii() and value.isdecimal() and 0 < int(value) < 65536
    return None if fits else "is not a TCP port"


CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "ami": pattern(r"ami-[0-9a-f]{8,17}", "ami-0123456789abcdef0"),
    "amiParameter": pattern(r"/?[A-Za-z0-9_./-]+", "/aws/service/ami-amazon-linux-latest/al2023-ami-…"),
    "subnet": several(r"subnet-[0-9a-f]{8,17}", "subnet-0123456789abcdef0, one for each zone"),
    "securityGroup": several(r"sg-[0-9a-f]{8,17}", "sg-0123456789abcdef0"),
    "instanceProfile": pattern(
        r"(arn:aws[a-z-]*:iam::\d{12}:instance-profile/)?[\w+=,.@/-]+", "a name, or the ARN of a profile"
    ),
    "sshCidr": network,
    "sshUser": pattern(r"[a-z_][a-z0-9_-]*", "ubuntu"),
    "sshPort": port,
    "address": lambda value: None if value in ADDRESSES else "is neither public nor private",
}
ELSEWHERE = {
    "profile": "a profile is the operator's (AWS_PROFILE), or use a Secret by credentialsRef",
    "endpoint": "an endpoint stands in the Secret (AWS_ENDPOINT_URL), with the keys that it is for",
    "spot": "spot is the candidate's market",
    "region": "regions are the candidate's regions",
}


def read(given: Mapping[str, str]) -> Parameters:
    """The parameters of a candidate. Raises Rejected that names what is wrong."""
    if unknown := sorted(set(given) - set(CHECKS)):
        hints = "".join(f"; {ELSEWHERE[name]}" for name in unknown if name in ELSEWHERE)
        known = ", ".join(CHECKS)
        raise Rejected(f"parameters: the aws provider has no {', '.join(unknown)}; it has {known}{hints}")
    for name, value in given.items():
        if wrong := CHECKS[name](value.strip()):
            raise Rejected(f"parameters.{name}: its value {wrong}")
    text = {name: value.strip() for name, value in given.items()}
    if "ami" in text and "amiParameter" in text:
        raise Rejected("parameters: ami and amiParameter exclude one another; leave one out")
    return Parameters(
        ami=text.get("ami"),
        ami_parameter=text.get("amiParameter"),
        subnets=words(text.get("subnet", "")),
        security_groups=words(text.get("securityGroup", "")),
        instance_profile=text.get("instanceProfile"),
        ssh_cidr=text.get("sshCidr"),
        ssh_user=text.get("sshUser", "ubuntu"),
        ssh_port=int(text.get("sshPort", "22")),
        address=text.get("address", "public"),
    )
