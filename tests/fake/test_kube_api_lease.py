"""Leadership on a clock of our own: the old holder has stopped before the next one begins."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.fake.kube_server import FakeKube, eventually

from skyward.contract.names import ANNOTATION_GATEWAY, ANNOTATION_GATEWAY_SERVICE
from skyward_operator.kube.api import Api
from skyward_operator.kube.connection import Connection
from skyward_operator.kube.errors import NotLeader
from skyward_operator.kube.lease import Leadership
from skyward_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEASES = "/apis/coordination.k8s.io/v1/namespaces/skyward-system/leases"


class ManualClock:
    """Time that moves only by `advance`; sleepers wake in between."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._moved = asyncio.Condition()

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        until = self.time + seconds
        async with self._moved:
            await self._moved.wait_for(lambda: self.time >= until)

    async def advance(self, seconds: float) -> None:
        self.time += seconds
        async with self._moved:
            self._moved.notify_all()


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as server:
        yield server


@pytest.fixture
async def api(kube: FakeKube) -> AsyncIterator[Api]:
    async with Connection(kube.credentials()) as connection:
        yield Api(connection)


def candidate(api: Api, clock: ManualClock, name: str = "one") -> Leadership:
    return Leadership(api, Settings(Path("/nowhere"), identity=name), clock)


def holder(kube: FakeKube) -> str:
    return str(kube.objects[LEASES]["skyward-operator"]["spec"]["holderIdentity"])


async def test_the_first_candidate_leads(kube: FakeKube, api: Api) -> None:
    leader = candidate(api, ManualClock())
    with pytest.raises(NotLeader):
        leader.check()

    await leader.acquire()

    leader.check()
    spec = kube.objects[LEASES]["skyward-operator"]["spec"]
    assert spec["holderIdentity"] == leader.identity
    assert spec["leaseDurationSeconds"] == 15
    assert spec["leaseTransitions"] == 0
    datetime.strptime(spec["renewTime"], "%Y-%m-%dT%H:%M:%S.%f%z")


async def test_a_term_is_later_than_all_before_it_whatever_the_clocks_say(kube: FakeKube, api: Api) -> None:
    """Agents obey the latest term: an operator whose clock is an hour behind must not be turned away, and
    neither must one whose Lease was deleted meanwhile."""
    clock, behind = ManualClock(), ManualClock()
    behind.time -= 3600.0
    first, second, third = (
        candidate(api, clock),
        candidate(api, behind, "two"),
        candidate(api, behind, "three"),
    )
    await first.acquire()
    await first.release()
    await second.acquire()
    assert second.term == first.term + 1
    lease = kube.objects[LEASES]["skyward-operator"]
    later = datetime.fromisoformat(lease["metadata"]["creationTimestamp"]) + timedelta(seconds=1)
    kube.remove(LEASES, "skyward-operator")
    name = {"name": "skyward-operator", "namespace": lease["metadata"]["namespace"]}
    kube.put(LEASES, {"metadata": name | {"creationTimestamp": later.isoformat()}, "spec": {}})
    await third.acquire()
    assert third.term > second.term
    assert third.term < 2**53


