"""The nodes' part of an operator against an API server in this process and real local machines."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from tests.fake.kube_server import FakeKube, collection
from tests.fake.machines import lab

from skyward.contract.names import FINALIZER, NODE, POOL
from skyward_operator.context import Context
from skyward_operator.engine.clock import SystemClock, timestamp
from skyward_operator.engine.supervisor import Supervisor
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection
from skyward_operator.kube.events import Events
from skyward_operator.kube.store import Store
from skyward_operator.metrics import Metrics
from skyward_operator.nodes.reconcile import Nodes, build
from skyward_operator.providers.registry import Registry
from skyward_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from tests.fake.machines import Lab

    from skyward.contract.hardware import Candidate
    from skyward.wire.frames import Frame
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.lease import Leadership
    from skyward_operator.nodes.fleet import ReadyNode
    from skyward_operator.nodes.received import Received
    from skyward_operator.providers.contract import (
        Capabilities,
        CreateRequest,
        Listing,
        Machine,
        Notice,
        Offer,
    )

PYTHON = "{}.{}".format(*__import__("sys").version_info[:2])
NODES = collection("computenodes")
POOLS = collection("computepools")


class Leader:
    """Leadership that is held."""

    identity = "test"
    installation = "lease-uid"
    is_leader = True
    term = 1

    def check(self) -> None:
        """Held."""


class ShiftedClock(SystemClock):
    """The computer's clock, moved on by hand."""

    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> datetime:
        """The time, later."""
        return super().now() + timedelta(seconds=self.shift)

    def monotonic(self) -> float:
        """The same for what is measured."""
        return super().monotonic() + self.shift


@dataclass
class Faulty:
    """The local provider with faults: `before` and `after` run around each create and may raise."""

    place: Lab
    before: Callable[[CreateRequest], None] = lambda _: None
    after: Callable[[CreateRequest], None] = lambda _: None
    extra_offers: Sequence[str] = ()
    shown_host_key: Callable[[str | None], str | None] = lambda key: key
    creates: int = 0
    cleaning: Callable[[Mapping[str, str]], bool] | None = None
    """Asked to clean up; None: there is nothing beside the machines."""
    name: str = "local"

    @property
    def capabilities(self) -> Capabilities:
        """Those of the local provider, perhaps with things beside the machines."""
        return replace(self.place.provider.capabilities, side_resources=self.cleaning is not None)

    async def offers(self, candidate: Candidate) -> Sequence[Offer]:
        """The computer, under further names."""
        (offer,) = await self.place.provider.offers(candidate)
        return [offer, *(replace(offer, instance_type=name) for name in self.extra_offers)]

    async def create(self, request: CreateRequest) -> Machine:
        """Create, with faults."""
        self.creates += 1
        self.before(request)
        machine = await self.place.provider.create(request)
        self.after(request)
        return self._seen(machine)

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """As it is."""
        return await self.place.provider.list(tags)

    async def describe(self, machine_id: str) -> Machine | None:
        """As it is, perhaps without its host key."""
        machine = await self.place.provider.describe(machine_id)
        return self._seen(machine) if machine else None

    async def terminate(self, machine_id: str, token: str) -> bool:
        """As it is."""
        return await self.place.provider.terminate(machine_id, token)

    async def quote(self, offer: Offer) -> Offer:
        """As it is."""
        return offer

    async def interruptions(self, tags: Mapping[str, str]) -> Sequence[Notice]:
        """None."""
        return []

    async def console(self, machine_id: str) -> str:
        """As it is."""
        return await self.place.provider.console(machine_id)

    async def clean_up(self, tags: Mapping[str, str]) -> bool:
        """As it was told to."""
        assert self.cleaning is not None, "nothing to clean up was declared"
        return self.cleaning(tags)

    async def aclose(self) -> None:
        """Nothing."""

    def _seen(self, machine: Machine) -> Machine:
        return replace(machine, host_key=self.shown_host_key(machine.host_key))


@dataclass
class Listener:
    """Remembers what tasks would be told."""

    ready: list[ReadyNode] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    results: list[Mapping[str, Any]] = field(default_factory=list)
    bodies: list[bytes | Received] = field(default_factory=list)
    began: list[str] = field(default_factory=list)
    cordoned: list[str] = field(default_factory=list)
    has_calls: set[str] = field(default_factory=set)
    """Nodes that are taken to have something on them."""

    def node_ready(self, node: ReadyNode) -> None:
        """A node answers."""
        self.ready.append(node)

    def node_lost(self, namespace: str, name: str, reason: str) -> None:
        """A node is given up."""
        self.lost.append((name, reason))

    def node_cordoned(self, namespace: str, name: str) -> None:
        """A node gets no more calls."""
        self.cordoned.append(name)

    def busy(self, namespace: str, name: str) -> bool:
        """As the test wants it."""
        return name in self.has_calls

    def started(self, namespace: str, node: str, header: Mapping[str, Any]) -> None:
        """A call began."""
        self.began.append(str(header["attempt"]))

    def log(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes) -> None:
        """Ignored."""

    def streamed(self, namespace: str, node: str, frame: Frame) -> None:
        """Ignored."""

    def announced(self, namespace: str, node: str, header: Mapping[str, Any]) -> bool:
        """A large result is wanted."""
        return True

    def stalled(self, namespace: str, node: str, attempt: str, trouble: str | None) -> None:
        """Ignored."""

    def result(self, namespace: str, node: str, header: Mapping[str, Any], body: bytes | Received) -> None:
        """A result."""
        self.results.append(header)
        self.bodies.append(body)


