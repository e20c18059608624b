"""Which AWS account, as whom: from the Secret that a candidate refers to, else the operator's own identity.

Never from both: keys from a Secret are used without any setting of the operator's environment, and the
operator's identity is never sent to an endpoint from a Secret.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.exceptions import BotoCoreError

from skyward_operator.providers.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_REGION = "us-east-1"
REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
KNOWN = frozenset({*REQUIRED, "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL", "SKYWARD_AWS_REGIONS"})
NOWHERE = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""Variables of a botocore session that looks into no file and no variable of the operator's."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Access keys from a Secret."""

    id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """One account at one endpoint."""

    region: str
    """Where machines are bought if a candidate names no region."""
    regions: tuple[str, ...]
    """The only regions that are used, and looked through; empty: every region that the account may use."""
    keys: Keys | None = field(default=None, repr=False)
    """None: the operator's own identity."""
    endpoint: str | None = None
    """Another place than AWS; only for keys from a Secret."""

    def session(self) -> boto3.session.Session:
        """A session with this identity. Raises Unauthorized for a broken configuration."""
        try:
            if self.keys is None:
                return boto3.session.Session()
            return boto3.session.Session(
                aws_access_key_id=self.keys.id,
                aws_secret_access_key=self.keys.secret,
                aws_session_token=self.keys.token,
                region_name=self.region,
                botocore_session=botocore.session.Session(session_vars=dict(NOWHERE)),
            )
        except BotoCoreError as error:
            raise Unauthorized(f"aws: the operator's own AWS configuration is broken: {error}") from None


def account(credentials: Mapping[str, str], environment: Mapping[str, str]) -> Account:
    """The account that is meant. Raises Unauthorized that names what is missing."""
    return from_secret(credentials) if credentials else own(environment)


def from_secret(data: Mapping[str, str]) -> Account:
    """An account by the data of a Secret."""
    given = {name: value.strip() for name, value in data.items()}
    if missing := [name for name in REQUIRED if not given.get(name)]:
        raise Unauthorized(f"aws: {' and '.join(missing)} missing in the Secret")
    if unknown := sorted(set(given) - KNOWN):
        known = ", ".join(sorted(KNOWN))
        raise Unauthorized(f"aws: the Secret has {', '.join(unknown)}, which is not known; known are {known}")
    endpoint = given.get("AWS_ENDPOINT_URL") or None
    if endpoint is not None:
        where = urlsplit(endpoint)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise Unauthorized("aws: AWS_ENDPOINT_URL in the Secret is not a URL such as https://ec2.example")
    keys = Keys(given[REQUIRED[0]], given[REQUIRED[1]], given.get("AWS_SESSION_TOKEN") or None)
    regions = words(given.get("SKYWARD_AWS_REGIONS", ""))
    return Account(given.get("AWS_REGION") or first(regions), regions, keys, endpoint)


def own(environment: Mapping[str, str]) -> Account:
    """The operator's own identity: whatever the usual chain of AWS finds."""
    regions = words(environment.get("SKYWARD_AWS_REGIONS", ""))
    found = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    return Account(found or Account(DEFAULT_REGION, ()).session().region_name or first(regions), regions)


def first(regions: tuple[str, ...]) -> str:
    """The region for candidates that name none."""
    return regions[0] if regions else DEFAULT_REGION


def words(text: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(word for each in text.split(",") if (word := each.strip()))
