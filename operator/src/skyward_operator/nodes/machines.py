"""What is done to machines: create with a recorded intent, look up by token, terminate until gone.

Each function does one bounded thing and writes down what came of it. A create is asked for only after its
intent is durable; an answer that was lost is written down as unknown, never as a failure.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from skyward.contract.names import NODE
from skyward.contract.reasons import NodePhase, NodeReason
from skyward_operator.engine.clock import timestamp
from skyward_operator.nodes.accounts import PROVIDER_SECONDS, NoAccount, chosen, refusal
from skyward_operator.nodes.launch import key, token
from skyward_operator.nodes.status import status_patch
from skyward_operator.nodes.wind_down import LAUNCHED, PENDING, UNKNOWN
from skyward_operator.providers.contract import (
    TAG_INSTALLATION,
    TAG_NODE,
    TAG_NODE_UID,
    TAG_POOL,
    TAG_TOKEN,
    CreateRequest,
    Offer,
)
from skyward_operator.providers.errors import (
    ProviderError,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
    UnknownOutcome,
)

if TYPE_CHECKING:
    from skyward.contract.node import ComputeNode
    from skyward_operator.context import Context
    from skyward_operator.nodes.accounts import Accounts
    from skyward_operator.nodes.identity import Identities
    from skyward_operator.nodes.observation import Refusal
    from skyward_operator.nodes.observe import Observer
    from skyward_operator.providers.contract import Machine, Provider

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Machines:
    """The hands of the nodes' reconciler at the providers."""

    context: Context
    accounts: Accounts
    identities: Identities
    observer: Observer

    async def record_intent(self, node: ComputeNode, offer: Offer, attempt: int) -> None:
        """Make the intent durable. Raises Conflict if the node has moved on, and then nothing is bought."""
        launch: dict[str, Any] = {
            "attempt": attempt,
            "candidate": offer.candidate,
            "offer": offer_document(offer),
            "token": token(node.metadata.uid or "", attempt, offer),
            "requestTime": timestamp(self.context.clock.now()),
            "outcome": PENDING,
        }
        hourly = f"{offer.hourly_price:f}" if offer.hourly_price is not None else None
        fields = {"launch": launch, "display": {"hourly": hourly}}
        await self._write(
            node, NodePhase.LAUNCHING, NodeReason.INTENT_RECORDED, "", fields, node.metadata.resource_version
        )
        self.observer.remember(node).unasked = launch["token"]

    async def create(self, node: ComputeNode) -> None:
        """Ask for the machine whose intent is recorded, and write down the answer."""
        request = await self._request(node)
        provider = await self.accounts.of_node(node)
        self.context.leadership.check()
        self.observer.remember(node).unasked = None
        try:
            async with asyncio.timeout(PROVIDER_SECONDS):
                machine = await provider.create(request)
        except (UnknownOutcome, TimeoutError) as error:
            text = f"the answer of {request.offer.provider} was lost: {error or 'time-out'}"
            await self._outcome(node, UNKNOWN, NodeReason.UNKNOWN_OUTCOME, text)
        except (Transient, RateLimited) as error:
            await self._outcome(node, PENDING, refusal(error).reason, str(error))
        except ProviderError as error:
            refused = refusal(error)
            self.observer.remember(node).refused[key(request.offer)] = refused
            await self._outcome(node, refused.reason, refused.reason, refused.message)
        else:
            await self._launched(node, machine)

    async def look_up(self, node: ComputeNode) -> None:
        """Find out whether the recorded intent became a machine."""
        provider = await self.accounts.of_node(node)
        found, certain = await self._find(node, provider)
        if found:
            await self._launched(node, found[0])
        elif certain:
            self.observer.remember(node).unasked = node.status.launch.token if node.status.launch else None

    async def terminate(self, node: ComputeNode) -> bool:
        """Have whatever was bought for this node end. True, and written down, once it is proven gone."""
        provider = await self.accounts.of_node(node)
        launch_token = (node.status.launch.token if node.status.launch else None) or ""
        self.context.leadership.check()
        async with asyncio.timeout(PROVIDER_SECONDS):
            if node.status.provider_id is not None:
                gone = await provider.terminate(node.status.provider_id, launch_token)
            else:
                found, certain = await self._find(node, provider)
                ended = [await provider.terminate(machine.id, launch_token) for machine in found]
                gone = all(ended) and (certain or bool(found))
        if gone:
            await self._gone(node)
        return gone

    async def clean_up(self, node: ComputeNode) -> list[Refusal]:
        """Remove what was made beside the machines of this node's pool and no machine uses any more.

        A provider that is unwell is asked again (the error is raised). What it refuses for good is left
        behind and returned: keys and groups cost nothing, and an object that can never go does.
        """
        tags = {TAG_INSTALLATION: self.context.settings.lease_namespace, TAG_POOL: node.spec.pool_ref.uid}
        providers: dict[int, Provider] = {}
        left: list[Refusal] = []
        for candidate in node.spec.candidates:
            try:
                provider = await self.accounts.provider(node.metadata.namespace or "", candidate)
            except (NoAccount, Rejected, Unauthorized):
                continue  # nothing was ever made there, or nobody can get at it any more
            providers[id(provider)] = provider
        for provider in providers.values():
            if not provider.capabilities.side_resources:
                continue
            try:
                async with asyncio.timeout(PROVIDER_SECONDS):
                    await provider.clean_up(tags)
            except (Rejected, Unauthorized) as error:
                text = (
                    f"keys and groups of pool {node.spec.pool_ref.name} are left at {provider.name}: {error}"
                )
                left.append(replace(refusal(error), message=text))
        return left

    async def _find(self, node: ComputeNode, provider: Provider) -> tuple[list[Machine], bool]:
        """Machines of the recorded token, and whether finding none proves that there is none."""
        launch = node.status.launch
        if launch is None or launch.token is None or launch.request_time is None:
            return [], True
        async with asyncio.timeout(PROVIDER_SECONDS):
            listing = await provider.list({TAG_TOKEN: launch.token})
        age = (self.context.clock.now() - launch.request_time).total_seconds()
        return list(listing.machines), listing.complete and age > provider.capabilities.visibility_seconds

    async def _request(self, node: ComputeNode) -> CreateRequest:
        launch, meta, pool = node.status.launch, node.metadata, node.spec.pool_ref
        if launch is None or launch.token is None:
            raise RuntimeError(f"node {meta.name} has no recorded intent")
        key_pair = await self.identities.key(meta.namespace or "", pool.name, pool.uid)
        return CreateRequest(
            offer=recorded_offer(node),
            token=launch.token,
            name=meta.name,
            tags={
                TAG_INSTALLATION: self.context.settings.lease_namespace,
                TAG_POOL: pool.uid,
                TAG_NODE: f"{meta.namespace}/{meta.name}",
                TAG_NODE_UID: meta.uid or "",
                TAG_TOKEN: launch.token,
            },
            ssh_public_key=key_pair.export_public_key("openssh").decode().strip(),
            max_hourly_price=chosen(node).max_hourly_price,
            parameters=chosen(node).parameters,
        )

    async def _launched(self, node: ComputeNode, machine: Machine) -> None:
        offer = recorded_offer(node)
        price = f"{offer.hourly_price:f}" if offer.hourly_price is not None else None
        began = machine.created or self.context.clock.now()
        fields = {
            "providerId": machine.id,
            "launch": {"outcome": LAUNCHED},
            "billing": {"startTime": timestamp(began), "hourlyPrice": price},
        }
        await self._write(node, NodePhase.CONNECTING, NodeReason.LAUNCHED, "", fields)

    async def _outcome(self, node: ComputeNode, outcome: str, reason: NodeReason, message: str) -> None:
        await self._write(node, NodePhase.LAUNCHING, reason, message, {"launch": {"outcome": str(outcome)}})

    async def _gone(self, node: ComputeNode) -> None:
        """Write that the machine is gone; a failed node that nobody deleted stays failed, with its reason."""
        ended = {"billing": {"endTime": timestamp(self.context.clock.now())}}
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


def offer_document(offer: Offer) -> dict[str, Any]:
    """An offer as the status keeps it."""
    return {
        "provider": offer.provider,
        "region": offer.region,
        "instanceType": offer.instance_type,
        "market": offer.market,
        "hourlyPrice": f"{offer.hourly_price:f}" if offer.hourly_price is not None else None,
        "onDemandPrice": f"{offer.on_demand_price:f}" if offer.on_demand_price is not None else None,
    }


def recorded_offer(node: ComputeNode) -> Offer:
    """The offer of the recorded intent."""
    launch = node.status.launch
    kept = launch.offer if launch else None
    if launch is None or kept is None:
        raise RuntimeError(f"node {node.metadata.name} has no recorded offer")
    return Offer(
        provider=kept.provider or "",
        region=kept.region or "",
        instance_type=kept.instance_type or "",
        market=kept.market or "",
        hourly_price=kept.hourly_price,
        on_demand_price=kept.on_demand_price,
        candidate=launch.candidate or "",
    )