@dataclass
class Plane:
    """An API server, machines, and operators that come and go."""

    kube: FakeKube
    place: Lab
    provider: Faulty

    def node(self, name: str = "p-0-a", **image: Any) -> None:
        """A new node object, as a pool makes it."""
        spec = {
            "poolRef": {"name": "p", "uid": "pool-uid"},
            "rank": 0,
            "incarnation": 0,
            "candidates": [{"name": "main", "provider": "local"}],
            "image": {"python": PYTHON, **image},
            "worker": {"concurrency": 1},
            "timeouts": {},
            "templateHash": "ab",
        }
        metadata = {"name": name, "namespace": "default", "finalizers": [FINALIZER], "generation": 1}
        self.kube.put(NODES, {"metadata": metadata, "spec": spec})

    def get(self, name: str = "p-0-a") -> dict[str, Any] | None:
        """The node object now."""
        return self.kube.objects.get(NODES, {}).get(name)

    def status(self, name: str = "p-0-a") -> dict[str, Any]:
        """The node's status now."""
        return dict((self.get(name) or {}).get("status", {}))

    def delete(self, operator: Operator | None = None, name: str = "p-0-a") -> None:
        """Ask for the node's deletion."""
        obj = self.get(name)
        assert obj is not None
        stamp = {"deletionTimestamp": timestamp(datetime.now(UTC))}
        fresh = self.kube.put(NODES, obj | {"metadata": obj["metadata"] | stamp})
        if operator is not None:
            operator.context.store.put(NODE, fresh)

    async def phase(self, *wanted: str, name: str = "p-0-a", seconds: float = 40.0) -> dict[str, Any]:
        """The status once the node is in one of these phases."""
        try:
            async with asyncio.timeout(seconds):
                while self.status(name).get("phase") not in wanted:  # noqa: ASYNC110 - the fake has no events
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not {wanted}: {self.status(name)}") from None
        return self.status(name)

    async def written(self, writes: int, seconds: float = 40.0) -> None:
        """Wait until the status was written so often, or the node is ready."""
        async with asyncio.timeout(seconds):
            # Each turn of the loop is another place to crash at.
            while self.kube.count("PATCH", "/status") < writes:
                if self.status().get("phase") == "Ready":
                    return
                await asyncio.sleep(0)

    async def gone(self, name: str = "p-0-a", seconds: float = 30.0) -> None:
        """Wait until the object is gone."""
        async with asyncio.timeout(seconds):
            while self.get(name) is not None:  # noqa: ASYNC110 - the fake has no events
                await asyncio.sleep(0.01)

    def events(self) -> list[dict[str, Any]]:
        """What people were told."""
        return list(self.kube.objects.get("/api/v1/namespaces/default/events", {}).values())

    async def machines(self) -> list[Machine]:
        """All machines there are."""
        return list((await self.place.provider.list({})).machines)

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """A process of the nodes' part; leaving it is a crash without any goodbye to agents."""
        registry = Registry(self.place.root, ["none"])
        registry.add(self.provider)
        async with nodes_part(self.kube, self.place.root, registry) as operator:
            yield operator


@asynccontextmanager
async def nodes_part(
    kube: FakeKube, root: Path, registry: Registry, clock: Clock | None = None
) -> AsyncIterator[Operator]:
    """The nodes' part of an operator with these providers; leaving it is a crash."""
    store = Store()
    async with Connection(kube.credentials()) as connection, Supervisor() as supervisor:
        api = Api(connection, observe=store.put)
        clock = clock or SystemClock()
        context = Context(
            settings=Settings(data_dir=root),
            api=api,
            store=store,
            events=Events(api, clock),
            clock=clock,
            metrics=Metrics(),
            supervisor=supervisor,
            leadership=cast("Leadership", Leader()),
        )
        nodes, listener = build(context, registry), Listener()
        nodes.fleet.listen(listener)
        for obj in kube.objects.get(NODES, {}).values():
            store.put(NODE, obj)
        for obj in kube.objects.get(POOLS, {}).values():
            store.put(POOL, obj)
        store.synced.set()
        supervisor.keep("events", context.events.run)
        running = asyncio.create_task(nodes.run())
        try:
            yield Operator(context, nodes, listener)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@dataclass
class Operator:
    """One run of the nodes' part."""

    context: Context
    nodes: Nodes
    listener: Listener

    async def listened(self, ready: int = 0, lost: int = 0, seconds: float = 30.0) -> None:
        """Wait until the listener heard so much."""
        async with asyncio.timeout(seconds):
            while len(self.listener.ready) < ready or len(self.listener.lost) < lost:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def plane() -> AsyncIterator[Plane]:
    """Everything; whatever machine is left is ended."""
    async with FakeKube() as kube, lab() as place:
        yield Plane(kube, place, Faulty(place))
