"""An order for one machine, as the API takes it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from simcloud.accounts import Account
    from simcloud.state import Instance

Word = Annotated[str, Field(min_length=1, max_length=256)]


class Order(BaseModel):
    """What is asked for. The client token makes a repeated order the same one, on accounts that have that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_token: Annotated[str, Field(min_length=1, max_length=64)]
    region: Word
    instance_type: Word
    market: Literal["on-demand", "spot"] = "on-demand"
    name: Annotated[str, Field(max_length=256)] = ""
    tags: Annotated[dict[Word, Annotated[str, Field(max_length=256)]], Field(max_length=50)] = {}
    ssh_key: Word
    security_group: Word | None = None
    user_data: Annotated[str, Field(max_length=16384)] | None = None
    max_hourly: Annotated[Decimal, Field(gt=0)] | None = None

    def facts(self, account: Account) -> dict[str, str]:
        """What a fault can be limited to."""
        return {
            "account": account.name,
            "region": self.region,
            "instance_type": self.instance_type,
            "market": self.market,
        }

    def is_of(self, instance: Instance) -> bool:
        """Whether that instance is what this orders."""
        fields = ("region", "instance_type", "market", "name", "tags", "ssh_key", "security_group")
        more = ("user_data", "max_hourly")
        return all(getattr(self, name) == getattr(instance, name) for name in (*fields, *more))
