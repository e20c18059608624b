"""What a pool's status says of the offers that were asked for: bounded, together, and not too often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from skyward.contract.pool import ComputePool, ComputePoolStatus
from skyward_operator.placement.tried import MOST, TOGETHER_SECONDS, Entry, Tried, of_offer
from skyward_operator.providers.contract import Offer

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SPOT = Offer("sim", "east", "c.small", "spot", Decimal("0.0120"), Decimal("0.04"), candidate="main")


@dataclass
class Hand:
    """A clock that is moved by hand."""

    passed: float = 0.0

    def now(self) -> datetime:
        """The wall time."""
        return NOW + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        """The same, in seconds."""
        return 1000.0 + self.passed

    async def sleep(self, seconds: float) -> None:
        """At once."""
        self.passed += seconds


def pool(status: dict[str, Any] | None = None) -> ComputePool:
    """A pool."""
    metadata = {"name": "p", "namespace": "default", "uid": "u"}
    spec = {"candidates": [{"name": "main", "provider": "sim"}]}
    return ComputePool.read({"metadata": metadata, "spec": spec, "status": status or {}})


def refused(clock: Hand, offer: Offer = SPOT, message: str = "none left") -> Entry:
    """A refusal now."""
    retry = clock.now() + timedelta(seconds=180)
    return of_offer("main", offer, "InsufficientCapacity", message, clock.now(), retry)


def test_the_same_refusal_is_counted_and_shown_once_with_its_latest_time() -> None:
    tried = Tried(clock := Hand())
    for _ in range(3):
        tried.note("u", refused(clock))
        clock.passed += 1
    assert tried.shown(pool()) == [
        {
            "candidate": "main",
            "provider": "sim",
            "region": "east",
            "instanceType": "c.small",
            "market": "spot",
            "hourlyPrice": "0.0120",
            "outcome": "InsufficientCapacity",
            "message": "none left",
            "time": "2026-11-25T12:00:02Z",
            "retryTime": "2026-11-25T12:03:02Z",
            "count": 3,
        }
    ]


def test_what_comes_in_a_burst_waits_for_the_rest_and_is_then_shown() -> None:
    tried = Tried(clock := Hand())
    tried.note("u", refused(clock))
    first = tried.shown(pool())
    for number in range(20):
        tried.note("u", refused(clock, replace(SPOT, region=f"r{number}")))
        assert tried.shown(pool()) == first
    again = tried.again("u")
    assert again == TOGETHER_SECONDS
    clock.passed += again
    assert len(tried.shown(pool())) == 21
    clock.passed += TOGETHER_SECONDS
    assert (len(tried.shown(pool())), tried.again("u")) == (21, None)


def test_the_newest_are_kept_and_shown_first() -> None:
    tried = Tried(clock := Hand())
    for number in range(MOST + 10):
        clock.passed += 1
        tried.note("u", refused(clock, replace(SPOT, region=f"r{number}")))
    shown = [each["region"] for each in tried.shown(pool())]
    assert shown == [f"r{number}" for number in reversed(range(10, MOST + 10))]
    tried.note("u", refused(clock, replace(SPOT, region="only known")), again=False)
    clock.passed += TOGETHER_SECONDS
    assert [each["region"] for each in tried.shown(pool())] == shown


def test_what_is_only_known_is_no_further_try_and_moves_the_next_one_only() -> None:
    tried = Tried(clock := Hand())
    tried.note("u", refused(clock))
    clock.passed += 10
    tried.note("u", replace(refused(clock), retry=NOW + timedelta(seconds=100)), again=False)
    tried.note("u", replace(refused(clock), retry=NOW + timedelta(seconds=400)), again=False)
    (shown,) = tried.shown(pool())
    assert (shown["count"], shown["time"]) == (1, "2026-11-25T12:00:00Z")
    assert shown["retryTime"] == "2026-11-25T12:06:40Z"


def test_a_new_operator_goes_on_with_what_the_status_has() -> None:
    before = Tried(clock := Hand())
    before.note("u", refused(clock))
    before.note("u", Entry("main", "sim", "PriceCapExceeded", "too dear", clock.now()))
    kept = {"offersTried": before.shown(pool())}
    after = Tried(clock)
    after.note("u", refused(clock, replace(SPOT, region="west")))
    shown = after.shown(pool(kept))
    assert {each.get("region", "") for each in shown} == {"west", "east", ""}
    ComputePoolStatus.model_validate({"offersTried": shown})
    assert all(each in shown for each in kept["offersTried"])


def test_the_next_try_of_a_pool_is_that_of_the_node_that_waits_least() -> None:
    tried = Tried(Hand())
    tried.waits("u", "n0", NOW + timedelta(seconds=60))
    tried.waits("u", "n1", NOW + timedelta(seconds=30))
    assert tried.next_try("u") == NOW + timedelta(seconds=30)
    tried.waits("u", "n1", None)
    assert tried.next_try("u") == NOW + timedelta(seconds=60)
    tried.waits("u", "n0", None)
    assert tried.next_try("u") is None
    tried.forget("u")
    assert tried.shown(pool()) == []
