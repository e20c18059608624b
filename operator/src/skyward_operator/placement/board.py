"""What a pool could buy now, for whoever plans it: nothing is ordered, and no price is held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.reasons import NodeReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward_operator.placement.survey import Answer, Refused, Survey
    from skyward_operator.providers.contract import Offer

MOST_OFFERS: Final = 1000
"""More than that nobody looks through; the best come first."""


@dataclass(frozen=True, slots=True)
class Board:
    """The offers of a pool's candidates in the order in which they would be asked for, and those that would
    not be, with why."""

    survey: Survey
    answers: Sequence[Answer]

    @property
    def is_complete(self) -> bool:
        """Whether every account has answered."""
        return not any(each.refusal and each.refusal.reason == NodeReason.ACCEPTED for each in self.answers)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        free = [offer_document(offer) for offer in self.survey.offers[:MOST_OFFERS]]
        room = MOST_OFFERS - len(free)
        left = [each for each in self.survey.refused if each.offer is not None][:room]
        return {
            "offers": free + [offer_document(each.offer, each) for each in left if each.offer is not None],
            "refused": [
                {
                    "candidate": each.candidate.name,
                    "provider": each.candidate.provider,
                    "reason": str(each.refusal.reason),
                    "message": each.refusal.message,
                }
                for each in self.survey.refused
                if each.offer is None
            ],
        }


def offer_document(offer: Offer, refused: Refused | None = None) -> Mapping[str, Any]:
    """One offer as JSON, without what is not known. `refused`: why it would not be asked for now."""
    accelerator = offer.accelerator
    fields = {
        "candidate": offer.candidate,
        "provider": offer.provider,
        "region": offer.region,
        "instanceType": offer.instance_type,
        "market": offer.market,
        "hourlyPrice": f"{offer.hourly_price:f}" if offer.hourly_price is not None else None,
        "onDemandPrice": f"{offer.on_demand_price:f}" if offer.on_demand_price is not None else None,
        "vcpus": offer.vcpus,
        "memoryGiB": offer.memory_gib,
        "diskGiB": offer.disk_gib,
        "architecture": offer.architecture,
        "accelerator": accelerator.name if accelerator else None,
        "acceleratorCount": f"{accelerator.count:f}" if accelerator else None,
        "acceleratorMemoryGiB": accelerator.memory_gib if accelerator else None,
        "refusal": refused.refusal.message if refused is not None else None,
    }
    return {name: value for name, value in fields.items() if value is not None}
