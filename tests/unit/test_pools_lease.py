"""When the client of a pool is given up: after silence that the API server itself has confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.fake.cluster_fakes import pool_object

from skyward.contract.names import ANNOTATION_RENEWED
from skyward.contract.pool import ComputePool
from skyward_operator.kube.errors import Unavailable
from skyward_operator.pools.lease import Heard, Leases, Next, judge, seconds_left

if TYPE_CHECKING:
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api
    from skyward_operator.kube.store import Store


@pytest.mark.parametrize(
    ("heard", "now", "next_"),
    [
        (Heard("s", 0), 19, "wait"),
        (Heard("s", 0), 20, "look"),
        (Heard("s", 0), 500, "look"),
        (Heard("s", 0, confirmed=20), 29, "wait"),
        (Heard("s", 0, confirmed=20), 30, "over"),
        (Heard("s", 0, confirmed=29), 38, "wait"),
        (Heard("s", 0, confirmed=29), 39, "over"),
        (Heard("s", 0, confirmed=20), 41, "look"),
    ],
)
def test_silence_is_believed_after_two_looks_a_third_of_the_lease_apart(
    heard: Heard, now: float, next_: Next
) -> None:
    assert judge(heard, now, 30) == next_
    if next_ == "wait":
        assert judge(heard, now + seconds_left(heard, now, 30), 30) in ("look", "over")


class Server:
    """An API server with one pool, and its clock."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.version = 1
        self.pool = pool_object(lease={"durationSeconds": 30})
        self.pool["metadata"] |= {"uid": "u", "resourceVersion": "1"}
        self.is_down = False
        self.asked = 0

    def renew(self) -> None:
        """The client gives a sign."""
        self.version += 1
        fresh = {ANNOTATION_RENEWED: str(self.version)}
        version = {"resourceVersion": str(self.version)}
        self.pool = self.pool | {"metadata": self.pool["metadata"] | {"annotations": fresh} | version}

    async def get(self, *_: Any) -> dict[str, Any]:
        """The pool, if there is an answer."""
        self.asked += 1
        if self.is_down:
            raise Unavailable("no answer")
        return self.pool

    def put(self, *_: Any) -> bool:
        """Nobody reads it here."""
        return True

    def monotonic(self) -> float:
        """As the test says."""
        return self.time

    def leases(self) -> Leases:
        """Those of one operator process."""
        return Leases(cast("Api", self), cast("Store", self), cast("Clock", self))

    async def passes(self, leases: Leases, seconds: float, seen: dict[str, Any] | None = None) -> str | None:
        """Look at the pool (as the watch has it) each second; when its client was given up."""
        for _ in range(int(seconds)):
            self.time += 1
            if (given_up := await leases.expired(ComputePool.read(seen or self.pool))) is not None:
                return given_up
        return None


async def test_a_silent_client_is_given_up_after_its_lease_and_not_before() -> None:
    server = Server()
    leases = server.leases()
    assert await server.passes(leases, 1) is None
    assert await server.passes(leases, 29) is None
    assert await server.passes(leases, 1) == "1"
    assert server.asked == 2


async def test_a_client_that_gives_signs_is_never_given_up_whatever_they_say() -> None:
    server = Server()
    leases = server.leases()
    for _ in range(20):
        server.renew()
        assert await server.passes(leases, 19) is None
    assert server.asked == 0


async def test_a_sign_that_the_watch_has_not_brought_counts() -> None:
    server = Server()
    leases, old = server.leases(), server.pool
    assert await server.passes(leases, 22, old) is None
    server.renew()
    assert await server.passes(leases, 15, old) is None


async def test_an_api_server_that_does_not_answer_ends_no_pool_and_a_client_that_comes_back_goes_on() -> None:
    server = Server()
    leases = server.leases()
    await server.passes(leases, 10)
    server.is_down = True
    for _ in range(100):
        server.time += 1
        if server.time > 1000 + 25:
            with pytest.raises(Unavailable):
                await leases.expired(ComputePool.read(server.pool))
    server.is_down = False
    assert await server.passes(leases, 9) is None
    server.renew()
    assert await server.passes(leases, 19) is None


async def test_another_operator_waits_anew() -> None:
    server = Server()
    await server.passes(server.leases(), 29)
    later = server.leases()
    assert await server.passes(later, 30) is None
    assert await server.passes(later, 1) == "1"


async def test_a_pool_without_a_lease_is_never_looked_at() -> None:
    server = Server()
    server.pool = pool_object()
    leases = server.leases()
    assert await server.passes(leases, 1000) is None
    assert leases.again(ComputePool.read(server.pool)) is None
