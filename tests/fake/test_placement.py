"""What nodes ask for at a cloud that refuses: little, once for all of them, and never more than allowed.

The cloud's ledger is the oracle. The clock is real, so what is left alone for minutes is so for the test.
"""

from __future__ import annotations

import asyncio
import base64
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.fake.kube_server import collection, eventually
from tests.fake.nodes_plane import NODES, nodes_part
from tests.fake.sim_nodes import KEYS, SimNodes, sim_nodes

from simcloud.market import Market
from skyward.contract.names import NODE, POOL
from skyward.contract.node import ComputeNode
from skyward.contract.reasons import NodeReason
from skyward_operator.nodes.book import Account
from skyward_operator.nodes.launch import recorded_offer
from skyward_operator.nodes.observation import Refusal
from skyward_operator.placement import unavailable
from skyward_operator.placement.placement import MOST_REJECTED
from skyward_operator.providers.errors import Rejected
from skyward_operator.providers.registry import Registry
from skyward_operator.providers.sim.provider import SimProvider

if TYPE_CHECKING:
    from tests.fake.nodes_plane import Operator

    from skyward_operator.providers.contract import CreateRequest, Machine, Offer

EAST: Final = {"instanceTypes": ["c.small"], "regions": ["sim-east"]}
NO_SPOT: Final = {"at": "create", "effect": "no-capacity", "where": {"market": "spot"}}
NOTHING: Final = {"at": "create", "effect": "no-capacity"}


CANDIDATES: dict[str, Any] = {"candidates": [{"name": "main", "provider": "sim"}]}


def pool(nodes: SimNodes, operator: Operator, **spec: Any) -> None:
    """The pool of the nodes, as far as placement looks at it."""
    metadata = {"name": "p", "namespace": "default", "uid": "pool-uid"}
    kind = {"apiVersion": "skyward.dev/v1alpha1", "kind": "ComputePool"}
    spec = {"candidates": [{"name": "main", "provider": "sim"}]} | spec
    operator.context.store.put(
        POOL,
        nodes.kube.put(collection("computepools"), {**kind, "metadata": metadata, "spec": CANDIDATES | spec}),
    )


def soon(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.5) -> None:
    """What has no capacity is left alone for a moment only."""
    shorter = {NodeReason.INSUFFICIENT_CAPACITY: (seconds, seconds)}
    monkeypatch.setattr(unavailable, "FIRST_AND_LONGEST", unavailable.FIRST_AND_LONGEST | shorter)


async def test_nodes_that_start_together_ask_for_offers_and_prices_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Market, "_keep_quotas", lambda *_: None)
    async with sim_nodes() as nodes:
        for number in range(100):
            nodes.add(number)
        async with nodes.operator():
            await eventually(lambda: nodes.sim.audit().bought == 100, 60)
        # A slow machine may have them ask a second time when an answer has grown old.
        assert nodes.asked("offers") <= 2
        assert nodes.asked("quote") <= 8
        assert nodes.asked("create") == 100


async def test_what_one_node_was_refused_no_other_node_asks_for() -> None:
    async with sim_nodes(faults=[NOTHING]) as nodes:
        nodes.wants(0, [EAST])
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Pending", reason="InsufficientCapacity")
            asked = nodes.asked("create")
            assert asked == 2  # spot and on-demand
            for number in range(1, 20):
                appears(nodes, operator, number, EAST)
            for number in range(1, 20):
                status = await nodes.reaches(number, phase="Pending", reason="InsufficientCapacity")
                assert status["message"] == (
                    "sim: no spot capacity for c.small in sim-east; "
                    "sim: no on-demand capacity for c.small in sim-east"
                )
            assert nodes.asked("create") == asked
        assert nodes.sim.audit().bought == 0