async def test_an_installation_is_its_lease_whoever_leads_and_whenever(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    first, later = candidate(api, clock), candidate(api, clock, "later")
    other = Leadership(api, Settings(Path("/nowhere"), lease_name="another"), clock)
    with pytest.raises(NotLeader, match="UID"):
        _ = first.installation

    await first.acquire()
    await first.release()
    await later.acquire()
    await other.acquire()

    assert first.installation == kube.objects[LEASES]["skyward-operator"]["metadata"]["uid"]
    assert later.installation == first.installation
    assert other.installation != first.installation


async def test_of_two_candidates_one_leads(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    candidates = [candidate(api, clock, name) for name in ("one", "two", "three")]

    waiting = [asyncio.create_task(each.acquire()) for each in candidates]
    await eventually(lambda: any(task.done() for task in waiting))
    await eventually(lambda: kube.count("GET") >= 3)

    assert sum(each.is_leader for each in candidates) == 1
    for task in waiting:
        task.cancel()


async def test_a_predecessor_that_is_known_to_have_ended_is_not_waited_for(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    killed = Leadership(api, Settings(Path("/nowhere"), holder="local-1"), clock)
    await killed.acquire()
    assert holder(kube) == "local-1"

    settings = Settings(Path("/nowhere"), holder="local-3", predecessors=("local-1", "local-2"))
    await asyncio.wait_for(Leadership(api, settings, clock).acquire(), 5)

    assert holder(kube) == "local-3"
    assert not await killed._renew()


async def test_only_the_very_name_of_a_predecessor_is_not_waited_for(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader = Leadership(api, Settings(Path("/nowhere"), holder="local-10"), clock)
    await leader.acquire()
    looks = kube.count("GET")

    other = Leadership(api, Settings(Path("/nowhere"), predecessors=("local-1",)), clock)
    waiting = asyncio.create_task(other.acquire())
    await eventually(lambda: kube.count("GET") > looks)

    assert leader.is_leader
    assert not other.is_leader
    waiting.cancel()


async def test_a_leader_that_renews_keeps_the_lease(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader = candidate(api, clock)
    await leader.acquire()
    keeping = asyncio.create_task(leader.keep())

    for _ in range(10):
        renewals = kube.count("PATCH")
        await asyncio.sleep(0)
        await clock.advance(2.0)
        await eventually(lambda before=renewals: kube.count("PATCH") > before)  # type: ignore[misc]
        await eventually(lambda: leader.is_leader)

    assert not keeping.done()
    keeping.cancel()


async def test_a_frozen_leader_may_not_act_before_any_other_may(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader, other = candidate(api, clock), candidate(api, clock, "two")
    await leader.acquire()
    taking_over = asyncio.create_task(other.acquire())
    looks = kube.count("GET")
    await eventually(lambda: kube.count("GET") > looks)

    for _ in range(30):
        if other.is_leader:
            break
        assert not (leader.is_leader and other.is_leader)
        looks = kube.count("GET")
        await clock.advance(1.0)
        if (clock.time - 1000.0) % 2 == 0:
            await eventually(lambda before=looks: kube.count("GET") > before or other.is_leader)  # type: ignore[misc]
    await taking_over

    assert clock.time - 1000.0 >= 15
    with pytest.raises(NotLeader):
        leader.check()
    assert holder(kube) == other.identity
    assert kube.objects[LEASES]["skyward-operator"]["spec"]["leaseTransitions"] == 1


async def test_acting_ends_with_the_deadline_when_renewals_fail(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader = candidate(api, clock)
    await leader.acquire()
    await clock.advance(9.9)
    leader.check()
    await clock.advance(0.1)

    with pytest.raises(NotLeader):
        leader.check()


async def test_the_time_counts_from_the_start_of_a_renewal_not_its_end(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader = candidate(api, clock)
    fault = kube.fault(method="POST", status=503)
    acquiring = asyncio.create_task(leader.acquire())
    await eventually(lambda: fault.seen == 1)
    await clock.advance(6.0)
    await acquiring
    await clock.advance(4.0)

    with pytest.raises(NotLeader):
        leader.check()


async def test_a_leader_whose_lease_was_taken_gives_up(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader = candidate(api, clock)
    await leader.acquire()
    keeping = asyncio.create_task(leader.keep())
    lease = kube.objects[LEASES]["skyward-operator"]
    kube.put(LEASES, lease | {"spec": lease["spec"] | {"holderIdentity": "somebody"}})
    await asyncio.sleep(0)
    await clock.advance(2.0)

    with pytest.raises(NotLeader, match="somebody"):
        async with asyncio.timeout(5):
            await keeping
    assert not leader.is_leader


async def test_a_lost_answer_to_a_renewal_loses_no_leadership(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader = candidate(api, clock)
    await leader.acquire()
    keeping = asyncio.create_task(leader.keep())
    kube.fault(method="PATCH", lose_answer=True)
    await asyncio.sleep(0)
    await clock.advance(2.0)
    await eventually(lambda: kube.count("PATCH") >= 2)
    await clock.advance(1.0)
    await eventually(lambda: kube.count("PATCH") >= 3)

    leader.check()
    assert not keeping.done()
    keeping.cancel()


async def test_a_released_lease_is_taken_at_once(kube: FakeKube, api: Api) -> None:
    clock = ManualClock()
    leader, other = candidate(api, clock), candidate(api, clock, "two")
    await leader.acquire()
    await leader.advertise("http://127.0.0.1:1")
    await leader.release()

    async with asyncio.timeout(5):
        await other.acquire()

    assert holder(kube) == other.identity
    with pytest.raises(NotLeader):
        leader.check()


async def test_the_gateway_is_advertised_and_withdrawn(kube: FakeKube, api: Api) -> None:
    leader = candidate(api, ManualClock())
    await leader.acquire()

    def shown() -> tuple[object, object]:
        said = kube.objects[LEASES]["skyward-operator"]["metadata"].get("annotations", {})
        return said.get(ANNOTATION_GATEWAY), said.get(ANNOTATION_GATEWAY_SERVICE)

    await leader.advertise("http://127.0.0.1:1", "system/gateway:80")
    assert shown() == ("http://127.0.0.1:1", "system/gateway:80")
    await leader.advertise("http://127.0.0.1:2")
    assert shown() == ("http://127.0.0.1:2", None)
    await leader.release()
    assert shown() == (None, None)
