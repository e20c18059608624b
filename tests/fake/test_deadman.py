"""The dead-man's switch on real machines of the simulated cloud, whose time is moved forward."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.fake.nodes_plane import ShiftedClock
from tests.fake.sim_nodes import SimNodes, sim_nodes

from skyward.contract.names import POOL
from skyward_operator.nodes.ssh import Target, connect
from skyward_operator.providers.conformance import until
from skyward_operator.providers.local.processes import MARK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fake.nodes_plane import Operator

pytestmark = pytest.mark.timeout(180)

TTL = 40
"""Seconds: the operator beats every 4, the machine looks every 2, and six looks pass until it ends."""
POOLS = "/apis/skyward.dev/v1alpha1/namespaces/default/computepools"


@dataclass
class Scene:
    """A node of the cloud, with a switch."""

    world: SimNodes
    changes: int = 0

    def have_pool(self, operator: Operator, ttl: int) -> None:
        """Let the operator's pool say so."""
        self.changes += 1
        version = str(self.changes)
        metadata = {"name": "p", "namespace": "default", "uid": "pool-uid", "resourceVersion": version}
        candidates = [{"name": "main", "provider": "sim"}]
        spec = {"candidates": candidates, "lifetime": {"ttlSeconds": ttl}}
        operator.context.store.put(POOL, {"metadata": metadata, "spec": spec})

    @asynccontextmanager
    async def operator(self, ttl: int = TTL) -> AsyncIterator[Operator]:
        """An operator whose pool has this time to live; leaving it kills it for good."""
        async with self.world.operator() as operator:
            self.have_pool(operator, ttl)
            yield operator

    async def ready(self, ttl: int = TTL) -> str:
        """Wait until the node is ready and its switch has this time to live. Returns the machine."""
        await self.world.reaches(phase="Ready")
        await true(lambda: (self.world.status().get("deadMan") or {}).get("ttlSeconds") == ttl)
        return str(self.world.status()["providerId"])

    async def later(self, seconds: float) -> None:
        """Let so much time pass for the cloud and in its machines."""
        await self.world.sim.staff("POST", "/clock", json={"seconds": seconds})

    def gone(self, machine: str) -> str | None:
        """Why the machine has ended, or None."""
        instance = self.world.sim.service.cloud.state.instances[machine]
        return None if instance.gone is None else instance.cause


