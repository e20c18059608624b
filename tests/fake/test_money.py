"""Budgets before purchases and costs after them, on the simulated cloud, with operators that are killed."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake.kube_server import eventually
from tests.fake.nodes_plane import NODES
from tests.fake.sim_nodes import SimNodes, sim_nodes

from skyward.contract.names import (
    ANNOTATION_BUDGET_NODES,
    ANNOTATION_BUDGET_TOTAL,
    LEASE_NAME,
    NODE,
    POOL,
    SPENDING_SUFFIX,
    SYSTEM_NAMESPACE,
)
from skyward.contract.node import ComputeNode
from skyward.contract.pool import ComputePool
from skyward_operator.money.meter import meter_of
from skyward_operator.money.spending import Spending
from skyward_operator.providers.contract import TAG_NODE_UID

if TYPE_CHECKING:
    from tests.fake.nodes_plane import Operator

CONFIG_MAPS = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps"
ONE = "0.004"
"""Enough for one small machine and its end, and not for two."""


def pool(operator: Operator, **budget: Any) -> None:
    """Let the operator know the pool of the nodes, with this budget."""
    spec: dict[str, Any] = {"candidates": [{"name": "main", "provider": "sim"}]}
    if budget:
        spec["budget"] = budget
    metadata = {"name": "p", "namespace": "default", "uid": "pool-uid", "resourceVersion": "1"}
    operator.context.store.put(POOL, {"metadata": metadata, "spec": spec})


def annotate(nodes: SimNodes, **annotations: str) -> None:
    """Give the namespace a budget."""
    nodes.kube.put("/api/v1/namespaces", {"metadata": {"name": "default", "annotations": annotations}})


def spending(nodes: SimNodes) -> Spending:
    """What is written down for the namespace."""
    found = nodes.kube.objects.get(CONFIG_MAPS, {}).get(f"{LEASE_NAME}{SPENDING_SUFFIX}")
    text = (found or {}).get("data", {}).get("default")
    return Spending.read(text) if text else Spending()


async def settled(nodes: SimNodes, count: int) -> None:
    """Wait until so many nodes have a machine and the others a reason to wait."""
    names = list(nodes.kube.objects[NODES])
    await eventually(
        lambda: sum(nodes.status(i).get("phase") == "Connecting" for i in range(len(names))) == count, 20
    )
    await eventually(
        lambda: all(nodes.status(i).get("phase") in ("Connecting", "Pending") for i in range(len(names))), 20
    )


async def test_two_nodes_at_once_cannot_both_take_the_last_dollar() -> None:
    async with sim_nodes() as nodes:
        for number in range(4):
            nodes.add(number)
        async with nodes.operator() as operator:
            pool(operator, maxTotal=ONE)
            await settled(nodes, 1)
            waiting = [nodes.status(i) for i in range(4) if nodes.status(i)["phase"] == "Pending"]
            assert {status["reason"] for status in waiting} == {"AwaitingBudget"}
            assert "the budget of pool p is $0.004000" in waiting[0]["message"]
        assert nodes.sim.audit(TAG_NODE_UID).bought == 1
        assert await nodes.settle() == []


async def test_a_restart_knows_what_was_set_aside() -> None:
    async with sim_nodes() as nodes:
        nodes.add(0)
        async with nodes.operator() as operator:
            pool(operator, maxTotal=ONE)
            await nodes.reaches(0, phase="Connecting")
        nodes.add(1)
        async with nodes.operator() as operator:
            pool(operator, maxTotal=ONE)
            await nodes.reaches(1, phase="Pending", reason="AwaitingBudget")
        assert nodes.sim.audit(TAG_NODE_UID).bought == 1


async def test_an_intent_whose_answer_was_lost_is_money_that_is_set_aside() -> None:
    async with sim_nodes() as nodes:
        nodes.add(0)
        nodes.kube.fault(method="PATCH", path="p-0/status", lose_answer=True, times=1)
        async with nodes.operator() as operator:
            pool(operator, maxTotal=ONE)
            await eventually(lambda: nodes.status(0).get("launch"))
            nodes.add(1)
            operator.context.store.put(NODE, nodes.kube.objects[NODES]["p-1"])
            await nodes.reaches(1, phase="Pending", reason="AwaitingBudget")
            operator.context.store.put(NODE, nodes.kube.objects[NODES]["p-0"])  # the watch tells
            await nodes.reaches(0, phase="Connecting")
        assert nodes.sim.audit(TAG_NODE_UID).bought == 1


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({ANNOTATION_BUDGET_TOTAL: ONE}, "AwaitingBudget"),
        ({ANNOTATION_BUDGET_NODES: "1"}, "AwaitingBudget"),
    ],
)
async def test_a_namespace_has_one_budget_for_all_of_its_nodes(
    annotations: dict[str, str], reason: str
) -> None:
    async with sim_nodes() as nodes:
        annotate(nodes, **annotations)
        for number in range(3):
            nodes.add(number)
        async with nodes.operator():
            await settled(nodes, 1)
            refused = next(nodes.status(i) for i in range(3) if nodes.status(i)["phase"] == "Pending")
            assert refused["reason"] == reason
            assert "namespace default" in refused["message"]
        assert nodes.sim.audit(TAG_NODE_UID).bought == 1


async def test_the_end_of_a_machine_is_news_for_nodes_that_a_budget_keeps_waiting() -> None:
    """They look again at once, and not when the pause of a minute is over."""
    async with sim_nodes() as nodes:
        annotate(nodes, **{ANNOTATION_BUDGET_NODES: "1"})
        nodes.add(0)
        async with nodes.operator() as operator:
            await nodes.reaches(0, phase="Connecting")
            nodes.add(1)
            operator.context.store.put(NODE, nodes.kube.objects[NODES]["p-1"])
            await nodes.reaches(1, phase="Pending", reason="AwaitingBudget")
            nodes.delete(operator, "p-0")
            await nodes.reaches(1, seconds=20, phase="Connecting")
        assert await nodes.settle() == []


async def test_a_budget_that_cannot_be_read_buys_nothing_until_it_is_corrected() -> None:
    async with sim_nodes() as nodes:
        annotate(nodes, **{ANNOTATION_BUDGET_TOTAL: "ten"})
        nodes.add()
        async with nodes.operator():
            status = await nodes.reaches(phase="Pending", reason="BudgetUnreadable")
            assert ANNOTATION_BUDGET_TOTAL in status["message"]
            assert nodes.sim.audit(TAG_NODE_UID).bought == 0


def billed(nodes: SimNodes) -> Decimal:
    """What the cloud wants for all machines."""
    return nodes.sim.audit(TAG_NODE_UID).amount


async def test_the_cost_of_a_node_that_is_gone_is_written_down() -> None:
    async with sim_nodes() as nodes:
        nodes.add()
        async with nodes.operator():
            await nodes.reaches(phase="Connecting")
        assert await nodes.settle() == []
        written = spending(nodes)
        assert written.total >= billed(nodes)
        # begun seconds, and until its end was seen
        assert written.total - billed(nodes) < Decimal("0.04") * 10 / 3600
        assert sum(written.days.values()) == written.total


def is_over(nodes: SimNodes, number: int) -> bool:
    """Whether the end of a node's machine is written down."""
    return bool((nodes.status(number).get("billing") or {}).get("endTime"))


