"""The sweep against the simulated cloud, with its ledger as the judge: orphans go, and nothing else does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.kube_server import FakeKube, eventually
from tests.fake.nodes_plane import NODES
from tests.fake.sim_nodes import SimNodes, sim_nodes

from skyward.contract.names import ANNOTATION_END_ORPHANS, NODE
from skyward_operator.kube.errors import ApiError
from skyward_operator.providers.sim import provider as sim_provider
from skyward_operator.sweep import loop
from skyward_operator.sweep.loop import Sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fake.nodes_plane import Operator

BOOKS = "/api/v1/namespaces/skyward-system/configmaps"
BOOK = "skyward-operator-accounts"
EVENTS = "/api/v1/namespaces/skyward-system/events"


@pytest.fixture(autouse=True)
def _short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listings of these clouds are up to date: nothing is waited for but a second look."""
    monkeypatch.setattr(sim_provider, "VISIBILITY_SECONDS", 0.0)


@asynccontextmanager
async def sweeping(nodes: SimNodes) -> AsyncIterator[tuple[Operator, Sweep]]:
    """An operator and its sweep, whose rounds the test asks for."""
    async with nodes.operator() as operator:
        context = replace(
            operator.context, settings=replace(operator.context.settings, sweep_margin_seconds=0.0)
        )
        yield operator, Sweep(context, operator.nodes.accounts, operator.nodes.book)


def lose(nodes: SimNodes, number: int = 0) -> None:
    """Remove a node by hand, finalizer and all: nobody knows of its machine any more."""
    nodes.kube.remove(NODES, f"p-{number}")


def told(kube: FakeKube) -> list[tuple[str, str]]:
    """Reasons and messages of the events about the Lease."""
    return [(each["reason"], each["message"]) for each in kube.objects.get(EVENTS, {}).values()]


async def buys(nodes: SimNodes, operator: Operator, *numbers: int) -> None:
    """New nodes, each with its machine."""
    for number in numbers:
        nodes.add(number)
        operator.context.store.put(NODE, nodes.kube.objects[NODES][f"p-{number}"])
    for number in numbers:
        await nodes.reaches(number, phase="Connecting")


async def sweeps(sweep: Sweep, claim: Callable[[], bool], seconds: float = 10.0) -> None:
    """Sweep until the claim is true: a bare cloud shows machines late, and ending one takes time."""
    async with asyncio.timeout(seconds):
        while not claim():
            await sweep.round()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("profile", ["full", "bare"])
async def test_a_machine_whose_node_was_removed_by_hand_is_ended_and_told(profile: str) -> None:
    async with sim_nodes(profile) as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, 0, 1)
        lose(nodes)
        (lost,) = [
            each
            for each in nodes.sim.service.cloud.state.live()
            if each.tags["skyward.dev/node"].endswith("p-0")
        ]
        async with sweeping(nodes) as (operator, sweep):
            await sweep.round()
            assert len(nodes.sim.audit().alive) == 2
            await sweeps(sweep, lambda: len(nodes.sim.audit().alive) == 1)
            assert lost.id not in nodes.sim.audit().alive
            await eventually(lambda: [reason for reason, _ in told(nodes.kube)] == ["OrphanEnded"])
            assert lost.id in told(nodes.kube)[0][1]
            for _ in range(3):
                await sweep.round()
            assert (
                'skyward_orphans_ended_total{provider="sim"} 1.0' in operator.context.metrics.text().decode()
            )
            assert nodes.status(1)["phase"] == "Connecting"
        assert await nodes.settle() == []
        assert nodes.sim.audit().bought == 2


async def test_the_account_is_swept_after_its_last_node_and_pool_by_a_later_operator_and_left_clean() -> None:
    async with sim_nodes() as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, 0)
        lose(nodes)
        assert len(nodes.sim.audit().side) == 2
        async with sweeping(nodes) as (_, sweep):
            await sweeps(sweep, lambda: nodes.sim.audit().side == [])
        assert nodes.sim.audit().alive == []


async def test_a_second_machine_of_one_order_is_ended_while_its_node_goes_on() -> None:
    async with sim_nodes(faults=[{"at": "create", "effect": "duplicate", "times": 1}]) as nodes:
        async with sweeping(nodes) as (operator, sweep):
            await buys(nodes, operator, 0)
            assert len(nodes.sim.audit().alive) == 2
            for _ in range(2):
                await sweep.round()
            await eventually(lambda: nodes.sim.audit().alive == [nodes.status()["providerId"]])
            assert nodes.status()["phase"] == "Connecting"
        assert await nodes.settle() == []


