"""What is done to machines: create with a recorded intent, look up by token, terminate until gone.

Each function does one bounded thing and writes down what came of it. A create is asked for only after its
intent is durable; an answer that was lost is written down as unknown, never as a failure.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from skyward.contract.names import NODE
from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp
from skyward_operator.money.prices import is_on_the_market
from skyward_operator.nodes.accounts import PROVIDER_SECONDS, candidate_named, chosen, refusal
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.deadman import script
from skyward_operator.nodes.first_boot import boot_ttl, user_data
from skyward_operator.nodes.host_key import host_key
from skyward_operator.nodes.launch import offer_document, recorded_offer, token
from skyward_operator.nodes.lifetime import TimeToLive
from skyward_operator.nodes.ssh import fingerprint
from skyward_operator.nodes.status import status_patch
from skyward_operator.nodes.wind_down import LAUNCHED, PENDING, UNKNOWN
from skyward_operator.placement.ordering import key
from skyward_operator.providers.contract import (
    TAG_INSTALLATION,
    TAG_NODE,
    TAG_NODE_UID,
    TAG_POOL,
    TAG_TOKEN,
    CreateRequest,
)
from skyward_operator.providers.errors import (
    ProviderError,
    RateLimited,
    Transient,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from datetime import datetime

    import asyncssh

    from skyward.contract.node import ComputeNode, Launch
    from skyward_operator.context import Context
    from skyward_operator.money.ledger import Ledger
    from skyward_operator.money.prices import Prices
    from skyward_operator.money.purse import Purse
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.nodes.book import Book
    from skyward_operator.nodes.identity import Identities
    from skyward_operator.nodes.observe import Observer
    from skyward_operator.placement.placement import Placement
    from skyward_operator.providers.contract import Capabilities, Listing, Machine, Offer, Provider

logger = logging.getLogger(__name__)

ASKED_SLACK = 4.0
"""Seconds by which a recorded time may be earlier than the order: times are written in whole seconds, and not
anew for an order that is sent within three of them."""


@dataclass(frozen=True, slots=True)
class Machines:
    """The hands of the nodes' reconciler at the providers."""

    context: Context
    accounts: Accounts
    book: Book
    identities: Identities
    observer: Observer
    purse: Purse
    ledger: Ledger
    prices: Prices
    placement: Placement

    async def record_intent(self, node: ComputeNode, offer: Offer, attempt: int) -> None:
        """Set aside what the offer may cost, and make the intent durable. Raises Unaffordable, or Conflict if
        the node has moved on, and then nothing is bought."""
        provider = await self.accounts.provider(
            node.metadata.namespace or "", candidate_named(node, offer.candidate)
        )
        ttl = TimeToLive(self.context.store, node.metadata.namespace or "", node.spec.pool_ref)
        async with self.purse.reserve(node, offer, provider.capabilities) as terms:
            launch: dict[str, Any] = {
                "attempt": attempt,
                "candidate": offer.candidate,
                "offer": offer_document(offer)
                | {
                    "billingUnitSeconds": terms.unit,
                    "billingMinimumSeconds": terms.minimum,
                    "reservedSeconds": terms.tail,
                },
                "token": token(node.metadata.uid or "", attempt, offer),
                "requestTime": timestamp(self.context.clock.now()),
                "bootTtlSeconds": boot_ttl(ttl(), node.spec.timeouts.ssh_seconds),
                "powerOffEndsBilling": provider.capabilities.ends_by_itself,
                "outcome": PENDING,
            }
            hourly = f"{offer.hourly_price:f}" if offer.hourly_price is not None else None
            fields = {"launch": launch, "display": {"hourly": hourly}}
            version = node.metadata.resource_version
            await self._write(node, NodePhase.LAUNCHING, NodeReason.INTENT_RECORDED, "", fields, version)
        self.observer.remember(node).unasked = launch["token"]

    async def settle(self, node: ComputeNode) -> None:
        """Have what the node's machine has cost outlive the node. Its object may go once this returns."""
        await self.ledger.settle(node)

    async def create(self, node: ComputeNode) -> None:
        """Ask for the machine whose intent is recorded, and write down the answer.

        An answer is trusted if it is the first for this token. After an earlier one that was lost, a refusal
        says nothing about what the lost order did: that is looked up. Raises what may pass by itself.
        """
        provider = await self.accounts.of_node(node)
        request = await self._request(node, provider.capabilities)
        memory = self.observer.remember(node)
        first = memory.unasked == request.token
        if first and (blocked := self.placement.blocked(node, request.offer)) is not None:
            await self._outcome(node, blocked.reason, blocked.reason, blocked.message)
            return  # refused to another node since the intent was recorded; nothing was asked for
        await self.book.note([Account.of(node.metadata.namespace or "", chosen(node))])
        await self._record_asking(node)
        self.context.leadership.check()
        memory.unasked = None
        try:
            async with asyncio.timeout(PROVIDER_SECONDS):
                machine = await provider.create(request)
        except (UnknownOutcome, TimeoutError) as error:
            text = f"the answer of {request.offer.provider} was lost: {error or 'time-out'}"
            await self._outcome(node, UNKNOWN, NodeReason.UNKNOWN_OUTCOME, text)
            if not first:
                await self.look_up(node)
        except (Transient, RateLimited) as error:
            if first:
                memory.unasked = request.token
            await self._outcome(node, PENDING if first else UNKNOWN, refusal(error).reason, str(error))
            raise
        except ProviderError as error:
            if first or await self._proves_absence(node, provider):
                await self._refused(node, request.offer, error)
            else:
                memory.doubtful = request.token
                text = f"refused ({error}), but an earlier order may still be on its way"
                await self._outcome(node, UNKNOWN, NodeReason.UNKNOWN_OUTCOME, text)
        else:
            await self._launched(node, machine)

    async def look_up(self, node: ComputeNode) -> None:
        """Find out whether the recorded intent became a machine."""
        provider = await self.accounts.of_node(node)
        if await self._proves_absence(node, provider):
            memory = self.observer.remember(node)
            memory.unasked, memory.doubtful = node.status.launch.token if node.status.launch else None, None

    async def terminate(self, node: ComputeNode) -> bool:
        """Have whatever was bought for this node end. True, and written down, once it is proven gone.

        Also when the machine is known: a cloud may have made two of one order.
        """
        provider = await self.accounts.of_node(node)
        launch_token = (node.status.launch.token if node.status.launch else None) or ""
        known = node.status.provider_id
        self.context.leadership.check()
        async with asyncio.timeout(PROVIDER_SECONDS):
            gone = known is None or await provider.terminate(known, launch_token)
            if gone and launch_token:
                listing = await provider.list({TAG_TOKEN: launch_token})
                if listing.machines:
                    await self._record_billing(node, listing.machines[0])
                ended = [await provider.terminate(each.id, launch_token) for each in listing.machines]
                proven = listing.complete if known or ended else self._is_certain(node, provider, listing)
                gone = all(ended) and proven
        if gone:
            await self._gone(node)
        return gone

    async def _proves_absence(self, node: ComputeNode, provider: Provider) -> bool:
        """Whether no machine of the recorded token exists. One that does is taken, and a second one ended."""
        launch = node.status.launch
        if launch is None or launch.token is None:
            return True
        async with asyncio.timeout(PROVIDER_SECONDS):
            listing = await provider.list({TAG_TOKEN: launch.token})
            for extra in listing.machines[1:]:
                logger.warning("machine %s is a second one of one order; it is ended", extra.id)
                await provider.terminate(extra.id, launch.token)
        if listing.machines:
            await self._launched(node, listing.machines[0])
            return False
        return self._is_certain(node, provider, listing)

    def _is_certain(self, node: ComputeNode, provider: Provider, listing: Listing) -> bool:
        """Whether a machine that is not in this listing does not exist, however late it was asked for."""
        window = provider.capabilities.visibility_seconds
        launch, asked = node.status.launch, self.observer.remember(node).asked
        times = [launch.request_time, launch.asked_time, asked] if launch else []
        age = min(((self.context.clock.now() - time).total_seconds() for time in times if time), default=0.0)
        return listing.complete and (window == 0 or age > window + ASKED_SLACK)

    async def _record_asking(self, node: ComputeNode) -> None:
        """Make durable that an order is sent now, unless what stands there is as good."""
        launch, now = node.status.launch, self.context.clock.now()
        self.observer.remember(node).asked = now
        times = [time for time in (launch.request_time, launch.asked_time) if time] if launch else []
        if times and (now - max(times)).total_seconds() <= ASKED_SLACK - 1:
            return
        meta, patch = node.metadata, {"launch": {"askedTime": timestamp(now)}}
        await self.context.api.patch_status(NODE, meta.namespace or "", meta.name, patch)

    async def _refused(self, node: ComputeNode, offer: Offer, error: ProviderError) -> None:
        refused = self.placement.refused(node, offer, error)
        if refused.permanent:
            self.observer.remember(node).rejected[key(offer)] = refused
        await self._outcome(node, refused.reason, refused.reason, refused.message)

    async def _request(self, node: ComputeNode, can: Capabilities) -> CreateRequest:
        launch, meta, pool = node.status.launch, node.metadata, node.spec.pool_ref
        if launch is None or launch.token is None:
            raise RuntimeError(f"node {meta.name} has no recorded intent")
        key_pair = await self.identities.key(meta.namespace or "", pool.name, pool.uid)
        return CreateRequest(
            offer=recorded_offer(node),
            token=launch.token,
            name=meta.name,
            tags={
                TAG_INSTALLATION: self.context.leadership.installation,
                TAG_POOL: pool.uid,
                TAG_NODE: f"{meta.namespace}/{meta.name}",
                TAG_NODE_UID: meta.uid or "",
                TAG_TOKEN: launch.token,
            },
            ssh_public_key=key_pair.export_public_key("openssh").decode().strip(),
            user_data=first_boot(launch, can, key_pair),
            max_hourly_price=chosen(node).max_hourly_price,
            parameters=chosen(node).parameters,
            disk_gib=chosen(node).disk_gib,
        )

    async def _launched(self, node: ComputeNode, machine: Machine) -> None:
        fields = {
            "providerId": machine.id,
            "launch": {"outcome": LAUNCHED},
            "billing": self._billing(node, machine),
            **await self._given_host_key(node),
        }
        await self._write(node, NodePhase.CONNECTING, NodeReason.LAUNCHED, "", fields)
        self.placement.bought(node, recorded_offer(node))

    async def _record_billing(self, node: ComputeNode, machine: Machine) -> None:
        """Write down since when a machine is paid for that is found only to be ended."""
        if node.status.billing is None or node.status.billing.start_time is None:
            meta, patch = node.metadata, {"billing": self._billing(node, machine)}
            await self.context.api.patch_status(NODE, meta.namespace or "", meta.name, patch)

    def _billing(self, node: ComputeNode, machine: Machine) -> dict[str, Any]:
        """Since when a machine is paid for, and for how much."""
        offer = recorded_offer(node)
        price = f"{offer.hourly_price:f}" if offer.hourly_price is not None else None
        now = self.context.clock.now()
        # A provider's clock may be wrong by hours, and money must not depend on it.
        earliest = (node.status.launch.request_time if node.status.launch else None) or now
        began = min(now, max(earliest, machine.created or now))
        return {"startTime": timestamp(began), "hourlyPrice": price}

    async def _given_host_key(self, node: ComputeNode) -> dict[str, Any]:
        """The host key that the machine was given with its first boot, as the status keeps it; empty if
        none."""
        launch, pool = node.status.launch, node.spec.pool_ref
        if (
            launch is None
            or not launch.token
            or not gives_host_key((await self.accounts.of_node(node)).capabilities)
        ):
            return {}
        key_pair = await self.identities.key(node.metadata.namespace or "", pool.name, pool.uid)
        public = host_key(key_pair, launch.token).public
        return {"hostKey": public, "hostKeyFingerprint": fingerprint(public)}

    async def _outcome(self, node: ComputeNode, outcome: str, reason: NodeReason, message: str) -> None:
        status = node.status
        said = (status.launch.outcome if status.launch else None, status.reason, status.message or "")
        if said != (str(outcome), str(reason), message):
            fields = {"launch": {"outcome": str(outcome)}}
            await self._write(node, NodePhase.LAUNCHING, reason, message, fields)

    async def _gone(self, node: ComputeNode) -> None:
        """Write that the machine is gone; a failed node that nobody deleted stays failed, with its reason."""
        billing: dict[str, Any] = {"endTime": timestamp(whole_second_after(self.context.clock.now()))}
        if is_on_the_market(node.status) and (prices := await self.prices.last(node)) is not None:
            billing["prices"] = prices
        ended = {"billing": billing}
        if node.status.provider_id is not None:
            self.placement.freed(node, recorded_offer(node))
        failed = node.status.phase == NodePhase.FAILED and not node.metadata.is_deleted
        if failed and node.status.reason:
            reason = NodeReason(node.status.reason)
            await self._write(node, NodePhase.FAILED, reason, node.status.message or "", ended)
        else:
            await self._write(node, NodePhase.GONE, NodeReason.TERMINATED, "", ended)

    async def _write(
        self,
        node: ComputeNode,
        phase: NodePhase,
        reason: NodeReason,
        message: str,
        fields: dict[str, Any],
        resource_version: str | None = None,
    ) -> None:
        patch = status_patch(node, phase, reason, message, fields, self.context.clock.now())
        meta = node.metadata
        await self.context.api.patch_status(
            NODE, meta.namespace or "", meta.name, patch, resource_version=resource_version
        )


def whole_second_after(moment: datetime) -> datetime:
    """Times are written in whole seconds: an end is rounded up, so that no cost is forgotten."""
    return moment if moment.microsecond == 0 else moment.replace(microsecond=0) + timedelta(seconds=1)


def gives_host_key(can: Capabilities) -> bool:
    """Whether machines are given a host key of ours: where their provider shows none, and they run
    user-data."""
    return can.user_data and not can.host_key


def first_boot(launch: Launch, can: Capabilities, key_pair: asyncssh.SSHKey) -> str | None:
    """The user-data of an order: the same for the same recorded intent, or the provider takes it for
    another."""
    if not can.user_data:
        return None
    key = host_key(key_pair, launch.token or "") if gives_host_key(can) else None
    return user_data(script(), launch.boot_ttl_seconds or 0, can.power_off, key)