@pytest.mark.parametrize("step", range(6))
async def test_an_operator_killed_around_the_settlement_adds_a_machine_once(step: int) -> None:
    """Killed after each request from the proof that the machine is gone to the end of its object."""
    async with sim_nodes() as nodes:
        nodes.add(0)
        nodes.add(1)
        async with nodes.operator():
            await nodes.reaches(0, phase="Connecting")
            await nodes.reaches(1, phase="Connecting")
        costs: dict[str, Decimal] = {}
        async with nodes.operator() as operator:
            nodes.delete(operator, "p-0")
            await eventually(lambda: "p-0" not in nodes.kube.objects[NODES] or is_over(nodes, 0), 20)
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    start = len(nodes.kube.requests)
                    while len(nodes.kube.requests) < start + step:  # noqa: ASYNC110
                        await asyncio.sleep(0)
        for obj in nodes.kube.objects[NODES].values():
            meter = meter_of(ComputeNode.read(obj))
            if meter is not None and meter.ended is not None:
                costs[meter.uid] = meter.cost(meter.ended)
        assert await nodes.settle() == []
        written = spending(nodes)
        assert len(written.settled) <= 2
        assert written.total >= billed(nodes)
        assert written.total - billed(nodes) < Decimal("0.04") * 30 / 3600
        assert written.total >= sum(costs.values())