async def test_a_rehearsal_shows_what_a_round_would_end_and_changes_nothing() -> None:
    async with sim_nodes() as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, 0, 1)
        lose(nodes)
        async with sweeping(nodes) as (_, sweep):
            states = []
            for _ in range(3):
                (account,) = (await sweep.rehearse()).accounts
                states.append([orphan["state"] for orphan in account["orphans"]])
            assert states == [["watched"]] * 3  # nothing is remembered of a rehearsal
            await sweep.round()
            (account,) = (await sweep.rehearse()).accounts
            assert (account["provider"], account["machines"], account["complete"]) == ("sim", 2, True)
            (orphan,) = account["orphans"]
            assert (orphan["state"], orphan["why"]) == ("ended", "its node does not exist")
            assert orphan["node"] == "default/p-0"
            assert len(nodes.sim.audit().alive) == 2
            (account,) = (await sweep.round()).accounts
            assert [each["id"] for each in account["orphans"]] == [orphan["id"]]
            await eventually(lambda: len(nodes.sim.audit().alive) == 1)
        assert await nodes.settle() == []


async def test_a_person_may_have_more_ended_at_once_than_are_believed() -> None:
    async with sim_nodes() as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, *range(4))
        for number in range(4):
            lose(nodes, number)
        async with sweeping(nodes) as (_, sweep):
            for _ in range(2):
                (account,) = (await sweep.round()).accounts
            assert {each["state"] for each in account["orphans"]} == {"blocked"}
            assert account["limit"] == 3
            (account,) = (await sweep.round(allowed=4)).accounts
            assert [each["state"] for each in account["orphans"]] == ["ended"] * 4
            await eventually(lambda: nodes.sim.audit().alive == [])


async def test_an_account_that_does_not_answer_is_in_what_was_found() -> None:
    async with sim_nodes(faults=[{"at": "list", "effect": "internal-error"}]) as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, 0)
        lose(nodes)
        async with sweeping(nodes) as (_, sweep):
            (account,) = (await sweep.round()).accounts
            assert (account["complete"], account["orphans"]) == (False, [])
            assert account["trouble"]


async def test_nothing_is_ended_while_nodes_cannot_be_read() -> None:
    async with sim_nodes() as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, 0)
        lose(nodes)
        async with sweeping(nodes) as (_, sweep):
            await sweep.round()
            nodes.kube.fault(method="GET", path="computenodes", status=403)
            with pytest.raises(ApiError):
                await sweep.round()
            assert len(nodes.sim.audit().alive) == 1
            assert not any(event["operation"] == "terminate" for event in nodes.sim.events("request"))


async def test_nothing_is_ended_on_partial_listings_and_the_account_is_named() -> None:
    partial = [{"at": "list", "effect": "partial", "fraction": 0.0}]
    async with sim_nodes() as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, 0)
        lose(nodes)
        await nodes.sim.staff("PUT", "/scenario", json={"faults": partial})
        async with sweeping(nodes) as (operator, sweep):
            for _ in range(4):
                await sweep.round()
            assert len(nodes.sim.audit().alive) == 1
            await eventually(lambda: [reason for reason, _ in told(nodes.kube)] == ["AccountNotSwept"])
            assert "skyward_orphans_unswept_accounts 1.0" in operator.context.metrics.text().decode()


async def test_too_many_at_once_stop_the_sweep_until_a_person_allows_them_once() -> None:
    async with sim_nodes() as nodes:
        async with nodes.operator() as operator:
            await buys(nodes, operator, *range(5))
        for number in range(5):
            lose(nodes, number)
        async with sweeping(nodes) as (operator, sweep):
            for _ in range(4):
                await sweep.round()
            assert len(nodes.sim.audit().alive) == 5
            await eventually(lambda: [reason for reason, _ in told(nodes.kube)] == ["TooManyOrphans"])
            assert f"{ANNOTATION_END_ORPHANS}=5" in told(nodes.kube)[0][1]
            assert 'skyward_orphans_blocked{provider="sim"} 5.0' in operator.context.metrics.text().decode()
            book = nodes.kube.objects[BOOKS][BOOK]
            allowed = {"annotations": {ANNOTATION_END_ORPHANS: "5"}}
            nodes.kube.put(BOOKS, book | {"metadata": book["metadata"] | allowed})
            await sweep.round()
            await eventually(lambda: nodes.sim.audit().alive == [])
            left: dict[str, Any] = nodes.kube.objects[BOOKS][BOOK]["metadata"].get("annotations", {})
            assert ANNOTATION_END_ORPHANS not in left


async def test_an_account_is_written_down_before_the_first_order_and_forgotten_when_it_is_long_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with sim_nodes() as nodes:
        fault = nodes.kube.fault(method="POST", path="configmaps", status=403, times=10_000)
        nodes.add()
        async with nodes.operator():
            await eventually(lambda: fault.seen >= 2, 20)
            assert nodes.sim.audit().bought == 0
        nodes.kube.remove(NODES, "p-0")
        fault.times = 0
        async with sweeping(nodes) as (operator, sweep):
            await buys(nodes, operator, 1)
            assert len(nodes.kube.objects[BOOKS][BOOK]["data"]) == 1
        assert await nodes.settle() == []
        async with sweeping(nodes) as (_, sweep):
            await sweep.round()
            assert len(nodes.kube.objects[BOOKS][BOOK]["data"]) == 1
            monkeypatch.setattr(loop, "REMEMBERED_SECONDS", 0.0)
            await sweep.round()
            assert nodes.kube.objects[BOOKS][BOOK]["data"] == {}
