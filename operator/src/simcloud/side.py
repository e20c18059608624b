"""Side resources of accounts: SSH keys and security groups. They cost nothing, and are left behind easily."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simcloud import errors
from simcloud.orders import Word
from simcloud.state import SideResource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simcloud.accounts import Account
    from simcloud.cloud import Cloud

type Kind = Literal["ssh-key", "security-group"]


class Wanted(BaseModel):
    """A side resource that is asked for. Its name is unique in the account, for its kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    name: Word
    tags: Annotated[dict[Word, Annotated[str, Field(max_length=256)]], Field(max_length=50)] = {}
    content: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=8)] = {}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "ssh-key" and not self.content.get("public_key", "").startswith("ssh-"):
            raise ValueError("an ssh-key has content.public_key, a public key line")
        return self


def create(cloud: Cloud, account: Account, wanted: Wanted) -> SideResource:
    """Make it, or show the one that is the same already."""
    for each in cloud.state.side.values():
        if (each.account, each.kind, each.name) == (account.name, wanted.kind, wanted.name):
            if each.content != wanted.content:
                raise errors.Refusal(
                    409, "NameTaken", f"{wanted.kind} {wanted.name!r} exists, with other content"
                )
            return each
    made = SideResource(
        id=f"{wanted.kind}-{secrets.token_hex(6)}",
        account=account.name,
        created=round(cloud.clock.now(), 3),
        **wanted.model_dump(),
    )
    cloud.record("side-created", resource=made.model_dump(mode="json"))
    return made


def find(cloud: Cloud, account: Account, tags: Mapping[str, str]) -> list[SideResource]:
    """All of an account that carry these tags."""
    return [
        each
        for each in cloud.state.side.values()
        if each.account == account.name and tags.items() <= each.tags.items()
    ]


def delete(cloud: Cloud, account: Account, resource_id: str) -> None:
    """Remove it; refused while an instance uses it."""
    resource = cloud.state.side.get(resource_id)
    if resource is None or resource.account != account.name:
        raise errors.not_found(f"side resource {resource_id}")
    if users := cloud.state.users(resource):
        raise errors.in_use(f"{resource.kind} {resource_id}", users)
    cloud.record("side-deleted", id=resource_id)
