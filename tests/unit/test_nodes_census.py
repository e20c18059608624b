"""How providers are asked for machines: one by one, or all at once; and what proves that one is gone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import pytest

from skyward_operator.nodes.census import FEW, FRESH_SECONDS, RECENT_SECONDS, Census
from skyward_operator.nodes.observation import ABSENT
from skyward_operator.providers.contract import TAG_INSTALLATION, Address, Listing, Machine, MachineState
from skyward_operator.providers.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.lease import Leadership
    from skyward_operator.nodes.observation import Absent
    from skyward_operator.providers.contract import Provider


@dataclass
class FakeProvider:
    """Machines, of which a listing may lack some; counts what it is asked."""

    machines: dict[str, Machine]
    host_keys: dict[str, str] = field(default_factory=dict)
    """Shown to who asks for one machine only."""
    unlisted: set[str] = field(default_factory=set)
    listings: int = 0
    descriptions: list[str] = field(default_factory=list)
    broken: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """Those of the installation."""
        assert tags == {TAG_INSTALLATION: "lease-uid"}
        self.listings += 1
        self.asked.set()
        await self.open.wait()
        if self.broken:
            raise Transient("down")
        found = [each for each in self.machines.values() if each.id not in self.unlisted]
        return Listing(found, complete=not self.unlisted)

    async def describe(self, machine_id: str) -> Machine | None:
        """One."""
        self.descriptions.append(machine_id)
        machine = self.machines.get(machine_id)
        return replace(machine, host_key=self.host_keys.get(machine_id)) if machine is not None else None


@dataclass
class ManualClock:
    """Time that stands still."""

    time: float = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.time


class Leader:
    """Leadership that is held."""

    installation = "lease-uid"


@dataclass
class World:
    """A census and what is around it."""

    provider: FakeProvider
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.census = Census(cast("Leadership", Leader()), cast("Clock", self.clock))

    async def describe(self, machine_id: str, *, to_connect: bool = False) -> Machine | Absent | None:
        """What the census says."""
        provider = cast("Provider", self.provider)
        return await self.census.describe(provider, machine_id, to_connect=to_connect)

    async def everybody(self) -> list[Machine | Absent | None]:
        """All machines, asked for side by side."""
        return await asyncio.gather(*map(self.describe, self.provider.machines))


def world(machines: int) -> World:
    made = [Machine(f"m-{number}", "token", {}, MachineState.RUNNING) for number in range(machines)]
    found = World(FakeProvider({machine.id: machine for machine in made}))
    found.provider.open.set()
    return found


async def test_few_machines_are_asked_for_one_by_one() -> None:
    few = world(FEW)
    assert await few.everybody() == list(few.provider.machines.values())
    assert (len(few.provider.descriptions), few.provider.listings) == (FEW, 0)


async def test_many_machines_are_looked_up_in_one_listing_at_a_time() -> None:
    many = world(100)
    await many.everybody()
    assert (len(many.provider.descriptions), many.provider.listings) == (FEW, 1)
    assert await many.everybody() == list(many.provider.machines.values())
    assert many.provider.listings == 1
    many.clock.time += FRESH_SECONDS
    await many.everybody()
    assert (len(many.provider.descriptions), many.provider.listings) == (FEW, 2)


async def test_a_listing_that_takes_long_answers_all_who_asked_while_it_ran() -> None:
    slow = world(50)
    slow.provider.open.clear()
    asking = asyncio.ensure_future(slow.everybody())
    await slow.provider.asked.wait()
    slow.clock.time += 3 * FRESH_SECONDS
    slow.provider.open.set()
    assert len(await asking) == 50
    assert slow.provider.listings == 1


async def test_a_machine_that_no_listing_has_is_gone_only_if_it_is_asked_for_by_itself() -> None:
    late = world(50)
    await late.everybody()
    late.provider.unlisted = {"m-49"}
    del late.provider.machines["m-48"]
    late.clock.time += FRESH_SECONDS
    late.provider.descriptions.clear()
    assert await late.describe("m-49") == late.provider.machines["m-49"]
    assert await late.describe("m-48") is ABSENT
    assert late.provider.descriptions == ["m-49", "m-48"]


async def test_a_machine_that_has_come_to_run_is_asked_for_its_host_key() -> None:
    """A listing may leave it out, and what is shown without one would be trusted on first use."""
    booting = world(50)
    await booting.everybody()
    where = Address("127.0.0.1", 22, "root")
    known = booting.provider.machines["m-49"]
    booting.provider.machines["m-49"] = replace(known, address=where)
    booting.clock.time += FRESH_SECONDS
    booting.provider.descriptions.clear()
    booting.provider.host_keys["m-49"] = "ssh-ed25519 AAAA"
    assert await booting.describe("m-48", to_connect=True) == booting.provider.machines["m-48"]
    found = await booting.describe("m-49", to_connect=True)
    assert isinstance(found, Machine)
    assert found.host_key == "ssh-ed25519 AAAA"
    assert booting.provider.descriptions == ["m-49"]
    assert await booting.describe("m-49", to_connect=False) == booting.provider.machines["m-49"]
    assert booting.provider.descriptions == ["m-49"]


async def test_a_machine_that_is_newer_than_the_listing_is_no_news_until_the_next_one() -> None:
    growing = world(50)
    await growing.everybody()
    growing.clock.time += FRESH_SECONDS / 2
    growing.provider.machines["new"] = Machine("new", "token", {}, MachineState.PENDING)
    growing.provider.descriptions.clear()
    assert await growing.describe("new") is None
    growing.clock.time += FRESH_SECONDS / 2
    assert await growing.describe("new") == growing.provider.machines["new"]
    assert (growing.provider.descriptions, growing.provider.listings) == ([], 2)


async def test_news_of_machines_that_boot_quickly_are_quick() -> None:
    """Ten that have been polled for a moment are listed five times a second, fifty once."""
    quick = world(10)
    for _ in range(50):
        await quick.everybody()
        quick.clock.time += 0.02
    assert 4 <= quick.provider.listings <= 6
    many = world(60)
    for _ in range(50):
        await many.everybody()
        many.clock.time += 0.02
    assert many.provider.listings == 1


async def test_one_by_one_again_when_the_others_have_started() -> None:
    done = world(50)
    await done.everybody()
    done.clock.time += RECENT_SECONDS
    done.provider.descriptions.clear()
    await done.describe("m-0")
    assert (done.provider.descriptions, done.provider.listings) == (["m-0"], 1)


async def test_an_account_that_fails_is_asked_once_for_all_who_wait() -> None:
    down = world(50)
    down.provider.broken = True
    answers = await asyncio.gather(*map(down.describe, down.provider.machines), return_exceptions=True)
    assert sum(isinstance(each, Transient) for each in answers) == 50 - FEW
    assert down.provider.listings == 1
    down.provider.broken = False
    down.clock.time += FRESH_SECONDS
    assert await down.describe("m-49") == down.provider.machines["m-49"]


async def test_who_gives_up_waiting_leaves_the_listing_to_the_next() -> None:
    stuck = world(50)
    stuck.provider.open.clear()
    asking = [asyncio.ensure_future(stuck.describe(each)) for each in stuck.provider.machines]
    await stuck.provider.asked.wait()
    asking[FEW].cancel()
    stuck.provider.open.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(each, Machine) for each in answers) == 49
    with pytest.raises(asyncio.CancelledError):
        await asking[FEW]
    assert stuck.provider.listings == 2
