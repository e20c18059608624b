"""Which simulated cloud, as whom: from the Secret that a candidate refers to, else from the environment.

Never from both: an endpoint that somebody wrote into a Secret is not sent the operator's own key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from skyward_operator.providers.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "SKYWARD_SIM_"
PROFILES = ("full", "user-data", "bare")


@dataclass(frozen=True, slots=True)
class Account:
    """One account of one cloud."""

    endpoint: str
    key: str = field(repr=False)
    profile: str = "full"


def account(credentials: Mapping[str, str], environment: Mapping[str, str]) -> Account:
    """The account that is meant. Raises Unauthorized that names what is missing."""
    if credentials:
        given, where = credentials, "the Secret"
    else:
        given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items()
                 if name.startswith(PREFIX)}  # fmt: skip
        where = f"the operator's environment ({PREFIX}ENDPOINT, {PREFIX}KEY)"
    if missing := [name for name in ("endpoint", "key") if not given.get(name, "").strip()]:
        hint = "" if credentials else "; or refer to a Secret with endpoint and key by credentialsRef"
        raise Unauthorized(f"sim: {' and '.join(missing)} missing in {where}{hint}")
    endpoint, profile = given["endpoint"].strip(), given.get("profile", "full").strip()
    if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
        raise Unauthorized(f"sim: endpoint in {where} is not a URL such as http://127.0.0.1:8080")
    if profile not in PROFILES:
        raise Unauthorized(f"sim: profile in {where} is none of {', '.join(PROFILES)}")
    return Account(endpoint, given["key"].strip(), profile)
