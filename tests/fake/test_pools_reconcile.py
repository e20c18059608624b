"""Pools over a fake API server: from the object to nodes, and to the end of both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from tests.fake.cluster_fakes import FakeApi, fake_context, pool_object, until

from skyward.contract.names import FINALIZER, NODE, POOL, POOL_FINALIZER, TASK, ssh_secret_name
from skyward_operator.kube.errors import Unavailable
from skyward_operator.kube.kinds import SECRET
from skyward_operator.money.balance import Balance
from skyward_operator.pools import build
from skyward_operator.pools.observation import Demand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from skyward.contract.pool import ComputePool


@dataclass
class FakeCalls:
    """Those who run calls, as the test says."""

    has: Demand | None = field(default_factory=Demand)
    taken: set[str] = field(default_factory=set)
    """Nodes that were given a call in the last moment."""
    retired: list[str] = field(default_factory=list)
    reinstated: list[str] = field(default_factory=list)

    def demand(self, namespace: str, pool: str) -> Demand | None:
        """What the test says."""
        return self.has

    def retire(self, namespace: str, pool: str, node: str) -> bool:
        """Unless it was given a call."""
        if node in self.taken:
            return False
        self.retired.append(node)
        return True

    def reinstate(self, namespace: str, pool: str, node: str) -> None:
        """Note it."""
        self.reinstated.append(node)


@pytest.fixture
def calls() -> FakeCalls:
    return FakeCalls()


@pytest.fixture
def events() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def api(tmp_path: Path, calls: FakeCalls, events: list[tuple[str, str]]) -> AsyncIterator[FakeApi]:
    async with fake_context(tmp_path) as (context, made):
        context.events.emit = lambda obj, type, reason, message: events.append((reason, message))  # type: ignore[method-assign]
        pools = asyncio.create_task(build(context, calls).run())
        releasing: set[asyncio.Task[Any]] = set()

        def release(_: dict[str, Any] | None, node: dict[str, Any] | None) -> None:
            """As the nodes' part lets a node go for which nothing was bought."""
            if node is not None and "deletionTimestamp" in node["metadata"]:
                metadata = node["metadata"]
                bare = made.patch(NODE, "default", metadata["name"], {"metadata": {"finalizers": []}})
                releasing.add(asyncio.create_task(bare))

        context.store.subscribe(NODE, release)
        yield made
        pools.cancel()
        await asyncio.gather(pools, *releasing, return_exceptions=True)


def nodes(api: FakeApi) -> list[dict[str, Any]]:
    found = [obj for (plural, _, _), obj in api.objects.items() if plural == NODE.plural]
    return sorted(found, key=lambda obj: obj["spec"]["rank"])


def pool(api: FakeApi) -> dict[str, Any]:
    return api.objects[POOL.plural, "default", "pool"]


def says(api: FakeApi, phase: str) -> bool:
    return bool((pool(api).get("status") or {}).get("phase") == phase)


async def ready(api: FakeApi, count: int) -> None:
    """Have the nodes of a pool become ready, as their part of the operator would."""
    await until(lambda: len(nodes(api)) == count)
    for node in nodes(api):
        await api.patch_status(
            NODE,
            "default",
            node["metadata"]["name"],
            {"phase": "Ready", "readyTime": "2026-01-01T00:00:00Z"},
        )


async def test_pool_gets_its_nodes_and_says_when_they_are_ready(api: FakeApi) -> None:
    await api.create(POOL, pool_object(nodes=2))
    await ready(api, 2)
    await until(lambda: says(api, "Ready"))
    assert [node["spec"]["rank"] for node in nodes(api)] == [0, 1]
    assert pool(api)["metadata"]["finalizers"] == [POOL_FINALIZER]
    assert pool(api)["status"]["display"]["nodes"] == "2/2"
    writes = len(api.status_writes)
    await api.patch(POOL, "default", "pool", {"metadata": {"labels": {"a": "b"}}})
    await api.create(
        TASK, {"metadata": {"namespace": "default", "name": "t"}, "spec": {"poolRef": {"name": "pool"}}}
    )
    await asyncio.sleep(0)
    assert len(api.status_writes) == writes


async def test_pool_shrinks_and_grows(api: FakeApi) -> None:
    await api.create(POOL, pool_object(nodes=3))
    await ready(api, 3)
    first = [node["metadata"]["name"] for node in nodes(api)]
    await api.patch(POOL, "default", "pool", {"spec": {"nodes": {"desired": 1}}})
    await until(lambda: [node["metadata"]["name"] for node in nodes(api)] == first[:1])
    await api.patch(POOL, "default", "pool", {"spec": {"nodes": {"desired": 2}}})
    await until(lambda: len(nodes(api)) == 2)
    assert nodes(api)[1]["spec"]["incarnation"] == 1
    assert nodes(api)[1]["metadata"]["name"] != first[1]