async def test_nodes_that_wait_send_one_of_them_ahead_until_there_is_capacity_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soon(monkeypatch)
    async with sim_nodes(faults=[NOTHING | {"times": 24}]) as nodes:
        for number in range(10):
            nodes.wants(number, [EAST | {"market": "on-demand"}])
        async with nodes.operator():
            await eventually(lambda: nodes.sim.audit().bought == 10, 60)
        assert nodes.asked("create") == 34
        tried = [event["time"] for event in nodes.sim.events("request") if event["operation"] == "create"]
        # Ten at most in the first moment, and then one after each pause.
        assert all(later - earlier > 0.25 for earlier, later in pairwise(tried[10:24]))


async def test_spot_that_is_refused_falls_back_to_on_demand_and_says_so_with_both_prices() -> None:
    async with sim_nodes(faults=[NO_SPOT | {"times": 1}]) as nodes:
        nodes.wants(0, [EAST])
        async with nodes.operator() as operator:
            pool(nodes, operator)
            status = await nodes.reaches(phase="Connecting")
            assert status["launch"]["offer"]["market"] == "on-demand"
            told = (
                "c.small on-demand in sim-east at $0.0400/h was bought, since c.small spot in sim-east at "
                "$0.0120/h was refused: sim: no spot capacity for c.small in sim-east; "
                "later nodes try spot again"
            )
            await eventually(lambda: nodes.told("FellBackToOnDemand") == [told, told], 10)
            # Once its time is over, the next node is back on spot.
            operator.nodes.placement.unavailable._entries.clear()
            appears(nodes, operator, 1, EAST)
            status = await nodes.reaches(1, phase="Connecting")
            assert status["launch"]["offer"]["market"] == "spot"
            assert len(nodes.told("FellBackToOnDemand")) == 2


async def test_a_type_that_is_not_sold_as_spot_is_no_fallback() -> None:
    async with sim_nodes() as nodes:
        nodes.wants(0, [{"instanceTypes": ["p5en.48xlarge"]}])
        async with nodes.operator() as operator:
            pool(nodes, operator)
            await nodes.reaches(phase="Connecting")
            operator.context.events.emit(_reference(nodes), "Normal", "Marker", "written after all others")
            await eventually(lambda: bool(nodes.told("Marker")), 10)
            assert nodes.told("FellBackToOnDemand") == []


async def test_a_place_that_took_a_machine_away_is_left_alone() -> None:
    async with sim_nodes() as nodes:
        both = {"instanceTypes": ["c.small"], "regions": ["sim-east", "sim-west"], "market": "spot"}
        nodes.wants(0, [both])
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Connecting", reason="Connecting")  # the step after the purchase
            taken = recorded_offer(_node(nodes))
            operator.nodes.placement.took_away(Account("sim"), taken)
            appears(nodes, operator, 1, both)
            status = await nodes.reaches(1, phase="Connecting")
            assert status["launch"]["offer"]["region"] not in ("", taken.region)


async def test_a_price_that_rose_is_seen_before_the_order_and_waited_for_until_it_falls() -> None:
    """The pool had a machine at a price below its cap: it is not wrong, the market has moved."""
    prices = dict.fromkeys([("c.small", "spot"), ("c.small", "on-demand")], Decimal("0.09"))
    async with sim_nodes() as nodes:
        nodes.wants(0, [EAST | {"maxHourlyPrice": "0.05"}])
        async with nodes.operator() as operator:
            await nodes.reaches(phase="Connecting", reason="Connecting")
            before = dict(nodes.sim.service.cloud.state.prices)
            nodes.sim.service.cloud.state.prices.update(prices)
            operator.nodes.placement.market._prices.clear()  # it is a moment later
            appears(nodes, operator, 1, EAST | {"maxHourlyPrice": "0.05"})
            status = await nodes.reaches(1, phase="Pending", reason="PriceCapExceeded")
            assert "the cheapest offer is c.small " in status["message"]
            assert "at $0.09/h, more than maxHourlyPrice $0.05/h" in status["message"]
            assert nodes.asked("create") == 1
            nodes.sim.service.cloud.state.prices.clear()
            nodes.sim.service.cloud.state.prices.update(before)
            placement = operator.nodes.placement
            async with asyncio.timeout(40):
                while nodes.status(1)["phase"] != "Connecting":
                    # Its time is over; an answer with the old price may still be on its way.
                    placement.market.outdate(Account("sim"))
                    placement.unavailable._entries.clear()
                    placement.wake()
                    await asyncio.sleep(0.5)
        assert nodes.sim.audit().bought == 2


