"""Does what was decided about a node. One short method per action; each leaves the world consistent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, assert_never

from skyward.contract.names import FINALIZER, NODE
from skyward.contract.reasons import NodePhase, NodeReason
from skyward.wire.bundle import bundle
from skyward_operator.kube.cascade import others
from skyward_operator.nodes.accounts import NoAccount, chosen
from skyward_operator.nodes.actions import (
    Admit,
    Again,
    Avoid,
    CleanUp,
    CloseSession,
    Cordon,
    Create,
    Drain,
    Examine,
    Guard,
    LookUp,
    Lose,
    Pin,
    RecordIntent,
    RemoveFinalizer,
    StartSession,
    Terminate,
    Write,
)
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.deadman import Switch
from skyward_operator.nodes.image import plan
from skyward_operator.nodes.interruption import LEAVING
from skyward_operator.nodes.launch import recorded_offer
from skyward_operator.nodes.lifetime import TimeToLive
from skyward_operator.nodes.log import NodeLog
from skyward_operator.nodes.observation import CREDENTIALS
from skyward_operator.nodes.received import INCOMING
from skyward_operator.nodes.session import Session, Subject
from skyward_operator.nodes.ssh import fingerprint
from skyward_operator.nodes.status import status_patch
from skyward_operator.providers.contract import Address
from skyward_operator.providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from skyward.contract.node import ComputeNode
    from skyward_operator.context import Context
    from skyward_operator.kube.events import EventType
    from skyward_operator.kube.store import Object
    from skyward_operator.nodes.actions import Action
    from skyward_operator.nodes.fleet import Fleet, Key
    from skyward_operator.nodes.identity import Identities
    from skyward_operator.nodes.machines import Machines
    from skyward_operator.nodes.observation import Refusal
    from skyward_operator.nodes.side import SideResources
    from skyward_operator.providers.contract import Capabilities, Offer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Actor:
    """The hands of the nodes' reconciler."""

    context: Context
    fleet: Fleet
    machines: Machines
    side: SideResources
    identities: Identities
    changed: Callable[[Key], None]
    epoch: int = 0
    """Grows with each leader, so that an agent knows the newest."""
    took_away: Callable[[Account, Offer], None] | None = None
    """Who remembers, for those who buy next, that the account took a machine of this offer back."""

    async def perform(self, node: ComputeNode, obj: Object, actions: Iterable[Action]) -> float | None:
        """Do these actions in order. Returns after how many seconds to look again, if at all."""
        again: float | None = None
        for action in actions:
            if isinstance(action, Again):
                again = action.seconds if again is None else min(again, action.seconds)
            else:
                await self._do(node, obj, action)
        return again

    async def _do(self, node: ComputeNode, obj: Object, action: Action) -> None:
        key = key_of(node)
        session = self.fleet.session(key)
        match action:
            case Guard():
                await self._finalizers(node, [*node.metadata.finalizers, FINALIZER])
            case RecordIntent(offer, attempt):
                await self.machines.record_intent(node, offer, attempt)
            case Create():
                await self.machines.create(node)
            case LookUp():
                await self.machines.look_up(node)
            case Write():
                await self._write(node, obj, action)
            case StartSession(resume):
                await self._start(node, resume=resume)
            case Pin(host_key):
                await self._pin(node, obj, host_key)
            case Admit():
                if session is not None:
                    session.admit()
            case Lose(reason):
                self.fleet.lost(key, str(reason))
            case Cordon(due):
                if session is not None:
                    session.cordon(None if due is None else self._seconds_to(due))
            case Examine(checks):
                if session is not None:
                    session.check(checks)
            case Avoid():
                self.context.metrics.interruptions.labels(chosen(node).provider).inc()
                if self.took_away is not None:
                    self.took_away(Account.of(key[0], chosen(node)), recorded_offer(node))
            case Drain(grace, why):
                if session is not None:
                    session.drain(grace, why)
            case CloseSession():
                await self.close(key)
            case Terminate():
                if not await self.machines.terminate(node) and is_complaining(node):
                    await self._write(node, obj, Write(NodePhase.TERMINATING, NodeReason.TERMINATING))
            case CleanUp():
                for left in await self.side.clean_up(node):
                    self.context.events.emit(obj, "Warning", str(left.reason), left.message)
            case RemoveFinalizer():
                await self.machines.settle(node)
                await self._finalizers(node, others(node.metadata.finalizers, FINALIZER))
            case Again():
                pass
            case _:
                assert_never(action)

    async def close(self, key: Key) -> None:
        """End the session with a node, if there is one."""
        session = self.fleet.forget(key)
        if session is not None:
            await session.close()

    async def complain(self, node: ComputeNode, obj: Object, trouble: Refusal) -> None:
        """Say on a node why its account cannot be asked. A failed one keeps the reason of its failure, and
        what became of an order is written with the order."""
        phase = node.status.phase
        lost = trouble.reason == NodeReason.CREDENTIALS_NOT_FOUND
        if phase == NodePhase.TERMINATING or (lost and phase == NodePhase.LAUNCHING):
            await self._write(node, obj, Write(NodePhase(phase), trouble.reason, trouble.message))

    async def _write(self, node: ComputeNode, obj: Object, write: Write) -> None:
        fields = dict(write.fields)
        if "hostKey" in fields:
            fields["hostKeyFingerprint"] = fingerprint(fields["hostKey"])
        now = self.context.clock.now()
        patch = status_patch(node, write.phase, write.reason, write.message, fields, now)
        meta = node.metadata
        namespace, current = meta.namespace or "", obj.get("status") or {}
        written = await self.context.api.patch_status(NODE, namespace, meta.name, patch, current=current)
        if written is not None and (current.get("phase"), current.get("reason")) != (
            write.phase,
            write.reason,
        ):
            bad = write.phase is NodePhase.FAILED or write.reason in (*LEAVING, *CREDENTIALS)
            kind: EventType = "Warning" if bad else "Normal"
            text = write.message or f"the node is {write.phase.lower()}"
            self.context.events.emit(obj, kind, str(write.reason), text)
            label = f"{namespace}/{meta.name}"
            logger.info(
                "node %s: %s, %s: %s", label, write.phase, write.reason, text, extra={"object": label}
            )

    def _seconds_to(self, due: datetime) -> float:
        return max(0.0, (due - self.context.clock.now()).total_seconds())

    async def _pin(self, node: ComputeNode, obj: Object, host_key: str) -> None:
        """Make the key durable, then let the session use it. A key that is pinned already stays."""
        pinned = node.status.host_key or host_key
        if node.status.host_key is None:
            meta, shown = node.metadata, fingerprint(host_key)
            status = {"hostKey": host_key, "hostKeyFingerprint": shown}
            await self.context.api.patch_status(
                NODE, meta.namespace or "", meta.name, status, resource_version=meta.resource_version
            )
            text = f"the machine showed the host key {shown} first; no other is accepted from now on"
            self.context.events.emit(obj, "Normal", str(NodeReason.HOST_KEY_PINNED), text)
        session = self.fleet.session(key_of(node))
        if session is not None:
            session.pin(pinned)

    async def _start(self, node: ComputeNode, *, resume: bool) -> None:
        key = key_of(node)
        namespace, name = key
        if self.fleet.session(key) is not None:
            return
        pool, where = node.spec.pool_ref, node.status.address
        if where is None or where.host is None or where.port is None:
            raise RuntimeError(f"node {name} has no address")
        ttl, can = TimeToLive(self.context.store, namespace, pool), await self._capabilities(node)
        subject = Subject(
            namespace=namespace,
            name=name,
            pool=pool.name,
            rank=node.spec.rank,
            address=Address(where.host, where.port, where.user or "root"),
            client_key=await self.identities.key(namespace, pool.name, pool.uid),
            worker=node.spec.worker,
            operator=self.context.leadership.identity,
            epoch=self.epoch,
            # What a machine was armed with stays where its provider cannot be asked.
            switch=Switch(ttl, can.power_off if can is not None else None),
            largest_result=self.context.settings.largest_result,
            metadata=can.metadata if can is not None else None,
        )
        session = Session(
            subject,
            plan(node.spec.image, node.spec.worker, node_bundle()),
            self.fleet,
            NodeLog(self.context.settings.data_dir, namespace, name, self.context.clock),
            self.context.clock,
            partial(self.changed, key),
            incoming=self.context.settings.data_dir / INCOMING / namespace / name,
            host_key=node.status.host_key,
            resume=resume,
            retiring=node.status.phase == NodePhase.DRAINING,
        )
        self.fleet.keep(key, session)
        session.own(self.context.supervisor.spawn(f"session {namespace}/{name}", session.run()))

    async def _capabilities(self, node: ComputeNode) -> Capabilities | None:
        """What the node's provider can do; None where it cannot be asked now, and the machine is met all the
        same."""
        try:
            return (await self.machines.accounts.of_node(node)).capabilities
        except (NoAccount, ProviderError):
            return None

    async def _finalizers(self, node: ComputeNode, wanted: list[str]) -> None:
        meta = node.metadata
        if list(meta.finalizers) == wanted:
            return
        body: dict[str, Any] = {"metadata": {"finalizers": wanted}}
        await self.context.api.patch(
            NODE, meta.namespace or "", meta.name, body, resource_version=meta.resource_version
        )


node_bundle = cache(bundle)
"""The archive for all nodes; it does not change while this process runs."""


def is_complaining(node: ComputeNode) -> bool:
    """Whether a node that is on its way out says why it was not."""
    status = node.status
    return status.phase == NodePhase.TERMINATING and status.reason != NodeReason.TERMINATING


def key_of(node: ComputeNode) -> Key:
    """Namespace and name of a node."""
    return node.metadata.namespace or "", node.metadata.name
