"""The nodes' part of an operator against the simulated cloud.

Its machines exist on paper only, for what is bought, when, and whether it is given back; with `ssh` they are
real.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tests.fake.kube_server import FakeKube
from tests.fake.nodes_plane import NODES, POOLS, PYTHON, nodes_part
from tests.fake.sim_cloud import sim_cloud

from skyward.contract.names import FINALIZER, NODE
from skyward_operator.engine.clock import timestamp
from skyward_operator.providers.contract import Setup
from skyward_operator.providers.registry import Registry
from skyward_operator.providers.sim.provider import SimProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tests.fake.nodes_plane import Operator
    from tests.fake.sim_cloud import Sim

    from skyward_operator.engine.clock import Clock

KEYS: Final = {"full": "default-key", "user-data": "user-data-key", "bare": "bare-account-key"}


@dataclass(slots=True)
class SimNodes:
    """A cloud, an API server, and operators that come and go."""

    sim: Sim
    kube: FakeKube
    profile: str = "full"

    def pool(self, name: str = "p", **spec: Any) -> None:
        """The pool of the nodes; without one, what it would say is as it is by default."""
        self.kube.put(POOLS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})

    def add(
        self,
        number: int = 0,
        price: str | None = None,
        secret: str | None = None,
        market: str = "spot-if-available",
        pool: str = "p",
        **timeouts: int,
    ) -> None:
        """A new node object, as a pool makes it."""
        main = {
            "instanceTypes": ["c.small", "c.large"],
            "maxHourlyPrice": price,
            "credentialsRef": {"name": secret} if secret else None,
            "market": market,
        }
        self.wants(number, [main], pool, **timeouts)

    def wants(
        self, number: int, candidates: Sequence[Mapping[str, Any]], pool: str = "p", **timeouts: int
    ) -> None:
        """A new node object with candidates at this cloud; the first is called main, the others other-1, …"""
        names = ("main", *(f"other-{position}" for position in range(1, len(candidates))))
        spec = {
            "poolRef": {"name": pool, "uid": "pool-uid"},
            "rank": number,
            "incarnation": 0,
            "candidates": [
                {"name": name, "provider": "sim", **fields}
                for name, fields in zip(names, candidates, strict=True)
            ],
            "image": {"python": PYTHON},
            "worker": {"concurrency": 1},
            "timeouts": timeouts,
            "templateHash": "ab",
        }
        metadata = {
            "name": f"p-{number}",
            "namespace": "default",
            "finalizers": [FINALIZER],
            "generation": 1,
            "creationTimestamp": timestamp(datetime.now(UTC)),
        }
        self.kube.put(NODES, {"metadata": metadata, "spec": spec})

    async def announce(self, seconds: float) -> str:
        """Have the cloud say that it takes its only machine back. Returns the machine's id."""
        (machine,) = self.sim.service.cloud.state.live()
        await self.sim.staff("POST", f"/instances/{machine.id}/interrupt", json={"notice_seconds": seconds})
        return str(machine.id)

    def events(self) -> list[str]:
        """The reasons of the events that people see."""
        found = self.kube.objects.get("/api/v1/namespaces/default/events", {}).values()
        return [str(each["reason"]) for each in found]

    def alive(self) -> list[str]:
        """Nodes that nobody deleted."""
        return [
            name
            for name, obj in self.kube.objects.get(NODES, {}).items()
            if "deletionTimestamp" not in obj["metadata"]
        ]

    def status(self, number: int = 0) -> dict[str, Any]:
        """A node's status now."""
        return dict(self.kube.objects[NODES][f"p-{number}"].get("status", {}))

    async def reaches(self, number: int = 0, seconds: float = 40.0, **fields: str) -> dict[str, Any]:
        """A node's status once these fields are so."""
        try:
            async with asyncio.timeout(seconds):
                while not fields.items() <= self.status(number).items():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not {fields}: {self.status(number)}") from None
        return self.status(number)

    def delete(self, operator: Operator, name: str) -> None:
        """Ask for a node's deletion."""
        obj = self.kube.objects[NODES][name]
        stamp = {"deletionTimestamp": timestamp(datetime.now(UTC))}
        fresh = self.kube.put(NODES, obj | {"metadata": obj["metadata"] | stamp})
        operator.context.store.put(NODE, fresh)

    @asynccontextmanager
    async def operator(self, clock: Clock | None = None) -> AsyncIterator[Operator]:
        """A process of the operator, perhaps with a clock of its own; leaving it kills it."""
        credentials = {
            "endpoint": self.sim.service.endpoint,
            "key": KEYS[self.profile],
            "profile": self.profile,
        }
        registry = Registry(self.sim.folder, ["none"])
        registry.add(SimProvider(Setup(self.sim.folder, credentials)))
        async with nodes_part(self.kube, self.sim.folder, registry, clock) as operator:
            yield operator

    async def passes(self, steps: int, seconds: float) -> None:
        """Wait for so many steps of cloud and API server, but no longer than so many seconds."""
        until, deadline = self.steps() + steps, time.monotonic() + seconds
        while self.steps() < until and time.monotonic() < deadline:  # noqa: ASYNC110
            # Each turn of the loop is another place to be killed at.
            await asyncio.sleep(0)

    def asked(self, operation: str) -> int:
        """How many requests of that kind the cloud got."""
        return sum(event["operation"] == operation for event in self.sim.events("request"))

    def told(self, reason: str) -> list[str]:
        """The messages of all events with that reason, however often they were repeated."""
        events = self.kube.objects.get("/api/v1/namespaces/default/events", {}).values()
        return [event["message"] for event in events if event["reason"] == reason]

    def steps(self) -> int:
        """What has happened so far."""
        return self.sim.service.cloud.ledger.written + len(self.kube.requests)

    async def settle(self, seconds: float = 60.0) -> list[str]:
        """Delete all that is left and wait until it is gone. Returns what does not go."""
        async with self.operator() as operator:
            for name in self.alive():
                self.delete(operator, name)
            try:
                async with asyncio.timeout(seconds):
                    while self.kube.objects.get(NODES):  # noqa: ASYNC110 - the fake has no events
                        await asyncio.sleep(0.05)
            except TimeoutError:
                left = self.kube.objects[NODES]
                return [f"stuck: {name} {obj.get('status', {}).get('phase')}" for name, obj in left.items()]
        return []


@asynccontextmanager
async def sim_nodes(profile: str = "full", *, ssh: bool = False, **scenario: Any) -> AsyncIterator[SimNodes]:
    """A cloud with a script, an API server, and no operator yet."""
    async with sim_cloud(ssh=ssh, scenario=scenario) as sim, FakeKube() as kube:
        yield SimNodes(sim, kube, profile)