async def test_a_price_cap_below_every_offer_fails_at_once_and_names_the_cheapest() -> None:
    async with sim_nodes() as nodes:
        nodes.wants(0, [EAST | {"maxHourlyPrice": "0.001"}])
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
        assert (status["reason"], status["message"]) == (
            "PriceCapExceeded",
            "candidate main: the cheapest offer is c.small spot in sim-east at $0.0120/h, "
            "more than maxHourlyPrice $0.001/h",
        )
        assert nodes.asked("create") == 0


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (
            {"instanceTypes": ["c.smal"]},
            "instanceTypes: 'c.smal' is no instance type of sim; did you mean c.small",
        ),
        ({"regions": ["sim-eest"]}, "regions: 'sim-eest' is no region of sim; did you mean sim-east"),
        (
            {"accelerator": {"name": "H10"}},
            "accelerator.name: 'H10' is no accelerator of sim; did you mean H100",
        ),
        ({"instanceTypes": ["p5en.48xlarge"], "market": "spot"}, "is sold on-demand, and market is spot"),
    ],
)
async def test_what_a_cloud_does_not_sell_fails_at_once_with_what_is_near(
    candidate: dict[str, Any], words: str
) -> None:
    async with sim_nodes() as nodes:
        nodes.wants(0, [candidate])
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
            assert words in status["message"]
            await eventually(lambda: any(words in told for told in nodes.told(status["reason"])), 10)
        assert nodes.asked("create") == 0


async def test_a_provider_that_nobody_has_fails_at_once_with_what_is_near() -> None:
    async with sim_nodes() as nodes:
        nodes.wants(0, [{"provider": "simm"}])
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
        assert status["reason"] == "ProviderUnknown"
        assert "no adapter for provider 'simm' (did you mean sim?)" in status["message"]


async def test_a_quota_of_nothing_fails_at_once_and_one_that_is_used_up_waits_for_a_machine_to_go() -> None:
    async with sim_nodes() as nodes, nodes.operator() as operator:
        quotas = nodes.sim.service.cloud.market
        limit = {"instances": 0}

        def admit(account: Any, order: Any, kinds: Any) -> Any:
            return Market.admit(quotas, account.model_copy(update={"quotas": limit}), order, kinds)

        quotas.admit = admit  # type: ignore[method-assign]
        appears(nodes, operator, 0, EAST)
        status = await nodes.reaches(phase="Failed")
        assert (status["reason"], nodes.sim.audit().bought) == ("QuotaExceeded", 0)
        limit["instances"] = 1
        operator.nodes.placement.unavailable.freed(Account("sim"))
        for number in (1, 2):
            appears(nodes, operator, number, EAST)
        await eventually(lambda: _phases(nodes, 1, 2) == ["Connecting", "Pending"], 20)
        (has,) = (number for number in (1, 2) if nodes.status(number)["phase"] == "Connecting")
        assert nodes.status(3 - has)["reason"] == "QuotaExceeded"
        nodes.delete(operator, f"p-{has}")
        await nodes.reaches(3 - has, phase="Connecting")


