"""How long machines of an offer took from their order until they took calls.

Read from the nodes themselves, so that a new operator knows it as well.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING, Final

from skyward_operator.placement.ordering import key

if TYPE_CHECKING:
    from skyward_operator.kube.store import Object
    from skyward_operator.placement.ordering import OfferKey
    from skyward_operator.providers.contract import Offer

NEWEST_WEIGHT: Final = 0.3
"""Of the newest machine in the mean: the last few count."""
MOST_OFFERS: Final = 2_000


class History:
    """Means of starting times by offer."""

    def __init__(self) -> None:
        self._means: OrderedDict[OfferKey, float] = OrderedDict()

    def seconds(self, offer: Offer) -> float | None:
        """How long a machine of this offer takes to start; None where none has started yet."""
        return self._means.get(key(offer))

    def node_changed(self, old: Object | None, new: Object | None) -> None:
        """Take note of a node that has just become ready."""
        if new is None or _ready_time(new) is None or (old is not None and _ready_time(old) is not None):
            return
        launch = new["status"].get("launch") or {}
        offer, asked, ready = launch.get("offer") or {}, launch.get("requestTime"), _ready_time(new)
        if not asked or not ready:
            return
        took = (datetime.fromisoformat(ready) - datetime.fromisoformat(asked)).total_seconds()
        words = ("provider", "region", "instanceType", "market")
        provider, region, instance_type, market = (str(offer.get(word) or "") for word in words)
        self.add((provider, region, instance_type, market), max(0.0, took))

    def add(self, offer: OfferKey, took: float) -> None:
        """One more machine of this offer took so many seconds."""
        before = self._means.pop(offer, None)
        self._means[offer] = took if before is None else before + NEWEST_WEIGHT * (took - before)
        if len(self._means) > MOST_OFFERS:
            self._means.popitem(last=False)


def _ready_time(node: Object) -> str | None:
    return (node.get("status") or {}).get("readyTime")