@pytest.mark.parametrize("fault", [{"lose_answer": True}, {"status": 500, "reason": "InternalError"}])
async def test_a_settlement_whose_answer_is_lost_counts_once(fault: dict[str, Any]) -> None:
    async with sim_nodes() as nodes:
        nodes.add()
        async with nodes.operator():
            await nodes.reaches(phase="Connecting")
        nodes.kube.fault(method="POST", path=CONFIG_MAPS, **fault)
        nodes.kube.fault(method="PATCH", path=CONFIG_MAPS, **fault)
        assert await nodes.settle() == []
        written = spending(nodes)
        assert written.total >= billed(nodes)
        assert written.total - billed(nodes) < Decimal("0.04") * 30 / 3600


async def test_a_machine_found_only_to_be_ended_is_paid_for() -> None:
    """The answer was lost and the node deleted: nobody ever knew the machine but the bill."""
    lost = {"at": "create", "effect": "lose-answer"}
    silent = {"at": "list", "effect": "partial", "fraction": 1}
    async with sim_nodes(faults=[lost, silent]) as nodes:
        nodes.add()
        async with nodes.operator() as operator:
            await eventually(lambda: nodes.sim.audit().bought == 1, 20)
            nodes.delete(operator, "p-0")
        await nodes.sim.staff("PUT", "/scenario", json={})
        assert await nodes.settle() == []
        assert nodes.sim.audit().bought == 1
        assert spending(nodes).total >= billed(nodes)
        assert spending(nodes).total > 0


async def test_the_cost_is_in_the_metrics() -> None:
    async with sim_nodes() as nodes:
        nodes.add()
        async with nodes.operator() as operator:
            pool(operator, maxTotal=ONE)
            await nodes.reaches(phase="Connecting")
            text = operator.context.metrics.text().decode()
            labels = '{namespace="default",pool="p"}'
            assert f"skyward_cost_dollars_hourly{labels} 0.012\n" in text
            assert f"skyward_cost_on_demand_dollars_hourly{labels} 0.04\n" in text
            assert f"skyward_cost_dollars_total{labels}" in text
            assert f"skyward_budget_remaining_dollars{labels} 0.00" in text
        assert await nodes.settle() == []
        async with nodes.operator() as operator:
            pool(operator)
            await operator.nodes.purse.balance(ComputePool.read(operator.context.store.list(POOL)[0]))
            text = operator.context.metrics.text().decode()
            assert f"skyward_cost_dollars_hourly{labels} 0.0\n" in text
            found = re.search(r'skyward_namespace_cost_dollars_total{namespace="default"} (\S+)', text)
            assert found is not None
            assert Decimal(found[1]) == spending(nodes).total


async def test_a_spot_price_that_moves_is_followed_and_counted() -> None:
    async with sim_nodes() as nodes:
        nodes.add()
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Connecting")
            prices = operator.nodes.prices
            await prices.round()
            assert "prices" not in nodes.status()["billing"]
            price(nodes, "0.0240")
            async with asyncio.timeout(20):
                while "prices" not in nodes.status()["billing"]:  # the node may move on meanwhile
                    await prices.round()
            (change,) = nodes.status()["billing"]["prices"]
            assert change["hourlyPrice"] == "0.0240"
            assert nodes.status()["display"]["hourly"] == "0.0240"
            await prices.round()
            assert len(nodes.status()["billing"]["prices"]) == 1
            price(nodes, "3600")  # and it is gone before anybody looks
        assert await nodes.settle() == []
        assert spending(nodes).total >= billed(nodes)
        assert spending(nodes).total - billed(nodes) < 60


def price(nodes: SimNodes, hourly: str) -> None:
    """The spot market asks this for a small machine from now on."""
    what = {"instance_type": "c.small", "market": "spot"}
    nodes.sim.service.cloud.record("priced", **what, hourly=hourly, number=0)