async def true(claim: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""

    async def look() -> bool | None:
        return claim() or None

    await until(look, seconds)


@asynccontextmanager
async def scene(profile: str = "full", **scenario: Any) -> AsyncIterator[Scene]:
    """A cloud with real machines, and a node that wants one."""
    async with sim_nodes(profile, ssh=True, **scenario) as world:
        world.add()
        yield Scene(world)


def processes(machine: str, words: str) -> list[psutil.Process]:
    """What runs inside of a machine and has these words in its command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == machine and words in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.parametrize("profile", ["full", "user-data", "bare"])
async def test_a_machine_ends_when_its_operator_is_gone_for_good(profile: str) -> None:
    """Its bill ends, too, at a provider where that is so; where it is not, the machine is billed on."""
    async with scene(profile) as one:
        async with one.operator():
            machine = await one.ready()
        assert one.world.status()["launch"]["powerOffEndsBilling"] is (profile != "bare")
        await one.later(TTL - 10)
        assert one.gone(machine) is None
        await one.later(10)
        if profile == "bare":
            await true(lambda: one.world.sim.service.cloud.vms.powered_off(machine))
            assert one.gone(machine) is None
        else:
            await true(lambda: one.gone(machine) == "powered off from inside")
            assert not one.world.sim.audit().alive
            assert one.world.sim.audit().seconds < 3 * TTL


async def test_a_machine_lives_when_another_operator_comes_in_time() -> None:
    """The second one's beats count from when they come; what runs there is not disturbed."""
    async with scene() as one:
        async with one.operator():
            machine = await one.ready()
        agents = {each.pid for each in processes(machine, "skyward.agent")}
        await one.later(TTL - 15)
        async with one.operator() as second:
            await second.listened(ready=1)
            await one.ready()
            for _ in range(3):
                await one.later(TTL - 15)
                await beaten(machine)
            assert one.gone(machine) is None
        assert {each.pid for each in processes(machine, "skyward.agent")} == agents


async def beaten(machine: str) -> None:
    """Wait until the machine heard a beat from now on: its switch reads none that is older."""
    (watch,) = await found(machine, "deadman.sh watch")
    before = watch.cpu_times().user + watch.io_counters().read_chars
    await true(lambda: watch.cpu_times().user + watch.io_counters().read_chars > before)
    await asyncio.sleep(0)


async def found(machine: str, words: str) -> list[psutil.Process]:
    """The processes with these words, once there are any."""
    await true(lambda: bool(processes(machine, words)))
    return processes(machine, words)


async def test_time_that_jumps_ends_no_machine_whose_operator_lives() -> None:
    """As after a machine was suspended: it hears its operator before it looks for the last time."""
    async with scene() as one, one.operator():
        machine = await one.ready()
        for _ in range(3):
            await one.later(10 * TTL)
            await beaten(machine)
        assert one.gone(machine) is None
        assert one.world.status()["phase"] == "Ready"


async def test_an_agent_that_lives_on_keeps_no_machine_alive_and_a_killed_one_ends_none() -> None:
    """The operator's beats alone count: with its agent dead it lives, without its operator it ends."""
    async with scene() as one:
        async with one.operator():
            machine = await one.ready()
            for agent in processes(machine, "skyward.agent"):
                agent.kill()
            await one.later(TTL - 15)
            await beaten(machine)
            await one.later(TTL - 15)
            assert one.gone(machine) is None
        await one.later(TTL + 10)
        await true(lambda: one.gone(machine) == "powered off from inside")


async def test_a_switch_whose_processes_are_killed_comes_back_each_time() -> None:
    """One of the two is brought back by the other, also without an operator; both by the next beat."""
    async with scene() as one:
        async with one.operator():
            machine = await one.ready()
            for each in processes(machine, "deadman.sh"):
                each.kill()
            await found(machine, "deadman.sh keep")
            await found(machine, "deadman.sh watch")
        for part in ("watch", "keep"):
            (killed,) = processes(machine, f"deadman.sh {part}")
            killed.kill()
            await true(lambda: len(living(machine)) == 2)
        await one.later(TTL + 10)
        await true(lambda: one.gone(machine) == "powered off from inside")


def living(machine: str) -> list[psutil.Process]:
    """The switch's processes that are no zombies."""
    return [each for each in processes(machine, "deadman.sh") if each.status() != psutil.STATUS_ZOMBIE]


async def test_another_ttl_of_the_pool_reaches_a_living_machine_and_0_turns_it_off() -> None:
    """Not one that is made later only; and on again."""
    async with scene() as one:
        async with one.operator() as operator:
            machine = await one.ready()
            one.have_pool(operator, 0)
            await one.ready(ttl=0)
        await one.later(100 * TTL)
        async with one.operator(ttl=0) as operator:
            await operator.listened(ready=1)
            assert one.gone(machine) is None
            one.have_pool(operator, TTL)
            await one.ready(ttl=TTL)
        await one.later(TTL + 10)
        await true(lambda: one.gone(machine) == "powered off from inside")


async def test_an_operator_that_dies_before_it_connects_leaks_nothing_where_user_data_runs() -> None:
    """The machine arms itself at its first boot, with the time that a connection may take."""
    async with scene("user-data") as one:
        one.world.kube.objects.clear()
        one.world.add(sshSeconds=60)
        async with one.operator():
            await true(lambda: bool(one.world.status().get("providerId")))
            machine = str(one.world.status()["providerId"])
        assert one.world.status()["launch"]["bootTtlSeconds"] == 60
        await true(
            lambda: "first boot: bash ended with 0" in one.world.sim.service.cloud.vms.console(machine)
        )
        await one.later(70)
        await true(lambda: one.gone(machine) == "powered off from inside")


@pytest.mark.parametrize("hours", [-1, 1])
async def test_an_operator_whose_clock_is_wrong_by_an_hour_keeps_what_it_finds(hours: int) -> None:
    """It takes over from one whose clock is right: neither the node nor the machine is given up for that."""
    async with scene() as one:
        async with one.operator():
            machine = await one.ready()
        clock = ShiftedClock()
        clock.shift = hours * 3600.0
        async with one.world.operator(clock) as second:
            one.have_pool(second, TTL)
            await second.listened(ready=1)
            for _ in range(2):
                await one.later(TTL - 15)
                await beaten(machine)
            status = one.world.status()
        assert (status["phase"], one.gone(machine)) == ("Ready", None)
        assert "endTime" not in status["billing"]


async def test_a_machine_that_cannot_be_armed_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its way to end is missing: no calls on it, the machine is given back."""
    monkeypatch.setattr("skyward_operator.providers.local.power.put_power_off", lambda folder: None)
    async with scene() as one, one.operator():
        status = await one.world.reaches(phase="Failed")
        assert status["reason"] == "SwitchFailed"
        assert "there is no skyward-power-off on this machine" in status["message"]
        await true(lambda: not one.world.sim.audit().alive)


async def test_shutdown_inside_of_a_machine_ends_that_machine_and_nothing_else() -> None:
    """Whatever it is called there: a machine that is processes has no other way to be powered off."""
    async with scene() as one, one.operator() as operator:
        machine = await one.ready()
        session = operator.nodes.fleet.session(("default", "p-0"))
        assert session is not None
        subject = session._subject
        target = Target(subject.address, one.world.status()["hostKey"], subject.client_key)
        connection = await connect(target)
        for word in ("shutdown", "poweroff", "halt", "reboot"):
            where = (await connection.run(f"readlink -f $(command -v {word})")).stdout
            assert Path(str(where).strip()).parent == one.world.sim.folder / "vms" / machine / "bin"
        refused = await connection.run("shutdown -c")
        assert refused.exit_status == 1
        assert one.gone(machine) is None
        with suppress(OSError):
            await connection.run("shutdown -h now")
        await true(lambda: one.gone(machine) == "powered off from inside")
        connection.abort()
