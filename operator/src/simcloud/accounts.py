"""Who may use the cloud: accounts with an API key, quotas and permissions. Keys never enter the ledger."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PERMISSIONS = ("offers", "quote", "create", "describe", "list", "terminate", "notices", "console", "side")
BARE_LAG_SECONDS = 1.0


class Account(BaseModel):
    """One customer.

    A `full` account has what the large clouds have: client tokens are honoured, host keys are shown, and
    listings are up to date. A `user-data` one is the same, but for host keys: those are not shown, and
    machines do at their first boot what they are told. A `bare` one has none of that, as with most that rent
    out GPUs: a repeated order buys again, and a new machine is missing from listings for a second, and one
    that powers itself off is paid for until it is terminated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    key: Annotated[str, Field(min_length=8, repr=False)]
    profile: Literal["full", "user-data", "bare"] = "full"
    permissions: frozenset[str] = frozenset(PERMISSIONS)
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {"instances": 64}, description="At most so many instances, or accelerators by their name."
    )


class Accounts:
    """All accounts, found by key."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._accounts = list(accounts)

    def by_key(self, key: str) -> Account | None:
        """Whose key this is."""
        for account in self._accounts:
            if hmac.compare_digest(account.key.encode(), key.encode()):
                return account
        return None

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts)


_FILE = TypeAdapter(list[Account])


def load_or_make(path: Path) -> list[Account]:
    """The accounts kept in a file; some with new keys where there are none, one of each profile."""
    if not path.exists():
        made = [Account(name="default", key=secrets.token_urlsafe(24))]
        made += [
            Account(name=profile, key=secrets.token_urlsafe(24), profile=profile)
            for profile in ("user-data", "bare")
        ]
        path.touch(mode=0o600)
        document = [account.model_dump(mode="json") for account in made]
        path.write_bytes(TypeAdapter(list[dict[str, object]]).dump_json(document, indent=1))
    return _FILE.validate_json(path.read_bytes())