async def test_package_that_does_not_exist_releases_the_node_and_stalls_the_pool(api: FakeApi) -> None:
    await api.create(POOL, pool_object(nodes=1))
    await until(lambda: len(nodes(api)) == 1)
    failure = {
        "phase": "Failed",
        "reason": "PackageNotFound",
        "message": "pip: numpyy was not found in the package registry",
        "bootstrap": {"log": "the last lines"},
    }
    await api.patch_status(NODE, "default", nodes(api)[0]["metadata"]["name"], failure)
    await until(lambda: says(api, "Stalled") and not nodes(api))
    status = pool(api)["status"]
    assert "numpyy was not found" in status["message"]
    assert "spec.image.pip" in status["message"]
    assert status["failures"]["log"] == "the last lines"
    await api.patch(POOL, "default", "pool", {"spec": {"image": {"python": "3.13", "pip": ["numpy"]}}})
    await until(lambda: len(nodes(api)) == 1)
    await until(lambda: says(api, "Provisioning"))
    assert pool(api)["status"].get("failures") is None


async def test_deleted_pool_goes_after_its_tasks_nodes_and_keys(api: FakeApi) -> None:
    await api.create(POOL, pool_object(nodes=2))
    await ready(api, 2)
    uid = pool(api)["metadata"]["uid"]
    secret = ssh_secret_name("pool", uid)
    api.objects[SECRET.plural, "default", secret] = {
        "metadata": {"name": secret, "namespace": "default", "uid": "s"}
    }
    body = {"poolRef": {"name": "pool"}}
    await api.create(TASK, {"metadata": {"namespace": "default", "name": "t"}, "spec": body})
    await api.delete(POOL, "default", "pool")
    await until(lambda: not nodes(api) and says(api, "Deleting"))
    assert (SECRET.plural, "default", secret) in api.objects
    await api.patch_status(TASK, "default", "t", {"phase": "Cancelled"})
    await until(lambda: (POOL.plural, "default", "pool") not in api.objects)
    assert (SECRET.plural, "default", secret) not in api.objects


@pytest.mark.parametrize("cascade", ["foregroundDeletion", "orphan"])
async def test_pool_deleted_with_a_cascade_goes_when_its_nodes_are_gone(api: FakeApi, cascade: str) -> None:
    await api.create(POOL, pool_object(nodes=1))
    await ready(api, 1)
    await api.patch(POOL, "default", "pool", {"metadata": {"finalizers": [POOL_FINALIZER, cascade]}})
    await api.delete(POOL, "default", "pool")
    await until(lambda: (POOL.plural, "default", "pool") not in api.objects)
    assert not nodes(api)


async def test_pool_with_a_changed_image_names_the_nodes_that_are_older(api: FakeApi) -> None:
    await api.create(POOL, pool_object(nodes=1))
    await ready(api, 1)
    await until(lambda: says(api, "Ready"))
    await api.patch(POOL, "default", "pool", {"spec": {"image": {"pip": ["six"]}}})
    await until(lambda: pool(api)["status"]["reason"] == "NodesOutdated")
    assert nodes(api)[0]["metadata"]["name"] in pool(api)["status"]["message"]
    await api.patch(POOL, "default", "pool", {"spec": {"image": {"pip": None}}})
    await until(lambda: pool(api)["status"]["reason"] == "AllNodesReady")


def elastic(idle: int = 0, **nodes: int) -> dict[str, Any]:
    made = pool_object(lifetime={"idleSeconds": idle})
    made["spec"]["nodes"] = {"desired": 0, **nodes}
    return made


async def comes(api: FakeApi, name: str = "t") -> None:
    """A task comes, of whose calls the test tells."""
    body = {"poolRef": {"name": "pool"}}
    await api.create(TASK, {"metadata": {"namespace": "default", "name": name}, "spec": body})


async def test_elastic_pool_starts_with_the_first_call_and_ends_with_the_last(
    api: FakeApi, calls: FakeCalls, events: list[tuple[str, str]]
) -> None:
    await api.create(POOL, elastic(max=3))
    await until(lambda: says(api, "Ready"))
    assert (nodes(api), pool(api)["status"]["usable"]) == ([], True)
    calls.has = Demand(queued=2, tasks=1)
    await comes(api)
    await ready(api, 2)
    assert pool(api)["status"]["desiredNodes"] == 2
    calls.has = Demand()
    await api.patch_status(TASK, "default", "t", {"phase": "Succeeded"})
    await until(lambda: not nodes(api))
    await until(lambda: pool(api)["status"]["reason"] == "AwaitingTasks")
    assert pool(api)["status"]["scaling"]["message"] == (
        "from 2 to 0 nodes: fewer were enough for 0 s; spec.nodes.desired is 0"
    )
    told = [event for event in events if event[0].startswith("Scaling")]
    assert told == [
        ("ScalingUp", "from 0 to 2 nodes: 2 calls could use 2"),
        ("ScalingDown", "from 2 to 0 nodes: fewer were enough for 0 s; spec.nodes.desired is 0"),
    ]


