"""Secrets that candidates refer to: read seldom, and seen within seconds when they change, go or come."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.fake.kube_server import FakeKube, eventually
from tests.fake.nodes_plane import NODES, ShiftedClock, nodes_part
from tests.fake.sim_nodes import KEYS, sim_nodes

from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection
from skyward_operator.kube.errors import ApiError
from skyward_operator.nodes.accounts import Accounts, NoAccount
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.credentials import SHORT_SECONDS, Credentials
from skyward_operator.providers.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from skyward_operator.engine.clock import Clock

SECRETS = "/api/v1/namespaces/default/secrets"
ACCOUNT = Account("sim", "default", "cloud")


@dataclass
class ManualClock:
    """Time that stands still."""

    time: float = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.time


class FakeRegistry:
    """An adapter is what it was made from."""

    names = ("sim",)

    def __contains__(self, name: str) -> bool:
        return name == "sim"

    def provider(self, name: str, credentials: Mapping[str, str]) -> Any:
        """The credentials."""
        return dict(credentials)


@dataclass
class World:
    """Accounts at an API server."""

    kube: FakeKube
    clock: ManualClock
    credentials: Credentials
    accounts: Accounts

    def write(self, key: str, name: str = "cloud") -> None:
        """The Secret, with this key."""
        data = {"key": base64.b64encode(key.encode()).decode()}
        self.kube.put(SECRETS, {"metadata": {"name": name}, "data": data})

    async def key(self, account: Account = ACCOUNT) -> str:
        """The key of the adapter of an account."""
        return cast("dict[str, str]", await self.accounts.of(account))["key"]

    def reads(self) -> int:
        """How often the API server was asked."""
        return self.kube.count("GET", "/secrets/")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with FakeKube() as kube, Connection(kube.credentials()) as connection:
        clock = ManualClock()
        credentials = Credentials(Api(connection), cast("Clock", clock))
        yield World(kube, clock, credentials, Accounts(credentials, cast("Registry", FakeRegistry())))


async def test_many_steps_read_a_secret_once(world: World) -> None:
    world.write("first")
    assert set(await asyncio.gather(*(world.key() for _ in range(100)))) == {"first"}
    world.clock.time += SHORT_SECONDS - 0.1
    assert await world.key() == "first"
    assert world.reads() == 1


async def test_a_changed_secret_is_seen_within_seconds(world: World) -> None:
    world.write("first")
    await world.key()
    world.write("second")
    world.clock.time += SHORT_SECONDS
    assert await world.key() == "second"
    assert world.reads() == 2


async def test_a_deleted_secret_is_told_within_seconds_and_a_new_one_taken(world: World) -> None:
    world.write("first")
    await world.key()
    world.kube.remove(SECRETS, "cloud")
    world.clock.time += SHORT_SECONDS
    for _ in range(3):
        with pytest.raises(NoAccount, match="refers to Secret cloud, which does not exist") as none:
            await world.key()
        assert none.value.refusal.reason == "CredentialsNotFound"
    assert world.reads() == 2
    world.write("second")
    world.clock.time += SHORT_SECONDS
    assert await world.key() == "second"


async def test_an_api_server_that_fails_is_asked_again_by_the_next_step(world: World) -> None:
    world.write("first")
    world.kube.fault(method="GET", path="/secrets/", status=403, reason="Forbidden")
    with pytest.raises(ApiError):
        await world.key()
    assert await world.key() == "first"


async def test_secrets_of_others_are_not_mixed_up_and_old_ones_not_kept(world: World) -> None:
    other = Account("sim", "default", "other")
    world.write("first")
    world.write("second", "other")
    assert await world.key() == "first"
    world.clock.time += SHORT_SECONDS
    assert await world.key(other) == "second"
    assert list(vars(world.credentials)["_known"]) == [("default", "other")]


async def test_a_node_whose_secret_is_deleted_says_so_and_its_machine_is_not_forgotten() -> None:
    async with sim_nodes() as nodes:
        clock = ShiftedClock()
        secret = {"endpoint": nodes.sim.service.endpoint, "key": KEYS["full"]}
        data = {name: base64.b64encode(value.encode()).decode() for name, value in secret.items()}
        nodes.kube.put(SECRETS, {"metadata": {"name": "cloud"}, "data": data})
        nodes.add(secret="cloud")
        registry = Registry(nodes.sim.folder, ["sim"])
        async with nodes_part(nodes.kube, nodes.sim.folder, registry, clock) as operator:
            await nodes.reaches(phase="Connecting", reason="Connecting")
            nodes.kube.remove(SECRETS, "cloud")
            clock.shift += SHORT_SECONDS
            nodes.delete(operator, "p-0")
            status = await nodes.reaches(phase="Terminating", reason="CredentialsNotFound")
            assert status["message"] == "candidate main refers to Secret cloud, which does not exist"
            assert nodes.sim.audit().alive
            nodes.kube.put(SECRETS, {"metadata": {"name": "cloud"}, "data": data})
            clock.shift += SHORT_SECONDS
            await eventually(lambda: not nodes.kube.objects[NODES], 30)
        assert not nodes.sim.audit().alive