async def test_an_order_that_is_refused_as_wrong_again_and_again_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not each of hundreds of offers is asked for in vain; the node fails, and so stalls its pool."""
    orders: list[str] = []

    async def refuse(_: SimProvider, request: CreateRequest) -> Machine:
        orders.append(request.token)
        raise Rejected("the name of the key is wrong")

    monkeypatch.setattr(SimProvider, "create", refuse)
    async with sim_nodes() as nodes:
        nodes.wants(0, [{"instanceTypes": ["c.small", "c.large"]}])
        async with nodes.operator():
            status = await nodes.reaches(phase="Failed")
        assert (status["reason"], status["message"]) == ("RequestRejected", "the name of the key is wrong")
        assert len(set(orders)) == len(orders) == MOST_REJECTED


async def test_a_purse_that_refuses_has_no_intent_recorded_and_nothing_bought() -> None:
    class Tight:
        """Nothing above a cent and a half."""

        def admit(self, node: ComputeNode, offer: Offer) -> Refusal | None:
            """By the price in force."""
            if offer.hourly_price is not None and offer.hourly_price <= Decimal("0.015"):
                return None
            return Refusal(NodeReason.PRICE_CAP_EXCEEDED, "the purse is empty", permanent=False)

    async with sim_nodes() as nodes:
        nodes.wants(0, [EAST | {"market": "on-demand"}])
        nodes.wants(1, [EAST])
        async with nodes.operator() as operator:
            operator.nodes.placement.admission.purse = Tight()
            status = await nodes.reaches(phase="Pending", message="the purse is empty")
            assert "launch" not in status
            status = await nodes.reaches(1, phase="Connecting")
            assert status["launch"]["offer"]["market"] == "spot"
        assert nodes.asked("create") == 1


async def test_an_order_goes_to_the_account_of_its_own_candidate() -> None:
    """Two accounts of one provider: the second one is cheaper by what the first one may pay."""
    async with sim_nodes() as nodes:
        for name, profile in (("full", "full"), ("bare", "bare")):
            secret = {"endpoint": nodes.sim.service.endpoint, "key": KEYS[profile], "profile": profile}
            data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
            nodes.kube.put("/api/v1/namespaces/default/secrets", {"metadata": {"name": name}, "data": data})
        nodes.wants(
            0,
            [
                {"credentialsRef": {"name": "full"}, "instanceTypes": ["c.large"]},
                {"credentialsRef": {"name": "bare"}, "instanceTypes": ["c.small"]},
            ],
        )
        async with nodes_part(nodes.kube, nodes.sim.folder, Registry(nodes.sim.folder, ["sim"])):
            status = await nodes.reaches(phase="Connecting")
            assert status["launch"]["candidate"] == "other-1"
            (machine,) = nodes.sim.service.cloud.state.live()
            assert (machine.account, machine.instance_type) == ("bare", "c.small")


async def test_a_cloud_that_does_not_answer_holds_up_no_other_account() -> None:
    """Many nodes ask an account that hangs; those of another one go on meanwhile."""
    async with sim_nodes(
        faults=[{"at": "offers", "effect": "slow", "seconds": 30, "where": {"account": "bare"}}]
    ) as nodes:
        for name, profile in (("full", "full"), ("bare", "bare")):
            secret = {"endpoint": nodes.sim.service.endpoint, "key": KEYS[profile], "profile": profile}
            data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
            nodes.kube.put("/api/v1/namespaces/default/secrets", {"metadata": {"name": name}, "data": data})
        for number in range(40):
            nodes.wants(number, [EAST | {"credentialsRef": {"name": "bare"}}])
        nodes.wants(40, [EAST | {"credentialsRef": {"name": "full"}}])
        async with nodes_part(nodes.kube, nodes.sim.folder, Registry(nodes.sim.folder, ["sim"])):
            await nodes.reaches(40, phase="Connecting", seconds=25)
            assert _phases(nodes, *range(40)).count("Connecting") == 0
            assert nodes.asked("create") == 1


def _phases(nodes: SimNodes, *numbers: int) -> list[str]:
    return sorted(str(nodes.status(number).get("phase")) for number in numbers)


def _reference(nodes: SimNodes) -> dict[str, Any]:
    return nodes.kube.objects[NODES]["p-0"]


def _node(nodes: SimNodes, number: int = 0) -> ComputeNode:
    return ComputeNode.read(nodes.kube.objects[NODES][f"p-{number}"])


def appears(nodes: SimNodes, operator: Operator, number: int, candidate: dict[str, Any]) -> None:
    """A new node that the operator hears of."""
    nodes.wants(number, [candidate])
    operator.context.store.put(NODE, nodes.kube.objects[NODES][f"p-{number}"])
