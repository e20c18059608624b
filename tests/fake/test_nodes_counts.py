"""How often nodes write and ask while they start and while they rest: counts that must not rise unseen.

The simulated cloud with a herd for machines: real SSH, the real protocol, agents that run nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from benchmarks.herd.server import Herd
from benchmarks.herd.vms import HerdVms
from tests.fake.kube_server import FakeKube, eventually
from tests.fake.nodes_plane import NODES, Operator, ShiftedClock, nodes_part
from tests.fake.sim_cloud import Sim, sim_cloud
from tests.fake.sim_nodes import KEYS, SimNodes

from skyward.contract.names import NODE
from skyward_operator.kube.store import key_of
from skyward_operator.providers.contract import Setup
from skyward_operator.providers.registry import Registry
from skyward_operator.providers.sim.provider import SimProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FEW: Final = 3
MANY: Final = 30
SSH_SECONDS: Final = 4


@dataclass(slots=True)
class World:
    """An operator that has nodes which are ready."""

    sim: Sim
    kube: FakeKube
    clock: ShiftedClock
    operator: Operator

    def writes(self) -> int:
        """Writes of nodes until now."""
        return self.kube.count("PATCH", "/computenodes/")

    def calls(self) -> Counter[str]:
        """What the cloud was asked until now."""
        return Counter(event["operation"] for event in self.sim.events("request"))

    async def look(self) -> None:
        """Have every node looked at, until nobody looks any more."""
        controller, looked = self.operator.nodes.controller, Counter[Any]()
        finish = controller.queue.done

        def done(key: Any) -> None:
            looked[key] += 1
            finish(key)

        nodes = [key_of(node) for node in self.operator.context.store.list(NODE)]
        with patch.object(controller.queue, "done", done):
            for key in nodes:
                controller.queue.add(key)
            await eventually(lambda: looked.keys() >= set(nodes) and not len(controller.queue), 40)


@asynccontextmanager
async def ready_nodes(count: int, **scenario: Any) -> AsyncIterator[World]:
    """So many nodes, from nothing to ready."""
    clock, vms = ShiftedClock(), HerdVms(Herd())
    async with sim_cloud(vms=vms, scenario=scenario) as sim, FakeKube() as kube:
        nodes = SimNodes(sim, kube)
        for number in range(count):
            nodes.add(number)
        registry = Registry(sim.folder, ["none"])
        account = {"endpoint": sim.service.endpoint, "key": KEYS["full"]}
        registry.add(SimProvider(Setup(sim.folder, account)))
        async with nodes_part(kube, sim.folder, registry, clock) as operator:
            await operator.listened(ready=count, seconds=60)
            phases = kube.objects[NODES]
            assert {each["status"]["phase"] for each in phases.values()} == {"Ready"}
            yield World(sim, kube, clock, operator)
        for machine in list(sim.service.cloud.state.live()):
            await asyncio.to_thread(vms.power_off, machine.id)


async def test_a_node_that_starts_is_written_four_times() -> None:
    """Its intent, what was bought, where it is, and that it is ready: each must be durable by itself."""
    async with ready_nodes(FEW) as world:
        assert world.writes() == 4 * FEW
        told = world.kube.objects["/api/v1/namespaces/default/events"]
        reasons = {"Connecting": FEW, "AgentReady": FEW}
        await eventually(lambda: Counter(event["reason"] for event in told.values()) == reasons)


async def test_a_machine_that_accepts_ssh_late_is_met_soon_without_many_words() -> None:
    """One more write says what is wrong; its provider is asked about it every few seconds."""
    late = {"at": "vm", "effect": "ssh-refused", "seconds": SSH_SECONDS}
    async with ready_nodes(FEW, faults=[late]) as world:
        assert world.writes() <= 6 * FEW
        calls = world.calls()
        assert calls["describe"] + calls["list"] <= 6 * FEW, calls
        machines = world.sim.service.cloud.state.live()
        for number in range(FEW):
            ready = datetime.fromisoformat(world.kube.objects[NODES][f"p-{number}"]["status"]["readyTime"])
            assert ready.timestamp() >= min(machine.created for machine in machines) + SSH_SECONDS - 1


async def test_nodes_that_boot_together_are_polled_together() -> None:
    """However many they are, their account is listed about once a second, and each is described once."""
    async with ready_nodes(MANY, boot_seconds=3) as world:
        calls = world.calls()
        assert calls["create"] == MANY
        assert 1 <= calls["list"] <= MANY, calls
        assert MANY <= calls["describe"] <= 2 * MANY, calls
        assert {each["status"]["hostKey"] for each in world.kube.objects[NODES].values()} == {
            machine.host_key for machine in world.sim.service.cloud.state.live()
        }


async def test_nodes_at_rest_write_a_heartbeat_a_minute_and_their_account_is_asked_for_all_of_them() -> None:
    async with ready_nodes(FEW) as world:
        notices = world.operator.nodes.notices
        before = world.calls()
        with patch.object(notices, "_ask", wraps=notices._ask) as asking:
            await notices.round()
        assert asking.await_count == 1
        writes, calls = world.writes(), world.calls() - before
        assert calls.keys() <= {"notices"}
        for _ in range(3):
            await world.look()
        assert world.writes() == writes
        for minute in range(2):
            world.clock.shift += 45
            await eventually(lambda: heard_lately(world))
            await world.look()
            assert world.writes() == writes + minute * FEW
            world.clock.shift += 22  # what is written is when the last ping was answered
            await eventually(lambda: heard_lately(world))
            await world.look()
            await world.look()
            assert world.writes() == writes + (minute + 1) * FEW
        assert (world.calls() - before).keys() <= {"notices"}


def heard_lately(world: World) -> bool:
    """Whether each agent gave a sign of life since the clock was moved."""
    now = world.clock.now()
    sessions = world.operator.nodes.fleet.sessions().values()
    return all(each.view.heard and (now - each.view.heard).total_seconds() < 10 for each in sessions)
