"""Whether a purchase is allowed by something that an offer itself does not say, such as a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from skyward.contract.node import ComputeNode
    from skyward_operator.nodes.observation import Refusal
    from skyward_operator.providers.contract import Offer


class Purse(Protocol):
    """Asked for each purchase at the price in force, before its intent is recorded."""

    def admit(self, node: ComputeNode, offer: Offer) -> Refusal | None:
        """Why this node must not buy this offer now; None if it may.

        Called on the event loop, returns at once. The intent follows, unless the node has moved on: what is
        set aside here must be given back where no intent shows. A refusal that is not permanent is asked
        again; the next dearer or cheaper offer is asked for in the same look.
        """
        ...


class OpenPurse:
    """No limit."""

    def admit(self, node: ComputeNode, offer: Offer) -> Refusal | None:
        """Anything."""
        return None