async def test_a_node_that_got_a_call_in_the_last_moment_stays(api: FakeApi, calls: FakeCalls) -> None:
    calls.has = Demand(queued=2, tasks=1)
    await api.create(POOL, elastic(max=3))
    await ready(api, 2)
    last = nodes(api)[1]["metadata"]["name"]
    calls.taken.add(last)
    calls.has = Demand(tasks=1)
    await comes(api)
    await until(lambda: pool(api)["status"]["desiredNodes"] == 0)
    await comes(api, "another")
    await until(lambda: len(nodes(api)) == 2)
    assert calls.retired == []
    calls.taken.clear()
    await comes(api, "a third")
    await until(lambda: not nodes(api))
    assert calls.retired[0] == last


async def test_a_pool_that_is_scaled_down_releases_whoever_is_idle_when_it_goes(
    api: FakeApi, calls: FakeCalls
) -> None:
    await api.create(POOL, pool_object(nodes=3))
    await ready(api, 3)
    names = [node["metadata"]["name"] for node in nodes(api)]
    calls.taken.add(names[2])  # it looked idle
    await api.patch(POOL, "default", "pool", {"spec": {"nodes": {"desired": 2}}})
    await until(lambda: pool(api)["status"]["desiredNodes"] == 2)
    calls.has = Demand(running=1, busy=frozenset(calls.taken), tasks=1)
    await until(lambda: len(nodes(api)) == 2)
    assert [node["metadata"]["name"] for node in nodes(api)] == [names[0], names[2]]


async def test_a_node_whose_deletion_fails_takes_calls_again(
    api: FakeApi, calls: FakeCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.has = Demand(queued=1, tasks=1)
    await api.create(POOL, elastic(max=3))
    await ready(api, 1)
    only = nodes(api)[0]["metadata"]["name"]
    delete, answers = api.delete, iter([False])

    async def sometimes(*args: Any, **more: Any) -> None:
        if next(answers, True):
            await delete(*args, **more)
        else:
            raise Unavailable("no answer", code=503)

    monkeypatch.setattr(api, "delete", sometimes)
    calls.has = Demand()
    await comes(api)
    await until(lambda: not nodes(api))
    assert calls.reinstated == [only]
    assert calls.retired == [only, only]


async def test_nothing_is_released_before_the_calls_are_known(api: FakeApi, calls: FakeCalls) -> None:
    calls.has = Demand(queued=2, tasks=1)
    await api.create(POOL, elastic(max=3))
    await ready(api, 2)
    calls.has = None
    await comes(api)
    writes = len(api.status_writes)
    await api.patch(POOL, "default", "pool", {"spec": {"lifetime": {"idleSeconds": 1}}})
    await until(lambda: pool(api)["status"].get("observedGeneration") == 2)
    assert len(api.status_writes) > writes
    assert len(nodes(api)) == 2
    calls.has = Demand()
    await comes(api, "another")
    await until(lambda: not nodes(api))


async def test_a_node_is_born_with_its_finalizer(api: FakeApi) -> None:
    """Then nobody has to write it before something is bought."""
    await api.create(POOL, pool_object(nodes=1))
    await until(lambda: len(nodes(api)) == 1)
    assert nodes(api)[0]["metadata"]["finalizers"] == [FINALIZER]


async def test_a_heartbeat_has_no_pool_looked_at(tmp_path: Path, calls: FakeCalls) -> None:
    """Hundreds of nodes beat each minute, and nothing of a pool follows from it."""
    async with fake_context(tmp_path) as (context, api):
        pools = build(context, calls)
        running = asyncio.create_task(pools.run())
        await api.create(POOL, pool_object(nodes=1))
        await ready(api, 1)
        await until(lambda: says(api, "Ready") and not len(pools.controller.queue))
        name = nodes(api)[0]["metadata"]["name"]
        with patch.object(pools.controller.queue, "add") as looked:
            await api.patch_status(NODE, "default", name, {"heartbeatTime": "2026-01-01T00:01:00Z"})
            looked.assert_not_called()
            await api.patch_status(NODE, "default", name, {"reason": "Reconnecting"})
            looked.assert_called_once_with(("default", "pool"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_each_step_of_a_budget_is_told_once(tmp_path: Path, calls: FakeCalls) -> None:
    class Purse:
        percent = 0

        async def balance(self, pool: ComputePool) -> Balance:
            """What the test says."""
            return Balance(percent=self.percent, told=f"{self.percent} % spent", again=0.01)

    told: list[tuple[str, str]] = []
    async with fake_context(tmp_path) as (context, made):
        context.events.emit = lambda obj, type, reason, message: told.append((reason, message))  # type: ignore[method-assign]
        purse = Purse()
        pools = asyncio.create_task(build(context, calls, purse).run())
        await made.create(POOL, pool_object())
        for percent in (50, 80):
            purse.percent = percent
            await until(
                lambda percent=percent: (
                    (pool(made).get("status") or {}).get("cost", {}).get("budgetPercent")  # type: ignore[misc]
                    == percent
                )
            )
        await until(lambda: len([each for each in told if each[0] == "BudgetWarning"]) == 2)
        warned = [message for reason, message in told if reason == "BudgetWarning"]
        assert warned == ["50 % spent", "80 % spent"]
        pools.cancel()
        await asyncio.gather(pools, return_exceptions=True)
